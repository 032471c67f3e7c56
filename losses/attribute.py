"""Attribute loss: the distance of two faces in the features of a network for age, gender and the like."""

from __future__ import annotations

import torch
from torch import Tensor


def attribute_loss(features_a: Tensor, features_b: Tensor) -> Tensor:
    """L_att = ||F(I) - F(I_R)||_2 (self-augmentation, equation (8)); its gradient is 0 where the two agree.

    Args:
        features_a: (B, D).
        features_b: (B, D).

    Returns:
        (B,), 0 and above, in the unit of the features.
    """
    return torch.linalg.vector_norm(features_a - features_b, dim=-1)
