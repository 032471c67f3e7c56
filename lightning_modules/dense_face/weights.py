"""The weights of the dense-landmark network's terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class DenseFaceWeights:
    """What each term counts.

    Attributes:
        dense: Gaussian negative log-likelihood of the dense landmarks, in shares of the crop's side.
        reprojection: mean distance of the decoded vertices in the crop, percent of its side.
        identity: share of the neutral shape's variance that is not explained, after a similarity alignment.
        size: the same without alignment. Size cannot be seen; this keeps it at its mean.
        expression: the same of the expression's.
        openings: mean absolute difference of the aspect ratios of eyes and mouth.
        gaze: mean absolute difference of the gaze, in shares of the gaze of a full weight.
        albedo: share of the colours' variance that is not explained.
        rotation: angle to the true rotation, radians.
        translation: distance to the true translation, decimetres.
        light: mean absolute difference of the irradiance from all sides.
        parsing: cross-entropy of the parsing map.
    """

    dense: float = 1.0
    reprojection: float = 0.1
    identity: float = 2.0
    size: float = 0.1
    expression: float = 1.0
    openings: float = 4.0
    gaze: float = 1.0
    albedo: float = 0.3
    rotation: float = 2.0
    translation: float = 0.3
    light: float = 0.3
    parsing: float = 0.5

    def terms(self) -> dict[str, float]:
        """The weights by name."""
        return asdict(self)
