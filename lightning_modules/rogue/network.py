"""A classifier of pairs of coefficient vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from renderers.coefficients import CoefficientLayout, Coefficients

HIDDEN = 124


class CoefficientDiscriminator(nn.Module):
    """Three fully connected layers of L, 124 and 2 units, where L is a vector's length: 257 with BFM 2009.

    It is given a clean face's coefficients C_G and others of the same face, as (8) and (9) print it: D(C_G, C_O). The
    two answers are the probabilities that the others are "guiding", C_G itself, or "corrupted", what a corrupted copy
    gave (ROGUE, sections 3.2.2 and 6.2.2). A classifier of single vectors could not tell a wrong pose from another
    face's.

    The paper names no activations; these are leaky ReLUs between the layers and a softmax at the end: without a bound
    the network, which maximises the discriminator's loss, drives its coefficients away without end. Every layer's
    spectral norm is held at 1 (Miyato et al. 2018): a softmax that is sure gives no gradient, and one whose scores
    move no faster than the coefficients is never sure of faces that are alike.

    Args:
        layout: of the vector.
    """

    def __init__(self, layout: CoefficientLayout) -> None:
        super().__init__()
        self.layout = layout
        self.layers = nn.Sequential(
            spectral_norm(nn.Linear(2 * layout.length, layout.length)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(layout.length, HIDDEN)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(HIDDEN, 2)),
        )

    def forward(self, guiding: Coefficients, other: Coefficients) -> Tensor:
        """Coefficients of B clean images, others of the same faces -> (B, 2): are these (guiding, corrupted)?"""
        scores: Tensor = self.layers(torch.cat([self.layout.join(guiding), self.layout.join(other)], dim=1))
        return scores.softmax(dim=-1)
