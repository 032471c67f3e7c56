"""The specular paper's own metrics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import NamedMetrics
from losses.metrics import (
    ImageColorError,
    ImageColorSpread,
    InnerMouthError,
    LidCorrelation,
    LightDirectionError,
    PointToPlaneError,
    ShapeRMSE,
    SpecularCorrelation,
)
from renderers.color import decode
from renderers.face_models.base import MorphableModel
from renderers.specular_renderer import SpecularRendering


class SpecularMetrics(NamedMetrics):
    """The specular paper's own: colour error of the picture, point-to-plane distance, inner mouth, highlights, lamp.

    The colour error is taken where the drawn face and the photograph's skin overlap, the highlights' correlation in
    linear light. Beside them the lids, and what `shape_rmse_mm` would be of the mean face. What needs a truth is left
    out without one.
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
                "mean_face_shape_rmse_mm": ShapeRMSE(),
                "inner_mouth_error_mm": InnerMouthError(face_model.landmark_indices),
                "lid_correlation": LidCorrelation(),
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
        known["mean_face_shape_rmse_mm"].update(self.face_model.mean_shape.expand_as(shape), shape)
        known["inner_mouth_error_mm"].update(rendering.shape, shape)
        known["lid_correlation"].update(*map(self.face_model.landmarks, (rendering.shape, shape)))
        if truth.specular is not None and truth.light_position is not None:
            shine = decode(rendering.specular), decode(truth.specular)
            known["specular_correlation"].update(*shine, truth.depth > 0)
            origins = rendering.translation, true.translation
            known["light_direction_error_deg"].update(rendering.lamp.position, truth.light_position, *origins)

    def named(self) -> Iterator[tuple[str, Metric]]:
        yield from self.all.items()
