"""Random people: coefficients of identity, expression and albedo."""

from __future__ import annotations

import numpy as np

from renderers.face_models.base import MorphableModel

# ARKit units that belong together (each a tuple of units that move as one), and the range of their weights.
GESTURES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("mouthSmileLeft", "mouthSmileRight"), 0.2, 0.8),
    (("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "cheekSquintRight"), 0.2, 0.7),
    (("mouthFrownLeft", "mouthFrownRight"), 0.1, 0.7),
    (("mouthStretchLeft", "mouthStretchRight"), 0.1, 0.5),
    (("mouthPressLeft", "mouthPressRight"), 0.1, 0.6),
    (("mouthUpperUpLeft", "mouthUpperUpRight"), 0.1, 0.4),
    (("mouthLowerDownLeft", "mouthLowerDownRight"), 0.1, 0.4),
    (("mouthDimpleLeft", "mouthDimpleRight"), 0.1, 0.6),
    (("mouthPucker",), 0.1, 0.7),
    (("mouthFunnel",), 0.1, 0.5),
    (("mouthRollLower",), 0.1, 0.4),
    (("mouthShrugLower",), 0.1, 0.6),
    (("mouthLeft",), 0.05, 0.25),
    (("mouthRight",), 0.05, 0.25),
    (("jawOpen",), 0.05, 0.4),
    (("jawLeft",), 0.1, 0.3),
    (("jawRight",), 0.1, 0.3),
    (("jawForward",), 0.1, 0.4),
    (("browDownLeft", "browDownRight"), 0.1, 0.8),
    (("browInnerUp",), 0.1, 0.9),
    (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 0.1, 0.8),
    (("browOuterUpLeft",), 0.1, 0.8),
    (("browOuterUpRight",), 0.1, 0.8),
    (("eyeSquintLeft", "eyeSquintRight"), 0.1, 0.8),
    (("eyeWideLeft", "eyeWideRight"), 0.1, 0.7),
    (("eyeBlinkLeft", "eyeBlinkRight"), 0.05, 0.5),
    (("eyeLookUpLeft", "eyeLookUpRight"), 0.1, 0.7),
    (("eyeLookDownLeft", "eyeLookDownRight"), 0.1, 0.7),
    (("eyeLookInLeft", "eyeLookOutRight"), 0.1, 0.7),
    (("eyeLookOutLeft", "eyeLookInRight"), 0.1, 0.7),
    (("noseSneerLeft", "noseSneerRight"), 0.1, 0.6),
    (("cheekPuff",), 0.1, 0.4),
)
MEAN_GESTURES = 2.5
SIDE_DIFFERENCE = 0.15  # how much the two sides of a gesture differ, as a share of its weight
GAUSSIAN_EXPRESSION = 0.7  # standard deviations, for models whose expressions are principal components


def sample_shape_coefficients(
    face_model: MorphableModel, count: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draws people with mild expressions.

    Identity and albedo are standard normal. An expression is a few gestures of ARKit units where the model names such
    units, and normal with a deviation of 0.7 where it does not (principal components, as of the Basel models).

    Args:
        face_model: any model.
        count: how many people.
        generator: the draw depends on its state alone.

    Returns:
        float32 arrays by name: identity (count, I), expression (count, E), albedo (count, A).
    """
    identity = generator.standard_normal((count, face_model.identity_size))
    albedo = generator.standard_normal((count, face_model.albedo_size))
    names = {name: column for column, name in enumerate(face_model.expression_names)}
    gestures = [gesture for gesture in GESTURES if all(unit in names for unit in gesture[0])]
    if gestures:
        expression = np.zeros((count, face_model.expression_size))
        for row in expression:
            _draw_gestures(row, gestures, names, generator)
    else:
        expression = GAUSSIAN_EXPRESSION * generator.standard_normal((count, face_model.expression_size))
    drawn = {"identity": identity, "expression": expression, "albedo": albedo}
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def _draw_gestures(
    row: np.ndarray,
    gestures: list[tuple[tuple[str, ...], float, float]],
    names: dict[str, int],
    generator: np.random.Generator,
) -> None:
    """Adds a few gestures to one person's weights (E,), each within [0, 1]."""
    count = min(int(generator.poisson(MEAN_GESTURES)), len(gestures))
    for index in generator.choice(len(gestures), size=count, replace=False):
        units, low, high = gestures[index]
        weight = generator.uniform(low, high)
        for unit in units:
            side = 1 + SIDE_DIFFERENCE * generator.standard_normal() if len(units) > 1 else 1.0
            row[names[unit]] = np.clip(max(row[names[unit]], weight * side), 0, 1)
