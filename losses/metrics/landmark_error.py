"""Landmark error, as a function."""

from __future__ import annotations

from torch import Tensor


def landmark_nme(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean point distance / sqrt(width * height) of the true points' box (AFLW2000-3D; MGCNet, section 4.3).

    Args:
        predicted: (B, L, 2) pixels.
        true: (B, L, 2) pixels.

    Returns:
        (B,) percent; NaN or infinite where the true points span no area.
    """
    box = (true.amax(dim=1) - true.amin(dim=1)).prod(dim=-1)
    return 100 * (predicted - true).norm(dim=-1).mean(dim=-1) / box.sqrt()
