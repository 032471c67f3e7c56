"""The sum that every paper's loss is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The terms that are there, each a scalar, times their weights.

    Raises:
        KeyError: a term has no weight.
    """
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
