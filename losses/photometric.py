"""Photometric terms: the drawn face against the photograph."""

from __future__ import annotations

import torch
from torch import Tensor

SURE_SKIN = 0.5


def saturate_skin(skin: Tensor) -> Tensor:
    """Skin weights as MGCNet's release uses them: above 0.5 a pixel counts fully, below it keeps its own weight.

    A step apart from `render_loss`, which takes the weights as they are.

    Args:
        skin: any shape, in [0, 1].
    """
    return torch.where(skin > SURE_SKIN, torch.ones_like(skin), skin)


def render_loss(rendered: Tensor, image: Tensor, mask: Tensor, skin: Tensor) -> Tensor:
    """L_render = 1/M sum_i w_skin^i ||I^i - I_re^i|| (MGCNet, section 3.3).

    The norm is Euclidean over RGB, its gradient 0 where the two pixels agree. M counts all pixels of the projected
    face, skin or not; an image without any gives 0.

    Args:
        rendered: (B, 3, H, W) drawn face, in [0, 1] before clamping.
        image: (B, 3, H, W) photograph, in [0, 1].
        mask: (B, 1, H, W) the projected face, bool or 0/1.
        skin: (B, 1, H, W) skin weights in [0, 1].

    Returns:
        (B,) in [0, sqrt(3)] for colours in [0, 1].
    """
    weights = (mask.to(image.dtype) * skin).flatten(1)
    distance = torch.linalg.vector_norm(image - rendered, dim=1).flatten(1)
    return (weights * distance).sum(dim=1) / mask.flatten(1).sum(dim=1).clamp_min(1)
