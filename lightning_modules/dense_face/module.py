"""The network that ships with the project: its outputs, and its training on synthetic heads alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate
from torch.optim import AdamW, Optimizer
from torchmetrics import MeanMetric, MeanSquaredError, Metric

from datamodules.batch import FaceBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.evaluation import NamedMetrics
from lightning_modules.components.panels import face_panels
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.dense_face.network import EXPRESSION_DEVIATION, DenseAnswer, DenseNetwork, ThinResNet
from lightning_modules.dense_face.targets import (
    DensePoints,
    ExplainedVariance,
    gaze,
    light_difference,
    seen_by_default_camera,
    similarity_motions,
)
from lightning_modules.dense_face.weights import DenseFaceWeights
from losses.aspect_ratio import aspect_ratio_loss
from losses.dense_landmarks import gaussian_landmark_loss
from losses.rotation import geodesic_distance
from renderers.camera import default_intrinsics, euler_to_rotation
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.regions import load_dense_landmarks
from renderers.face_models.linear import LinearModel
from renderers.illumination import sphere_points
from renderers.io.errors import UserError
from renderers.landmarks68 import LANDMARKS


class DenseFaceMetrics(NamedMetrics):
    """Dense landmarks' error in percent of sqrt(w * h) of the true 68 landmarks' box, and the parsing's accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.dense_nme, self.parsing_accuracy = MeanMetric(), MeanMetric()

    @torch.no_grad()
    def update(self, answer: DenseAnswer, target: Tensor, labels: Tensor) -> None:
        """Count one batch: true points (B, N, 2) in pixels, true classes (B, h, w)."""
        box = (target[:, :LANDMARKS].amax(dim=1) - target[:, :LANDMARKS].amin(dim=1)).prod(dim=-1).sqrt()
        self.dense_nme.update(100 * (answer.points - target).norm(dim=-1).mean(dim=-1) / box)
        self.parsing_accuracy.update((answer.parsing.argmax(dim=1) == labels).float())

    def named(self) -> Iterator[tuple[str, Metric]]:
        yield "dense_nme", self.dense_nme
        yield "parsing_accuracy", self.parsing_accuracy


class DenseFace(FaceModule):
    """Dense landmarks with their uncertainty, coefficients and a parsing map, learned from exact truth.

    Args:
        face_model, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        backbone: the network up to its heads.
        parsing_classes: of the parsing map.
        weights: of the loss terms.
        eyes_only: `EyeHead` alone is trained, and the rest stays as `init_weights` has it. What other modules start
            from stays the same too.

    Raises:
        UserError: the face model is not the embedded default; at a training's start, `eyes_only` without
            `init_weights`.
    """

    vertices: Tensor
    directions: Tensor

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ThinResNet,
        image_size: int = 224,
        parsing_classes: int = 13,
        weights: DenseFaceWeights = DenseFaceWeights(),
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Literal["constant", "cosine"] = "cosine",
        init_weights: str | None = None,
        eyes_only: bool = False,
    ) -> None:
        if not isinstance(face_model, LinearModel) or face_model.name != "default":
            raise UserError(f"face model {face_model.name}: dense landmarks are known of the default one alone")
        network = DenseNetwork(face_model, backbone, image_size, parsing_classes)
        super().__init__(face_model, network, None, image_size, optimizer, schedule)
        self.weights = weights
        self.register_buffer("vertices", torch.from_numpy(load_dense_landmarks()), persistent=False)
        self.decode = DensePoints(face_model, self.vertices)
        self.register_buffer("directions", sphere_points(64).float(), persistent=False)
        motions = similarity_motions(face_model.mean_shape)
        self.identity_error = ExplainedVariance(face_model.identity_basis, 1.0, motions)
        self.size_error = ExplainedVariance(face_model.identity_basis, 1.0)
        self.expression_error = ExplainedVariance(face_model.expression_basis, EXPRESSION_DEVIATION)
        self.albedo_error = ExplainedVariance(face_model.albedo_basis, 1.0)
        self.own_metrics: DenseFaceMetrics = DenseFaceMetrics()
        sizes = face_model.identity_size, face_model.expression_size
        self.answer_errors = MeanSquaredError(squared=False, num_outputs=sum(sizes))
        self.start_from(init_weights)
        self.eyes_only, self.starts_anew = eyes_only, init_weights is None
        if eyes_only:
            self.network.requires_grad_(False).eyes.requires_grad_(True)
            self.train()  # the trainer leaves modules in the mode that they are in

    def on_fit_start(self) -> None:
        if self.eyes_only and self.starts_anew:
            raise UserError("eyes_only: there is no network yet that finds the eyes; give its weights by init_weights")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.starts_anew = False

    def train(self, mode: bool = True) -> DenseFace:
        """Batch norms of what is not trained keep their statistics."""
        super().train(mode)
        if self.eyes_only:
            self.network.eval().eyes.train(mode)
        return self

    @classmethod
    def around(cls, network: DenseNetwork, face_model: LinearModel) -> DenseFace:
        """The module of a network that was trained, for the face model that it was trained for."""
        module = cls(face_model, network.backbone, network.image_size, network.parsing_classes)
        module.regressor = network
        return module

    @property
    def network(self) -> DenseNetwork:
        """What is trained."""
        assert isinstance(self.regressor, DenseNetwork)
        return self.regressor

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        terms, _, _ = self.terms(batch)
        loss = weighted_sum(terms, self.weights.terms())
        self.log_terms("train", terms, loss, len(batch))
        return loss

    def terms(self, batch: FaceBatch) -> tuple[dict[str, Tensor], DenseAnswer, FaceBatch]:
        """Every term as a mean over the batch; the network's answer; and the batch as the default camera sees it.

        Raises:
            UserError: the batch has no truth, or no parsing map.
        """
        if batch.truth is None or batch.truth.parsing is None:
            raise UserError(
                "the dense-landmark network learns from whole synthetic heads: give data with settings.heads"
            )
        given = self.regressor.layout.split(batch.truth.coefficients)
        target = self.true_points(batch)
        true = seen_by_default_camera(given, batch.intrinsics, batch.size[1])
        answer, size = self.network.predict(batch.image), batch.size[1]
        found = answer.coefficients
        both, units = (answer.first, found), self.network.eyes.units
        camera = default_intrinsics(size, batch.image.device).expand(len(batch), -1, -1)
        redrawn = self.decode(found, camera)
        rotations = euler_to_rotation(found.angles), euler_to_rotation(true.angles)
        scale = math.log(size)
        terms = {
            "dense": gaussian_landmark_loss(answer.points / size, target / size, answer.log_deviation - scale).mean(),
            "reprojection": 100 / size * (redrawn - target).norm(dim=-1).mean(),
            "identity": self.identity_error(found.identity, true.identity).mean(),
            "size": self.size_error(found.identity, true.identity).mean(),
            "expression": _mean(self.expression_error(one.expression, true.expression) for one in both),
            "openings": _mean(aspect_ratio_loss(self._landmarks(one), self._landmarks(true)) for one in both),
            "gaze": _mean((gaze(one.expression, units) - gaze(true.expression, units)).abs() for one in both),
            "albedo": self.albedo_error(found.albedo, true.albedo).mean(),
            "rotation": geodesic_distance(*rotations).mean(),
            "translation": (found.translation - true.translation).norm(dim=-1).mean(),
            "light": light_difference(found.illumination, true.illumination, self.directions).mean(),
            "parsing": cross_entropy(answer.parsing, _labels(batch, answer)),
        }
        truth = replace(batch.truth, coefficients=self.regressor.layout.join(true))
        return terms, answer, replace(batch, truth=truth, intrinsics=camera, landmarks=target[:, :LANDMARKS])

    def evaluate(self, stage: Stage, batch: FaceBatch, batch_idx: int) -> None:
        terms, answer, seen = self.terms(batch)
        self.log_terms(stage, terms, weighted_sum(terms, self.weights.terms()), len(batch))
        self.metrics.update(seen, answer.coefficients, self.renderer(answer.coefficients))
        self.own_metrics.update(answer, self.true_points(batch), _labels(batch, answer))
        if stage == "val":
            assert seen.truth is not None
            true, found = self.regressor.layout.split(seen.truth.coefficients), answer.coefficients
            pair = (torch.cat([part.identity, part.expression], dim=1) for part in (found, true))
            self.answer_errors.update(*pair)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if not self.eyes_only:
            self.network.answer_deviation.copy_(self.answer_errors.compute())
        self.answer_errors.reset()

    def true_points(self, batch: FaceBatch) -> Tensor:
        """(B, N, 2) pixels: where the dense points are in pictures whose truth is known."""
        assert batch.truth is not None
        return self.decode(self.regressor.layout.split(batch.truth.coefficients), batch.intrinsics)

    def _landmarks(self, coefficients: Coefficients) -> Tensor:
        """(B, 68, 3) decimetres: the iBUG points, which are the first of the dense ones, without a pose."""
        return self.decode.points(coefficients)[:, :LANDMARKS]

    @torch.no_grad()
    def panels(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1]."""
        answer = self.network.predict(batch.image)
        pictures = face_panels(batch.image, self.renderer(answer.coefficients))
        shades = answer.parsing.argmax(dim=1, keepdim=True) / max(answer.parsing.shape[1] - 1, 1)
        return pictures | {"parsing": interpolate(shades, batch.size).expand(-1, 3, -1, -1)}


def _mean(terms: Iterable[Tensor]) -> Tensor:
    """Of the answer before and after the eyes were seen once more: papers start from the former."""
    return torch.stack(list(terms)).mean()


def _labels(batch: FaceBatch, answer: DenseAnswer) -> Tensor:
    """(B, h, w) the true classes, as large as the network's map."""
    assert batch.truth is not None and batch.truth.parsing is not None
    return interpolate(batch.truth.parsing.float(), answer.parsing.shape[-2:])[:, 0].long()
