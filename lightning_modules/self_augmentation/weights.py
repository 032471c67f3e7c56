"""Weights of both stages of self-augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_modules.components.weighting import Weights


@dataclass(frozen=True)
class CoarseWeights(Weights):
    """Weights of the coarse model's own stage: the terms of Deng et al. 2019, whose network the paper takes.

    Attributes:
        photometric, landmark, identity, regularization: the terms.
        prior_identity, prior_expression, prior_albedo, prior_tint, prior_light,
            prior_usual_light: inside the regularization term.
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
    prior_usual_light: float = 0.0


@dataclass(frozen=True)
class SelfAugmentationWeights(Weights):
    """Weights of equation (5), section 3.2.4; a term of weight 0 is not computed.

    Attributes:
        photometric, identity, attribute, robustified: the terms (6), (7), (8), (9).
        rotation: of equation (5) for the fed-back I_rot, compared with I_rot and with I; 1 in the paper.
        occlusion: the same for I_occ.
        consistency: of `rerender.difference` between the face found in a fed-back view and the face that the view
            shows. The paper only says that the two should be close; it has no such term.
        coarse: of the coarse stage's own loss, which goes on where the coarse model is trained in the fine stage.
        change: of the squared distance between fine and coarse colours. The paper has no such term. It keeps errors of
            light and shape out of the fine colours. Where the photograph shows nothing, it keeps the coarse colours.
    """

    photometric: float = 1.0
    identity: float = 0.2
    attribute: float = 0.005
    robustified: float = 0.001
    rotation: float = 1.0
    occlusion: float = 1.0
    consistency: float = 0.0
    coarse: float = 1.0
    change: float = 0.0

    @property
    def perceptual(self) -> bool:
        """Whether a term compares features of a rendering."""
        return bool(self.identity or self.attribute)

    @property
    def compares_features(self) -> bool:
        """Whether a term compares features of a rendering or of a re-rendered view."""
        return bool(self.perceptual or self.robustified)
