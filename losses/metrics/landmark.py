"""Landmark error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, PearsonCorrCoef

from losses.aspect_ratio import lid_distances
from losses.metrics.landmark_error import landmark_nme
from losses.metrics.mean_metric import MeanMetric

YAW_BINS = ("0 to 30", "30 to 60", "60 to 90")  # degrees, either way
YAW_LIMITS = (30.0, 60.0)


class LandmarkNME(MeanMetric):
    """Normalized mean error of landmarks, percent: mean point distance / sqrt(width * height) of the true points' box.

    The measure of AFLW2000-3D. A face whose true points span no area is left out.
    """

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 68, 2) pixels.
            true: (B, 68, 2) pixels.
        """
        box = (true.amax(dim=1) - true.amin(dim=1)).prod(dim=-1)
        self.add(landmark_nme(predicted, true), ~(box <= 0))


def yaw_bin(yaw: Tensor) -> Tensor:
    """Which of `YAW_BINS` a face belongs to: (B,) degrees of either sign -> (B,) 0, 1 or 2.

    A bin includes its upper limit. Faces beyond 90 degrees belong to the last bin, as in AFLW2000-3D's own count.

    >>> yaw_bin(torch.tensor([-12.0, 30.0, 30.1, 95.0])).tolist()
    [0, 0, 1, 2]
    """
    return torch.bucketize(yaw.abs(), yaw.new_tensor(YAW_LIMITS))


class YawBinnedNME(Metric):
    """`landmark_nme` in percent for each of `YAW_BINS`, and the mean of the bins (AFLW2000-3D; MGCNet, table 1).

    In that mean the bins weigh the same, however many faces they hold. A face whose true points span no area is left
    out.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros(len(YAW_BINS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(len(YAW_BINS), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, true: Tensor, yaw: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 68, 2) pixels.
            true: (B, 68, 2) pixels.
            yaw: (B,) degrees.
        """
        counts = ~((true.amax(dim=1) - true.amin(dim=1)).prod(dim=-1) <= 0)
        bins, values = yaw_bin(yaw)[counts], landmark_nme(predicted, true)[counts]
        self.total.index_add_(0, bins, values.double())
        self.count.index_add_(0, bins, torch.ones_like(bins))

    def compute(self) -> Tensor:
        """(4,): the three bins, NaN where one has no face, and the mean of those that have."""
        means = self.total / self.count
        return torch.cat([means, means[self.count > 0].mean()[None]])


class LidCorrelation(PearsonCorrCoef):
    """Pearson's correlation of predicted and true `lid_distances` over all eyes of all faces; NaN where either is even.

    Of landmarks in space and without a pose: whether eyes are open where they are open.
    """

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 68, 3) model space.
            true: (B, 68, 3) model space.
        """
        super().update(lid_distances(predicted).flatten(), lid_distances(true).flatten())
