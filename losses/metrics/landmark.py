"""Landmark error."""

from __future__ import annotations

from torch import Tensor

from losses.metrics.mean_metric import MeanMetric


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
        distance = (predicted - true).norm(dim=-1).mean(dim=-1)
        self.add(100 * distance / box.sqrt(), ~(box <= 0))
