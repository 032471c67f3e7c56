"""Equation (5): how alike a drawn face and a picture are, to the eye and to frozen networks (section 3.2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from lightning_modules.components.weighting import weighted_sum
from losses.attribute import attribute_loss
from losses.identity import identity_loss
from losses.photometric import render_loss


@dataclass(frozen=True)
class SelfAugmentationWeights:
    """Weights of equation (5), section 3.2.4; a term of weight 0 is not computed.

    Attributes:
        photometric, identity, attribute, robustified: the terms (6), (7), (8), (9).
        rotation: factor of equation (5) on I_rot fed back, against I_rot and I; the paper's 1.
        occlusion: likewise of I_occ.
        change: of the squared distance of fine from coarse colours, which the paper lacks: it keeps the fine ones from
            holding what light and shape got wrong, and from leaving the coarse ones where nothing is seen.
    """

    photometric: float = 1.0
    identity: float = 0.2
    attribute: float = 0.005
    robustified: float = 0.001
    rotation: float = 1.0
    occlusion: float = 1.0
    change: float = 0.0

    @property
    def perceptual(self) -> bool:
        """Whether a term asks the networks what they see in a render."""
        return bool(self.identity or self.attribute)

    def sum(self, *groups: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms of all groups."""
        return torch.stack([weighted_sum(terms, asdict(self)) for terms in groups]).sum()


@dataclass
class Features:
    """What the frozen networks say of B faces: (B, D) identity and (B, E) attribute activations."""

    identity: Tensor
    attributes: Tensor

    def detach(self) -> Features:
        """The same values, cut from the graph."""
        return Features(self.identity.detach(), self.attributes.detach())


def likeness_terms(
    rendered: Tensor,
    drawn: Features | None,
    image: Tensor,
    wanted: Features | None,
    mask: Tensor,
    weights: SelfAugmentationWeights,
) -> dict[str, Tensor]:
    """L_photo (6), L_id (7) and L_att (8), each a mean over the images; only those with a weight.

    Args:
        rendered: (B, 3, H, W) drawn face.
        drawn: its features; without these or the picture's the last two terms are left out.
        image: (B, 3, H, W) picture.
        wanted: its features.
        mask: (B, 1, H, W) M, weights in [0, 1].
        weights: of the terms.
    """
    terms: dict[str, Tensor] = {}
    if weights.photometric:
        terms["photometric"] = render_loss(rendered, image, mask, torch.ones_like(mask)).mean()
    if drawn is None or wanted is None:
        return terms
    if weights.identity:
        terms["identity"] = identity_loss(drawn.identity, wanted.identity).mean()
    if weights.attribute:
        terms["attribute"] = attribute_loss(drawn.attributes, wanted.attributes).mean()
    return terms
