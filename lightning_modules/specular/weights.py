"""Weights of the specular paper's terms."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.components.weighting import Weights


@dataclass(frozen=True)
class SpecularWeights(Weights):
    """Weights of equation (6), section 4.1; a term of weight 0 is not computed.

    Attributes:
        identity, photometric, landmark, mouth, regularization, uniform: the terms (7), (8), (10), (11), (12), (13).
        lids: of how far the lids are apart, which the paper does not have.
        both: eta of (8), which the paper leaves to the user: diffuse and specular render together, against the diffuse
            one alone.
        eyes: mu of (10) for the eyes' landmarks.
        prior_identity, prior_expression, prior_albedo, prior_distance, prior_outside: inside (12), see
            `coefficient_regularization`; the paper has none of the last two.
    """

    identity: float = 0.2
    photometric: float = 1.92
    landmark: float = 1.8e-3
    mouth: float = 1.3e-3
    regularization: float = 5e-4
    uniform: float = 5.0
    lids: float = 0.0
    both: float = 1.0
    eyes: float = 1.0
    prior_identity: float = 1.0
    prior_expression: float = 1.0
    prior_albedo: float = 1.0
    prior_distance: float = 0.0
    prior_outside: float = 0.0

    def terms(self) -> dict[str, float]:
        """The weights of equation (6)'s terms by name."""
        return {name: value for name, value in super().terms().items() if name not in ("both", "eyes")}
