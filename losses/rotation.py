"""Distance between rotations."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-12  # squared chord under the root, whose slope at 0 is infinite


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """The angle of the rotation that leads from one rotation to the other.

    It is computed from the chord |R1 - R2| = 2 sqrt(2) sin(angle / 2). That is exact at small angles; the usual arc
    cosine of the trace is not.

    Args:
        first: (..., 3, 3).
        second: (..., 3, 3).

    Returns:
        (...) radians in [0, pi].
    """
    chord = (first - second).square().sum(dim=(-1, -2)) / 8
    return 2 * torch.atan2(chord.clamp_min(SMALLEST).sqrt(), (1 - chord).clamp_min(SMALLEST).sqrt())
