"""Errors of shape, depth and pose."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from losses.metrics.mean_metric import MeanMetric

MILLIMETRES = 100.0  # in a decimetre
_AXES = {"pitch": 0, "yaw": 1, "roll": 2}


class VertexRMSE(MeanMetric):
    """Root mean squared vertex distance of a face in millimetres, averaged over faces; no alignment is done."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) model space, decimetres.
            true: (B, V, 3) model space, decimetres.
        """
        self.add(MILLIMETRES * (predicted - true).square().sum(dim=-1).mean(dim=-1).sqrt())


class DepthError(MeanMetric):
    """Mean absolute depth error in millimetres over the pixels that both maps cover, averaged over images.

    An image in which no pixel is covered by both is left out. A NaN depth counts as covered, and so shows.

    Args:
        up_to_scale: multiply the predicted depth by S = sum(D_true) / sum(D_predicted) over those pixels first (the
            scale ratio of MGCNet, equation 4), since one image tells depth only up to scale.
        kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, up_to_scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.up_to_scale = up_to_scale

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 1, H, W) decimetres from the camera, 0 where there is no face.
            true: (B, 1, H, W) likewise.
        """
        predicted, true = predicted.flatten(1).float(), true.flatten(1).float()
        both = ~((predicted <= 0) | (true <= 0))
        predicted, true = torch.where(both, predicted, 0.0), torch.where(both, true, 0.0)
        if self.up_to_scale:
            predicted = predicted * (true.sum(dim=1) / predicted.sum(dim=1)).unsqueeze(1)
        error = torch.where(both, (predicted - true).abs(), 0.0).sum(dim=1) / both.sum(dim=1)
        self.add(MILLIMETRES * error, both.any(dim=1))


class PoseError(MeanMetric):
    """Mean absolute error of one Euler angle in degrees, the short way round the circle.

    Args:
        axis: "pitch" (about x), "yaw" (about y) or "roll" (about z).
        kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, axis: Literal["pitch", "yaw", "roll"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = _AXES[axis]

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 3) rotations about x, y, z in radians.
            true: (B, 3) likewise.
        """
        difference = (predicted - true)[:, self.axis]
        wrapped = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
        self.add(torch.rad2deg(wrapped.abs()))
