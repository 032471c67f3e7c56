"""The metrics that every paper reports, gathered over an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from losses.encoders import FaceEncoder
from losses.metrics import (
    CosineDistance,
    DepthError,
    IdentitySimilarity,
    ImageColorError,
    ImageColorSpread,
    InnerMouthError,
    LandmarkNME,
    LightDirectionError,
    MaskedPSNR,
    PointToPlaneError,
    PosedVertexRMSE,
    PoseError,
    SpecularCorrelation,
    TextureRMSE,
    VertexRMSE,
)
from renderers.camera import euler_to_rotation, transform
from renderers.coefficients import Coefficients
from renderers.color import decode
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering
from renderers.specular_renderer import SpecularRendering


class NamedMetrics(nn.Module, ABC):
    """A paper's metrics; subclasses say what they are called."""

    @abstractmethod
    def named(self) -> Iterator[tuple[str, Metric]]:
        """Every metric with the name that it is logged under."""

    def compute(self) -> dict[str, Tensor]:
        """The value of every metric that has seen something, by name."""
        return {name: metric.compute() for name, metric in self.named() if metric.update_called}

    def reset(self) -> None:
        """Forget everything seen."""
        for _, metric in self.named():
            metric.reset()


class ReconstructionMetrics(NamedMetrics):
    """Landmark NME, PSNR, identity similarity on every batch; vertex, depth and pose errors where the truth is known.

    PSNR is taken inside the true face where it is known, else inside the drawn one.
    """

    def __init__(self, face_model: MorphableModel, identity_encoder: FaceEncoder) -> None:
        super().__init__()
        self.face_model, self.identity_encoder = face_model, identity_encoder
        self.layout = face_model.layout()
        self.always = MetricCollection(
            {"nme": LandmarkNME(), "psnr": MaskedPSNR(), "identity_similarity": IdentitySimilarity()},
            compute_groups=False,
        )
        self.with_truth = MetricCollection(
            {
                "vertex_rmse_mm": VertexRMSE(),
                "depth_error_mm": DepthError(),
                "absolute_depth_error_mm": DepthError(up_to_scale=False),
                "yaw_error_deg": PoseError("yaw"),
                "pitch_error_deg": PoseError("pitch"),
                "roll_error_deg": PoseError("roll"),
            },
            compute_groups=False,
        )

    @torch.no_grad()
    def update(self, batch: FaceBatch, coefficients: Coefficients, rendering: Rendering) -> None:
        """Count one batch."""
        truth = batch.truth
        self.always["nme"].update(rendering.landmarks, batch.landmarks)
        self.always["psnr"].update(rendering.image, batch.image, rendering.mask if truth is None else truth.depth > 0)
        drawn = self.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)
        self.always["identity_similarity"].update(drawn, self.identity_encoder(batch.image, batch.landmarks))
        if truth is None:
            return
        true, known = self.layout.split(truth.coefficients), self.with_truth
        known["vertex_rmse_mm"].update(rendering.shape, self.face_model.shape(true.identity, true.expression))
        for name in ("depth_error_mm", "absolute_depth_error_mm"):
            known[name].update(rendering.depth, truth.depth)
        for name in ("yaw_error_deg", "pitch_error_deg", "roll_error_deg"):
            known[name].update(coefficients.angles, true.angles)

    def named(self) -> Iterator[tuple[str, Metric]]:
        yield from self.always.items()
        yield from self.with_truth.items()


class RobustnessMetrics(NamedMetrics):
    """How well clean and corrupted copies of a picture are reconstructed, by the corruption's name.

    Landmark NME; the cosine distance of identity features between the clean picture and what was drawn (ROGUE, table
    4); and where the truth is known the vertex errors of section 4.2: of the shape alone, of the face as it is turned
    in camera space, and of the texture.
    """

    NAMES = ("clean", "rational", "delusional", "noisy")

    def __init__(self, face_model: MorphableModel, identity_encoder: FaceEncoder) -> None:
        super().__init__()
        self.face_model, self.identity_encoder = face_model, identity_encoder
        self.layout = face_model.layout()
        metrics = MetricCollection(
            {
                "shape_rmse_mm": VertexRMSE(),
                "posed_rmse_mm": PosedVertexRMSE(),
                "texture_rmse": TextureRMSE(),
                "yaw_error_deg": PoseError("yaw"),
                "nme": LandmarkNME(),
                "cosine_distance": CosineDistance(),
            },
            compute_groups=False,
        )
        self.sets = nn.ModuleDict({name: metrics.clone() for name in self.NAMES})

    def of(self, name: str) -> MetricCollection:
        """The metrics of one kind of picture."""
        return cast(MetricCollection, self.sets[name])

    @torch.no_grad()
    def update(
        self, batch: FaceBatch, coefficients: Mapping[str, Coefficients], renderings: Mapping[str, Rendering]
    ) -> None:
        """Count one batch.

        Args:
            batch: of clean images.
            coefficients: by name, of those images ("clean") and of their corrupted copies.
            renderings: what these coefficients draw.
        """
        wanted = self.identity_encoder(batch.image, batch.landmarks)
        for name, rendering in renderings.items():
            known = self.of(name)
            known["nme"].update(rendering.landmarks, batch.landmarks)
            drawn = self.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)
            known["cosine_distance"].update(drawn, wanted)
        if batch.truth is None:
            return
        true = self.layout.split(batch.truth.coefficients)
        shape, albedo = self.face_model.shape(true.identity, true.expression), self.face_model.albedo(true.albedo)
        vertices = transform(shape, euler_to_rotation(true.angles), true.translation)
        for name, rendering in renderings.items():
            known = self.of(name)
            known["shape_rmse_mm"].update(rendering.shape, shape)
            known["posed_rmse_mm"].update(rendering.vertices, vertices)
            known["texture_rmse"].update(rendering.vertex_albedo, albedo)
            known["yaw_error_deg"].update(coefficients[name].angles, true.angles)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name `SET/METRIC`."""
        for name in self.NAMES:
            for metric, value in self.of(name).items():
                yield f"{name}/{metric}", value


class SpecularMetrics(NamedMetrics):
    """The specular paper's own: colour error of the picture, point-to-plane distance, inner mouth, highlights, lamp.

    The colour error is taken where the drawn face and the photograph's skin overlap, the highlights' correlation in
    linear light. What needs a truth is left out without one.
    """

    def __init__(self, face_model: MorphableModel) -> None:
        super().__init__()
        self.face_model = face_model
        self.layout = face_model.layout()
        self.all = MetricCollection(
            {
                "color_error": ImageColorError(),
                "color_spread": ImageColorSpread(),
                "point_to_plane_mm": PointToPlaneError(),
                "inner_mouth_error_mm": InnerMouthError(face_model.landmark_indices),
                "specular_correlation": SpecularCorrelation(),
                "light_direction_error_deg": LightDirectionError(),
            },
            compute_groups=False,
        )

    @torch.no_grad()
    def update(self, batch: FaceBatch, rendering: SpecularRendering) -> None:
        """Count one batch."""
        known, truth = self.all, batch.truth
        for name in ("color_error", "color_spread"):
            known[name].update(rendering.image, batch.image, rendering.mask & (batch.skin > 0.5))
        if truth is None:
            return
        true = self.layout.split(truth.coefficients)
        shape = self.face_model.shape(true.identity, true.expression)
        known["point_to_plane_mm"].update(rendering.shape, shape, self.face_model.normals(shape))
        known["inner_mouth_error_mm"].update(rendering.shape, shape)
        if truth.specular is not None and truth.light_position is not None:
            shine = decode(rendering.specular), decode(truth.specular)
            known["specular_correlation"].update(*shine, truth.depth > 0)
            origins = rendering.translation, true.translation
            known["light_direction_error_deg"].update(rendering.lamp.position, truth.light_position, *origins)

    def named(self) -> Iterator[tuple[str, Metric]]:
        yield from self.all.items()
