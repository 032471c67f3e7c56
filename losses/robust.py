"""The robustified term: who it is must be seen from everywhere, and with a part of the face hidden."""

from __future__ import annotations

from torch import Tensor

from losses.attribute import attribute_loss
from losses.identity import identity_loss


def robustified_loss(identity_a: Tensor, identity_b: Tensor, attributes_a: Tensor, attributes_b: Tensor) -> Tensor:
    """L_rob = L_id + L_att (self-augmentation, equation (9)), of a photograph and a re-rendered view of its face.

    Args:
        identity_a: (B, D) the photograph's identity features.
        identity_b: (B, D) those of the view from elsewhere, or with a part hidden.
        attributes_a: (B, E) the photograph's attribute features.
        attributes_b: (B, E) the view's.

    Returns:
        (B,)
    """
    return identity_loss(identity_a, identity_b) + attribute_loss(attributes_a, attributes_b)
