"""Weights of ROGUE's terms."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.components.weighting import Weights


@dataclass(frozen=True)
class ROGUEWeights(Weights):
    """Weights of equations (6) and (12), section 6.2.2; a term of weight 0 is not computed.

    Attributes:
        landmark, photometric, perceptual, regularization: alpha_K, alpha_GP, alpha_P, alpha_R of the guidance pipeline.
        occlusion, noise, consistency: beta_O, beta_N, beta_C of the robustification pipeline.
        prior_identity, prior_expression, prior_albedo: w_s, w_e, w_t inside the regularization term (5).
    """

    landmark: float = 1.6e-3
    photometric: float = 1.92
    perceptual: float = 0.2
    regularization: float = 3e-4
    occlusion: float = 1.92
    noise: float = 1.92
    consistency: float = 1e-3
    prior_identity: float = 1.0
    prior_expression: float = 0.8
    prior_albedo: float = 1.7e-3

    def terms(self) -> dict[str, float]:
        """The factor of every term in the coefficient network's loss. Equation (12) subtracts the consistency term."""
        return {**super().terms(), "consistency": -self.consistency}
