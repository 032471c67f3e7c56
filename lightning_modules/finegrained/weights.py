"""Weights of both stages."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.components.weighting import Weights


@dataclass(frozen=True)
class CoarseWeights(Weights):
    """Weights of equations (6) and (10); a term of weight 0 is not computed.

    The paper's text gives no values. These are MGCNet's, because the terms are those of MGCNet.

    Attributes:
        photometric, landmark, identity: of (7), (8), (9).
        prior_identity, prior_expression, prior_albedo: lambda_alpha, lambda_beta, lambda_delta of (10).
        prior_tint, prior_light: of `light_regularization`, which (10) does not have.
    """

    photometric: float = 1.9
    landmark: float = 1e-3
    identity: float = 0.2
    prior_identity: float = 1e-4
    prior_expression: float = 8e-5
    prior_albedo: float = 3e-7
    prior_tint: float = 0.0
    prior_light: float = 0.0

    @property
    def regularizes(self) -> bool:
        """Whether there is a prior on any coefficient."""
        return any(self.priors().values())

    def terms(self) -> dict[str, float]:
        """The weights of equation (6)'s terms, by name. Equation (10) is one term and applies its own weights."""
        return {**super().terms(), "regularization": 1.0}


@dataclass(frozen=True)
class FineWeights(Weights):
    """Weights of equations (11) and (13), section 4.1; a term of weight 0 is not computed.

    Attributes:
        photometric, identity, albedo, smoothness: of the terms (7), (9), (12), (13) of the fine face.
        normals, variation: w_n and w_d of (13).
    """

    photometric: float = 1.0
    identity: float = 0.8
    albedo: float = 1.0
    smoothness: float = 1.0
    normals: float = 1e-3
    variation: float = 1e-3

    def terms(self) -> dict[str, float]:
        """The weights of equation (11)'s terms, by the names under which they are logged."""
        return {
            "fine_photometric": self.photometric,
            "fine_identity": self.identity,
            "albedo": self.albedo,
            "smoothness": self.smoothness,
        }
