"""Landmark term: the face model's projected 68 points against the detected ones."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.camera import REFERENCE_SIZE
from renderers.landmarks68 import BROWS, EYES, INNER_MOUTH, LANDMARKS, NOSE, OUTER_MOUTH

STRONG = 10.0
STRONG_EXPRESSION = 20.0


def landmark_weights() -> Tensor:
    """(68,) confidences c_lm of MGCNet, section 3.3, in iBUG order: 10 for nose and inner mouth, 1 elsewhere."""
    weights = torch.ones(LANDMARKS)
    weights[NOSE] = STRONG
    weights[INNER_MOUTH] = STRONG
    return weights


def mouth_and_brow_weights(eyes: float = 1.0) -> Tensor:
    """Weights mu of the specular paper, section 4.1.3: 20 for the outer mouth and the brows, 1 elsewhere. (68,).

    Args:
        eyes: the weight of the eyes' landmarks. With the paper's 1 the twelve of them are 2.5 % of the sum.
    """
    weights = torch.ones(LANDMARKS)
    weights[EYES] = eyes
    weights[OUTER_MOUTH] = STRONG_EXPRESSION
    weights[BROWS] = STRONG_EXPRESSION
    return weights


def landmark_loss(predicted: Tensor, target: Tensor, weights: Tensor, image_size: int) -> Tensor:
    """L_lm = mean_i c_lm^i (q_gt^i - q^i)^2 (MGCNet, section 3.3; the paper prints a sum, its release takes the mean).

    Distances are expressed in pixels of a 224 px image, so that the term's weight holds for every image size.

    Args:
        predicted: (B, 68, 2) pixels.
        target: (B, 68, 2) pixels.
        weights: (68,) confidences.
        image_size: pixels along the image's side.

    Returns:
        (B,) square pixels at 224 px.

    >>> shifted = torch.tensor([3.0, 4.0]).expand(1, 68, 2)  # by 5 pixels
    >>> landmark_loss(shifted, torch.zeros(1, 68, 2), torch.ones(68), image_size=112).tolist()
    [100.0]
    """
    scale = REFERENCE_SIZE / image_size
    squared = (scale * (predicted - target)).square().sum(dim=-1)
    return (weights * squared).mean(dim=-1)
