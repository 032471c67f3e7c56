"""A classifier of coefficient vectors."""

from __future__ import annotations

from torch import Tensor, nn

from renderers.coefficients import CoefficientLayout, Coefficients

HIDDEN = 124


class CoefficientDiscriminator(nn.Module):
    """Three fully connected layers of L, 124 and 2 units, where L is the vector's length: 257 with BFM 2009.

    The two answers score the classes "guiding" and "corrupted" (ROGUE, sections 3.2.2 and 6.2.2). The paper names no
    activation between the layers; these are leaky ReLUs.

    Args:
        layout: of the vector.
    """

    def __init__(self, layout: CoefficientLayout) -> None:
        super().__init__()
        self.layout = layout
        self.layers = nn.Sequential(
            nn.Linear(layout.length, layout.length),
            nn.LeakyReLU(0.2),
            nn.Linear(layout.length, HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, 2),
        )

    def forward(self, coefficients: Coefficients) -> Tensor:
        """Coefficients of B images -> (B, 2) scores of (guiding, corrupted)."""
        scores: Tensor = self.layers(self.layout.join(coefficients))
        return scores
