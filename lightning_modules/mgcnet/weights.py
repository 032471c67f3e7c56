"""Weights of MGCNet's terms."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.components.weighting import Weights


@dataclass(frozen=True)
class MGCNetWeights(Weights):
    """Weights of equation 6 and section 3.3; a term of weight 0 is not computed.

    Attributes:
        render, landmark, identity, regularization: the 2D feature losses.
        pixel, depth, epipolar: the multi-view losses (3), (4), (5).
        prior_identity, prior_expression, prior_albedo, prior_distance: inside the regularization term. The paper has no
            prior on the distance.
    """

    render: float = 1.9
    landmark: float = 1e-3
    identity: float = 0.2
    regularization: float = 1e-4
    pixel: float = 0.15
    depth: float = 1e-4
    epipolar: float = 1e-3
    prior_identity: float = 1.0
    prior_expression: float = 0.8
    prior_albedo: float = 3e-3
    prior_distance: float = 0.0
