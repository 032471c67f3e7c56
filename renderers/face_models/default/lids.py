"""Lids: blinks of weight 1 that shut the eye, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.landmarks68 import LEFT_EYE, RIGHT_EYE

OVERLAP = 0.020  # decimetres that the shut lids of the mean face overlap, so that those of other faces shut too
UPPER, LOWER = [1, 2], [5, 4]  # of an eye's landmarks, one above the other


def fit_blinks(expressions: np.ndarray, names: Sequence[str], points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Scales the two blinks. anny's lids meet at a weight of .7, and then go on.

    Args:
        expressions: (W, 3, 52) displacements; not changed.
        names: the 52 units'.
        points: (W, 3) the mean head.
        landmarks: (68,) vertices.

    Returns:
        (W, 3, 52)
    """
    fitted = expressions.copy()
    for side, eye in (("Right", landmarks[RIGHT_EYE]), ("Left", landmarks[LEFT_EYE])):
        # The left eye's landmarks run from the inner corner, the right one's from the outer: in both 1 lies over 5.
        unit = names.index(f"eyeBlink{side}")
        opening = (points[eye[UPPER], 1] - points[eye[LOWER], 1]).mean()
        closing = (expressions[eye[LOWER], 1, unit] - expressions[eye[UPPER], 1, unit]).mean()
        fitted[..., unit] *= (opening + OVERLAP) / closing
    return fitted
