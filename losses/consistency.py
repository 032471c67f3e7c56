"""Consistency of coefficient vectors, judged by a discriminator of pairs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from renderers.constants import constant

GUIDING, CORRUPTED = 0, 1
"""The two classes, columns of the discriminator's answer."""


def consistency_loss(guiding: Tensor, corrupted: Tensor) -> Tensor:
    """L_CO and L_CN: Huber distance of the answers to the labels d_G = (1, 0), d_O = d_N = (0, 1) (ROGUE, (8), (9)).

    The discriminator minimises it. The coefficient network maximises it (12): it learns to give corrupted pictures
    coefficients that the discriminator takes for those of guiding pictures.

    Args:
        guiding: (B, 2) the discriminator's answer to the clean images' coefficients beside themselves.
        corrupted: (B, 2) its answer to the occluded or noisy ones' beside the clean ones'.

    Returns:
        scalar, the mean over both.
    """
    return 0.5 * (_distance(guiding, GUIDING) + _distance(corrupted, CORRUPTED))


def _distance(answers: Tensor, label: int) -> Tensor:
    target = constant((1.0, 0.0) if label == GUIDING else (0.0, 1.0), answers)
    return F.huber_loss(answers, target.expand_as(answers))
