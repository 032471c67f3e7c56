"""Equation (5): the distance of a rendered face from a picture, in pixels and in features (section 3.2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.self_augmentation.weights import SelfAugmentationWeights
from losses.attribute import attribute_loss
from losses.identity import identity_loss
from losses.photometric import render_loss


@dataclass
class Features:
    """Features of B faces from the frozen networks: (B, D) identity and (B, E) attributes."""

    identity: Tensor
    attributes: Tensor

    def detach(self) -> Features:
        """The same values without gradient."""
        return Features(self.identity.detach(), self.attributes.detach())


def likeness_terms(
    rendered: Tensor,
    rendered_features: Features | None,
    image: Tensor,
    target_features: Features | None,
    mask: Tensor,
    weights: SelfAugmentationWeights,
) -> dict[str, Tensor]:
    """L_photo (6), L_id (7) and L_att (8), each a mean over the images. Terms of weight 0 are left out.

    Args:
        rendered: (B, 3, H, W) rendered face.
        rendered_features: its features. Without these or the picture's, L_id and L_att are left out.
        image: (B, 3, H, W) picture.
        target_features: its features.
        mask: (B, 1, H, W) M, weights in [0, 1].
        weights: of the terms.
    """
    terms: dict[str, Tensor] = {}
    if weights.photometric:
        terms["photometric"] = render_loss(rendered, image, mask, torch.ones_like(mask)).mean()
    if rendered_features is None or target_features is None:
        return terms
    if weights.identity:
        terms["identity"] = identity_loss(rendered_features.identity, target_features.identity).mean()
    if weights.attribute:
        terms["attribute"] = attribute_loss(rendered_features.attributes, target_features.attributes).mean()
    return terms
