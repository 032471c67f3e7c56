"""Metrics of coarse and of fine faces, on clean and on occluded pictures, and of the colours under the occluder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import NamedMetrics
from lightning_modules.self_augmentation.mirroring import hidden_vertices
from losses.encoders import FaceEncoder
from losses.metrics import HiddenVertexColorRMSE, IdentitySimilarity, MaskedPSNR, MaskedSSIM, TextureRMSE
from renderers.camera import euler_to_rotation, project, transform
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering
from renderers.reflectance import lambertian


class RefinementMetrics(NamedMetrics):
    """PSNR, SSIM, identity similarity and colour errors of the coarse and of the fine face under each condition.

    Pictures are compared with the clean photograph where the rendered and the true face overlap. All renderings have
    the same shape, and so the same pixels. Where the true vertex colours are known, `texture_rmse` compares all of
    them, and `hidden_color_rmse` those under the occluder. A picture shows the product of colour and light, so
    `hidden_lit_rmse` compares the hidden vertices as they are lit: the found colours in the found light and the true
    ones in the true light. `mirrored` is what needs no training: see `mirroring.mirrored`.

    Args:
        face_model: the decoder.
        encoders: recognition networks by the name of their metric.
    """

    MODELS: Mapping[str, Sequence[str]] = {"clean": ("coarse", "fine"), "occluded": ("coarse", "fine", "mirrored")}

    def __init__(self, face_model: MorphableModel, encoders: Mapping[str, FaceEncoder]) -> None:
        super().__init__()
        self.face_model = face_model
        self.layout = face_model.layout()
        self.encoders = nn.ModuleDict(encoders)
        metrics = MetricCollection(
            {
                "psnr": MaskedPSNR(),
                "ssim": MaskedSSIM(),
                "texture_rmse": TextureRMSE(),
                "hidden_color_rmse": HiddenVertexColorRMSE(),
                "hidden_lit_rmse": HiddenVertexColorRMSE(),
                **{name: IdentitySimilarity() for name in encoders},
            },
            compute_groups=False,
        )
        self.sets = nn.ModuleDict({f"{c}_{m}": metrics.clone() for c, models in self.MODELS.items() for m in models})

    def of(self, condition: str, model: str) -> MetricCollection:
        """The metrics of one model under one condition."""
        return cast(MetricCollection, self.sets[f"{condition}_{model}"])

    @torch.no_grad()
    def update(
        self,
        batch: FaceBatch,
        condition: str,
        renderings: Mapping[str, Rendering],
        face: Tensor,
        hidden: Tensor | None = None,
    ) -> None:
        """Count one batch.

        Args:
            batch: of clean faces.
            condition: "clean" or "occluded".
            renderings: of the clean or occluded pictures, by their name in `MODELS`.
            face: (B, 1, H, W) bool, where the batch's pictures show the face.
            hidden: (B, 1, H, W) bool, the occluder.
        """
        target_features = {name: encoder(batch.image, batch.landmarks) for name, encoder in self.encoders.items()}
        truth = batch.truth
        colors = None if truth is None else truth.vertex_albedo
        under = lit = None
        if hidden is not None and colors is not None:
            under, lit = self._hidden(batch, hidden, colors)
        for model, rendering in renderings.items():
            known, image = self.of(condition, model), rendering.image.clamp(0, 1)
            for name in ("psnr", "ssim"):
                known[name].update(image, batch.image, rendering.mask & face)
            for name, encoder in self.encoders.items():
                known[name].update(encoder(image, rendering.landmarks), target_features[name])
            if colors is not None:
                known["texture_rmse"].update(rendering.vertex_albedo, colors)
            if under is not None:
                known["hidden_color_rmse"].update(rendering.vertex_albedo, colors, under)
                known["hidden_lit_rmse"].update(rendering.vertex_colors, lit, under)

    def _hidden(self, batch: FaceBatch, hidden: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V) `hidden_vertices` of the true faces, and (B, V, 3) their colours as they are lit."""
        assert batch.truth is not None
        true = self.layout.split(batch.truth.coefficients)
        shape = self.face_model.shape(true.identity, true.expression)
        posed = transform(shape, euler_to_rotation(true.angles), true.translation)
        under = hidden_vertices(project(posed, batch.intrinsics), batch.truth.depth, hidden)
        return under, lambertian(colors, self.face_model.normals(posed), true.illumination)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name: `MODEL_METRIC` on clean pictures, `occluded/MODEL_METRIC` on occluded ones."""
        prefixes = {"clean": "", "occluded": "occluded/"}
        for condition, models in self.MODELS.items():
            for model in models:
                for name, metric in self.of(condition, model).items():
                    yield f"{prefixes[condition]}{model}_{name}", metric
