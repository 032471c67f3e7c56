"""Identity loss: the distance of two faces in a recognition network's features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def identity_loss(features_a: Tensor, features_b: Tensor) -> Tensor:
    """1 - cosine of two feature vectors: MGCNet's identity term, ROGUE's perceptual term, equations (2)-(6).

    Args:
        features_a: (B, D), of any norm other than zero.
        features_b: (B, D) likewise.

    Returns:
        (B,) in [0, 2].

    >>> import torch
    >>> identity_loss(torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, -1.0]])).tolist()
    [0.0, 2.0]
    """
    return 1 - F.cosine_similarity(features_a, features_b, dim=-1)
