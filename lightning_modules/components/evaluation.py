"""The metrics that every paper reports, gathered over an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.batch import FaceBatch
from losses.encoders import FaceEncoder
from losses.metrics import (
    DepthError,
    IdentitySimilarity,
    LandmarkNME,
    MaskedPSNR,
    PoseError,
    ShapeRMSE,
    SizeError,
    VertexRMSE,
)
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering

SHAPE_METRICS: dict[str, type[Metric]] = {
    "vertex_rmse_mm": VertexRMSE,
    "shape_rmse_mm": ShapeRMSE,
    "size_error_percent": SizeError,
}
"""Of a predicted against a true shape: both together, and each apart."""


def shape_metrics() -> dict[str, Metric]:
    """A new one of each of `SHAPE_METRICS`."""
    return {name: metric() for name, metric in SHAPE_METRICS.items()}


class NamedMetrics(nn.Module, ABC):
    """A collection of metrics that a paper logs. Subclasses list them with their names."""

    @abstractmethod
    def named(self) -> Iterator[tuple[str, Metric]]:
        """Every metric with the name that it is logged under."""

    def compute(self) -> dict[str, Tensor]:
        """The value of every metric that has seen something, by name."""
        return {name: metric.compute() for name, metric in self.named() if metric.update_called}

    def reset(self) -> None:
        """Forget all batches."""
        for _, metric in self.named():
            metric.reset()


class ReconstructionMetrics(NamedMetrics):
    """Landmark NME, PSNR, identity similarity on every batch; vertex, depth and pose errors where the truth is known.

    PSNR is taken inside the true face where it is known, else inside the rendered one. Without an identity encoder
    there is no identity similarity.
    """

    def __init__(self, face_model: MorphableModel, identity_encoder: FaceEncoder | None) -> None:
        super().__init__()
        self.face_model, self.identity_encoder = face_model, identity_encoder
        self.layout = face_model.layout()
        self.always = MetricCollection(
            {"nme": LandmarkNME(), "psnr": MaskedPSNR(), "identity_similarity": IdentitySimilarity()},
            compute_groups=False,
        )
        self.with_truth = MetricCollection(
            {
                **shape_metrics(),
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
        if self.identity_encoder is not None:
            rendered_features = self.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)
            self.always["identity_similarity"].update(
                rendered_features, self.identity_encoder(batch.image, batch.landmarks)
            )
        if truth is None:
            return
        true, known = self.layout.split(truth.coefficients), self.with_truth
        shape = self.face_model.shape(true.identity, true.expression)
        for name in SHAPE_METRICS:
            known[name].update(rendering.shape, shape)
        for name in ("depth_error_mm", "absolute_depth_error_mm"):
            known[name].update(rendering.depth, truth.depth)
        for name in ("yaw_error_deg", "pitch_error_deg", "roll_error_deg"):
            known[name].update(coefficients.angles, true.angles)

    def named(self) -> Iterator[tuple[str, Metric]]:
        yield from self.always.items()
        yield from self.with_truth.items()
