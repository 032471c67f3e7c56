"""Linear light and display values: the one curve between them.

Light adds up in linear values. Pictures, and the albedos of face models that were made for display, hold display
values, d = l ** (1 / 2.2) (the specular paper, equation 2). That curve is infinitely steep at 0, so a straight line
through 0 replaces it below `TOE`, as in sRGB. Spherical harmonics can give negative light; there d = l, whose gradient
leads back to positive light without exploding. `encode` and `decode` are each other's inverse for all numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 2.2
TOE = 0.003  # of linear light: a display value of 0.07
STEEPNESS = TOE ** (1 / GAMMA - 1)  # of the line between 0 and `TOE`: 23.7


def encode(linear: Tensor) -> Tensor:
    """Linear light of any shape -> display values, not clamped."""
    line = STEEPNESS * linear.clamp_min(0) + linear.clamp_max(0)
    return torch.where(linear > TOE, linear.clamp_min(TOE) ** (1 / GAMMA), line)


def decode(display: Tensor) -> Tensor:
    """Display values of any shape -> linear light, not clamped.

    >>> [round(value, 3) for value in decode(torch.tensor([0.0, 0.5, 1.0])).tolist()]
    [0.0, 0.218, 1.0]
    """
    edge = STEEPNESS * TOE
    line = display.clamp_min(0) / STEEPNESS + display.clamp_max(0)
    return torch.where(display > edge, display.clamp_min(edge) ** GAMMA, line)


def encoding_slope(linear: Tensor) -> Tensor:
    """The derivative of `encode`, of any shape; never 0."""
    line = torch.where(linear > 0, STEEPNESS, 1.0)
    return torch.where(linear > TOE, linear.clamp_min(TOE) ** (1 / GAMMA - 1) / GAMMA, line)
