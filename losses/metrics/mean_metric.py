"""The mean of one number per face, over everything seen on every process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanMetric(Metric):
    """Sum and count of per-face values; both are summed over the processes of a DDP run.

    `compute()` gives sum / count, which is NaN before the first face. NaN values are not left out: one NaN prediction
    makes the mean NaN.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def add(self, values: Tensor, counts: Tensor | None = None) -> None:
        """Take in values (B,). Where `counts` (B,) bool is given, only values with True enter the mean."""
        if counts is None:
            counts = torch.ones_like(values, dtype=torch.bool)
        self.total += torch.where(counts, values.float(), 0.0).sum()
        self.count += counts.sum()

    def compute(self) -> Tensor:
        """Scalar; NaN where nothing has counted."""
        return self.total / self.count


class StandardDeviation(MeanMetric):
    """The standard deviation of the values whose mean a `MeanMetric` gives: sqrt(E[v^2] - E[v]^2)."""

    squares: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("squares", default=torch.tensor(0.0), dist_reduce_fx="sum")

    def add(self, values: Tensor, counts: Tensor | None = None, squares: Tensor | None = None) -> None:
        """Take in values (B,), or means of several values with means of their squares (B,); see `MeanMetric.add`."""
        if counts is None:
            counts = torch.ones_like(values, dtype=torch.bool)
        super().add(values, counts)
        self.squares += torch.where(counts, (values.square() if squares is None else squares).float(), 0.0).sum()

    def compute(self) -> Tensor:
        """Scalar; NaN where nothing has counted."""
        mean = super().compute()
        return (self.squares / self.count - mean.square()).clamp_min(0).sqrt()
