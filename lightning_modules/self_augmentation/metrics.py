"""Metrics of coarse and of fine faces, on clean and on occluded pictures, and of the colours under the occluder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import NamedMetrics
from losses.encoders import FaceEncoder
from losses.metrics import HiddenVertexColorRMSE, IdentitySimilarity, MaskedPSNR, MaskedSSIM, TextureRMSE
from renderers.camera import euler_to_rotation, project, transform
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering

VISIBLE_TOLERANCE = 0.05  # decimetres; on a slanted surface a visible vertex may be deeper than its pixel's centre


def hidden_vertices(vertices_image: Tensor, depth: Tensor, hidden: Tensor) -> Tensor:
    """Vertices that face the camera and are covered by an occluder.

    Args:
        vertices_image: (B, V, 3) x, y in pixels, z the positive depth in decimetres.
        depth: (B, 1, H, W) of the face alone, decimetres, 0 where there is none.
        hidden: (B, 1, H, W) bool, the occluder.

    Returns:
        (B, V) bool.
    """
    batch, _, height, width = depth.shape
    x, y, z = vertices_image.unbind(dim=-1)
    column, row = x.floor().long(), y.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = torch.where(inside, row * width + column, 0)
    surface = depth.view(batch, -1).gather(1, pixel)
    visible = inside & (surface > 0) & (z <= surface + VISIBLE_TOLERANCE)
    return visible & hidden.view(batch, -1).gather(1, pixel)


class RefinementMetrics(NamedMetrics):
    """PSNR, SSIM, identity similarity and colour errors of the coarse and of the fine face under each condition.

    Pictures are compared with the clean photograph where the rendered and the true face overlap. Both renderings have
    the same shape, and so the same pixels. Where the true vertex colours are known, `texture_rmse` compares all of
    them, and `hidden_color_rmse` those under the occluder.

    Args:
        face_model: the decoder.
        encoders: recognition networks by the name of their metric.
    """

    CONDITIONS = ("clean", "occluded")
    MODELS = ("coarse", "fine")

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
                **{name: IdentitySimilarity() for name in encoders},
            },
            compute_groups=False,
        )
        self.sets = nn.ModuleDict({f"{c}_{m}": metrics.clone() for c in self.CONDITIONS for m in self.MODELS})

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
            renderings: "coarse" and "fine" of the clean or occluded pictures.
            face: (B, 1, H, W) bool, where the batch's pictures show the face.
            hidden: (B, 1, H, W) bool, the occluder.
        """
        target_features = {name: encoder(batch.image, batch.landmarks) for name, encoder in self.encoders.items()}
        truth = batch.truth
        colors = None if truth is None else truth.vertex_albedo
        under = None if hidden is None or colors is None else self._hidden(batch, hidden)
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

    def _hidden(self, batch: FaceBatch, hidden: Tensor) -> Tensor:
        """(B, V) `hidden_vertices` of the true faces."""
        assert batch.truth is not None
        true = self.layout.split(batch.truth.coefficients)
        shape = self.face_model.shape(true.identity, true.expression)
        posed = transform(shape, euler_to_rotation(true.angles), true.translation)
        return hidden_vertices(project(posed, batch.intrinsics), batch.truth.depth, hidden)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name: `MODEL_METRIC` on clean pictures, `occluded/MODEL_METRIC` on occluded ones."""
        prefixes = {"clean": "", "occluded": "occluded/"}
        for condition in self.CONDITIONS:
            for model in self.MODELS:
                for name, metric in self.of(condition, model).items():
                    yield f"{prefixes[condition]}{model}_{name}", metric
