"""The robustified term: a turned or partly hidden face must keep its identity and attribute features."""

from __future__ import annotations

from torch import Tensor

from losses.attribute import attribute_loss
from losses.identity import identity_loss


def robustified_loss(identity_a: Tensor, identity_b: Tensor, attributes_a: Tensor, attributes_b: Tensor) -> Tensor:
    """L_rob = L_id + L_att (self-augmentation, equation (9)), of a photograph and a re-rendered view of its face.

    Args:
        identity_a: (B, D) the photograph's identity features.
        identity_b: (B, D) identity features of the turned or partly hidden view.
        attributes_a: (B, E) the photograph's attribute features.
        attributes_b: (B, E) the view's.

    Returns:
        (B,)
    """
    return identity_loss(identity_a, identity_b) + attribute_loss(attributes_a, attributes_b)
