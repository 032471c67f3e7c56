"""The 68 landmarks of iBUG: their groups, and which two change places in a mirror.

Right and left are the person's. The picture of a person who faces the camera shows the right eye on its left side.
"""

from __future__ import annotations

import numpy as np

LANDMARKS = 68

JAW = slice(0, 17)
RIGHT_BROW, LEFT_BROW = slice(17, 22), slice(22, 27)
BROWS = slice(17, 27)
BRIDGE, NOSTRILS = slice(27, 31), slice(31, 36)
NOSE = slice(27, 36)
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
EYES = slice(36, 48)
OUTER_MOUTH, INNER_MOUTH = slice(48, 60), slice(60, 68)
MOUTH = slice(48, 68)

CHIN = 8
NOSE_TIP, NOSE_BASE = 30, 33
RIGHT_EYE_CORNERS = (36, 39)  # outer, inner
LEFT_EYE_CORNERS = (42, 45)  # inner, outer
MOUTH_CORNERS = (48, 54)  # right, left

JAW_SIDES = (0, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 16)
"""The jaw without the chin. These points slide along the cheek when a detector marks the visible outline."""

CURVES = (
    (JAW, False), (RIGHT_BROW, False), (LEFT_BROW, False), (BRIDGE, False), (NOSTRILS, False),
    (RIGHT_EYE, True), (LEFT_EYE, True), (OUTER_MOUTH, True), (INNER_MOUTH, True),
)  # fmt: skip
"""The lines that join the landmarks, and whether each is closed."""

MIRROR = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # nostrils
        *(45, 44, 43, 42, 47, 46),  # right eye
        *(39, 38, 37, 36, 41, 40),  # left eye
        *range(54, 47, -1),  # upper outer lip
        *range(59, 54, -1),  # lower outer lip
        *range(64, 59, -1),  # upper inner lip
        *range(67, 64, -1),  # lower inner lip
    ]
)
"""(68,) the landmark with which each changes places when the picture is mirrored."""
