"""The coarse model's own stage: a coefficient regressor on landmarks, colours and identity (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from datamodules.batch import FaceBatch
from lightning_modules.components.weighting import weighted_sum
from losses.encoders import FaceEncoder
from losses.identity import identity_loss
from losses.landmark import LANDMARKS, landmark_loss
from losses.photometric import render_loss
from losses.regularization import coefficient_regularization, light_regularization
from renderers.coefficients import Coefficients
from renderers.face_renderer import Rendering


@dataclass(frozen=True)
class CoarseWeights:
    """Weights of the coarse model's own stage: the terms of Deng et al. 2019, whose network the paper takes.

    Attributes:
        photometric, landmark, identity, regularization: the terms.
        prior_identity, prior_expression, prior_albedo, prior_tint, prior_light: inside the regularization term.
    """

    photometric: float = 1.92
    landmark: float = 1.6e-3
    identity: float = 0.2
    regularization: float = 3e-4
    prior_identity: float = 1.0
    prior_expression: float = 0.8
    prior_albedo: float = 1.7e-3
    prior_tint: float = 0.0
    prior_light: float = 0.0

    def sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms."""
        return weighted_sum(terms, asdict(self))


def coarse_terms(
    batch: FaceBatch,
    coefficients: Coefficients,
    rendering: Rendering,
    mask: Tensor,
    weights: CoarseWeights,
    identity_encoder: FaceEncoder | None,
) -> dict[str, Tensor]:
    """The terms of the coarse stage, each a mean over the images; only those with a weight.

    Args:
        batch: of images.
        coefficients: what the network made of them.
        rendering: what these draw.
        mask: (B, 1, H, W) weights in [0, 1] of the photometric term, beside the projected face.
        weights: of the terms.
        identity_encoder: None while the identity term does not count yet.
    """
    terms: dict[str, Tensor] = {}
    if weights.photometric:
        terms["photometric"] = render_loss(rendering.image, batch.image, rendering.mask, mask).mean()
    if weights.landmark:
        even = rendering.landmarks.new_ones(LANDMARKS)
        size = batch.size[0]
        terms["landmark"] = landmark_loss(rendering.landmarks, batch.landmarks, even, size).mean()
    if weights.identity and identity_encoder is not None:
        with torch.no_grad():
            wanted = identity_encoder(batch.image, batch.landmarks)
        drawn = identity_encoder(rendering.image, rendering.landmarks)
        terms["identity"] = identity_loss(drawn, wanted).mean()
    if weights.regularization:
        prior = coefficient_regularization(
            coefficients, weights.prior_identity, weights.prior_expression, weights.prior_albedo
        )
        prior = prior + light_regularization(coefficients, weights.prior_tint, weights.prior_light)
        terms["regularization"] = prior.mean()
    return terms
