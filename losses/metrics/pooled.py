"""Statistics of the distances of all scans together, in memory that does not grow with their number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

STEP = 1e-3  # millimetres; width of a class of the histogram
LARGEST = 100.0  # millimetres; longer distances are counted in the last class


class PooledDistances(Metric):
    """Median, mean and standard deviation of every distance seen, and their cumulative curve (NoW).

    Every distance weighs the same, whichever scan it belongs to. Mean and deviation are exact. The median comes from a
    histogram: it is accurate to `STEP` if it lies below `LARGEST`. One NaN distance makes all three NaN.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    squares: Tensor
    histogram: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        classes = round(LARGEST / STEP) + 1
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("histogram", default=torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, distances: Tensor) -> None:
        """Take in (N,) distances in millimetres, at least 0."""
        distances = distances.double()
        self.total += distances.sum()
        self.squares += distances.square().sum()
        last = len(self.histogram) - 1
        classes = (distances / STEP).nan_to_num(last, last).clamp(0, last).long()
        self.histogram += torch.bincount(classes, minlength=last + 1)

    def compute(self) -> dict[str, Tensor]:
        """`median`, `mean` and `std` in millimetres; NaN where nothing was seen."""
        count = self.histogram.sum()
        mean = self.total / count
        spread = (self.squares / count - mean.square()).clamp_min(0).sqrt()
        return {"median": self._quantile(0.5) + 0 * mean, "mean": mean, "std": spread}

    def cumulative(self, limit: float) -> tuple[Tensor, Tensor]:
        """Millimetres from 0 to `limit`, and the share of distances below each, in [0, 1]."""
        edges = torch.arange(round(limit / STEP) + 1, device=self.histogram.device)
        below = torch.cat([self.histogram.new_zeros(1), self.histogram.cumsum(0)])
        return edges.double() * STEP, below[edges].double() / below[-1]

    def _quantile(self, share: float) -> Tensor:
        """The distance at which the cumulative histogram passes `share`, interpolated linearly within a class."""
        reached = self.histogram.cumsum(0)
        wanted = share * reached[-1].double()
        row = torch.searchsorted(reached.double(), wanted).clamp_max(len(reached) - 1)
        before = reached[row] - self.histogram[row]
        return STEP * (row + (wanted - before) / self.histogram[row].clamp_min(1))
