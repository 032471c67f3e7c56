"""Dense landmarks with uncertainty: Wood et al. 2022, "3D face reconstruction with dense landmarks"."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_landmark_loss(predicted: Tensor, target: Tensor, log_deviation: Tensor) -> Tensor:
    """Negative log-likelihood of isotropic Gaussians in the plane, without its constant (equation 1).

    Args:
        predicted: (B, N, 2) means.
        target: (B, N, 2) in the same unit.
        log_deviation: (B, N) natural logarithm of the standard deviation of each coordinate, in that unit.

    Returns:
        (B, N): log deviation^2 + distance^2 / (2 deviation^2), least at deviation^2 = distance^2 / 2.
    """
    squared = (predicted - target).square().sum(dim=-1)
    return 2 * log_deviation + 0.5 * squared * torch.exp(-2 * log_deviation)
