"""How well ROGUE reconstructs corrupted pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from lightning_modules.components.evaluation import SHAPE_METRICS, NamedMetrics, shape_metrics
from losses.encoders import FaceEncoder
from losses.metrics import CosineDistance, LandmarkNME, PosedVertexRMSE, PoseError, TextureRMSE
from renderers.camera import euler_to_rotation, transform
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering


class RobustnessMetrics(NamedMetrics):
    """How well clean and corrupted copies of a picture are reconstructed, by the corruption's name.

    Landmark NME; the cosine distance of identity features between the clean picture and what was drawn (ROGUE, table
    4); and where the truth is known the vertex errors of section 4.2: of the shape in model space, of the face as it is
    turned in camera space, and of the texture; and the shape's after a similarity, with its size apart.

    Of every corrupted copy also `posed_drift_mm`: the posed vertex error against what the same network made of the
    clean picture. Errors against the exact truth hold what the clean picture leaves unknown, whatever covers it; this
    has none of that. It says nothing of how good the clean answer is, so read it beside the clean pictures' errors.
    """

    NAMES = ("clean", "rational", "delusional", "noisy")

    def __init__(self, face_model: MorphableModel, identity_encoder: FaceEncoder) -> None:
        super().__init__()
        self.face_model, self.identity_encoder = face_model, identity_encoder
        self.layout = face_model.layout()
        metrics = MetricCollection(
            {
                **shape_metrics(),
                "posed_rmse_mm": PosedVertexRMSE(),
                "posed_drift_mm": PosedVertexRMSE(),
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
        target_features = self.identity_encoder(batch.image, batch.landmarks)
        for name, rendering in renderings.items():
            known = self.of(name)
            known["nme"].update(rendering.landmarks, batch.landmarks)
            rendered_features = self.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)
            known["cosine_distance"].update(rendered_features, target_features)
            if name != "clean":
                known["posed_drift_mm"].update(rendering.vertices, renderings["clean"].vertices)
        if batch.truth is None:
            return
        true = self.layout.split(batch.truth.coefficients)
        shape, albedo = self.face_model.shape(true.identity, true.expression), self.face_model.albedo(true.albedo)
        vertices = transform(shape, euler_to_rotation(true.angles), true.translation)
        for name, rendering in renderings.items():
            known = self.of(name)
            for metric in SHAPE_METRICS:
                known[metric].update(rendering.shape, shape)
            known["posed_rmse_mm"].update(rendering.vertices, vertices)
            known["texture_rmse"].update(rendering.vertex_albedo, albedo)
            known["yaw_error_deg"].update(coefficients[name].angles, true.angles)

    def named(self) -> Iterator[tuple[str, Metric]]:
        """Each with its name `SET/METRIC`."""
        for name in self.NAMES:
            for metric, value in self.of(name).items():
                yield f"{name}/{metric}", value
