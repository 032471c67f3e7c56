"""Gaze: eyeballs that turn about their centres, and the weights with which both eyes look at one point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

FULL_GAZE = 28.0  # degrees that an eyeLook unit of weight 1 turns an eyeball
# By unit: which way the axis goes, as the turn about x (down) and about y (to x > 0), of the left and the right eye.
UNITS = {"Up": ((-1, 0), (-1, 0)), "Down": ((1, 0), (1, 0)), "In": ((0, -1), (0, 1)), "Out": ((0, 1), (0, -1))}
SIDES = ("Left", "Right")


def turn_eyes(
    expressions: np.ndarray, names: Sequence[str], points: np.ndarray, balls: Sequence[np.ndarray], poles: np.ndarray
) -> np.ndarray:
    """Gives the eyeballs rigid turns in place of what anny's units make of them, which halves and shifts them.

    A unit is the way from the start to the end of its turn: at half its weight the axis has turned by half the angle,
    and the ball is 3 % smaller.

    Args:
        expressions: (W, 3, 52) displacements; not changed.
        names: the 52 units'.
        points: (W, 3) the mean head.
        balls: the vertices of the left and of the right eyeball.
        poles: (2, 2) each ball's foremost and hindmost vertex.

    Returns:
        (W, 3, 52)
    """
    turned = expressions.copy()
    for eye, ball in enumerate(balls):
        arms = points[ball] - points[poles[eye]].mean(axis=0)
        for unit, axes in UNITS.items():
            turn = Rotation.from_rotvec([*np.radians(FULL_GAZE) * np.array(axes[eye]), 0.0])
            turned[ball, :, names.index(f"eyeLook{unit}{SIDES[eye]}")] = turn.apply(arms) - arms
    return turned


def fixation(
    centers: np.ndarray, axes: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The eyeLook weights with which both eyes look at one point.

    Args:
        centers: (B, 2, 3) of the left and the right eyeball, in the face model's frame.
        axes: (B, 2, 3) unit, where they look at rest.
        targets: (B, 3) in the same frame and unit.
        names: the 52 units'.

    Returns:
        (B, 52) weights in [0, 1], 0 but for the eight units; and (B, 2) degrees by which each eye misses the point, 0
        but for points too far aside.
    """
    way = targets[:, None] - centers
    way = way / np.linalg.norm(way, axis=-1, keepdims=True)
    # A unit of weight w takes an axis e to (1 - w) e + w R e; two units add what they change.
    weights, found = np.zeros((len(targets), len(names))), np.zeros((len(targets), 2, 3))
    for eye, side in enumerate(SIDES):
        changes = {
            unit: Rotation.from_rotvec([*np.radians(FULL_GAZE) * np.array(turns[eye]), 0.0]).as_matrix() - np.eye(3)
            for unit, turns in UNITS.items()
        }
        for row, (axis, goal) in enumerate(zip(axes[:, eye], way[:, eye], strict=True)):
            across = goal[0] * axis[2] > axis[0] * goal[2]
            aside = ("Out" if across else "In") if eye == 0 else ("In" if across else "Out")
            level = "Up" if goal[1] * axis[2] > axis[1] * goal[2] else "Down"
            steps = np.stack([changes[aside] @ axis, changes[level] @ axis], axis=1)
            # axis + steps w is parallel to goal: two of three equations are independent.
            system = np.cross(goal, steps.T).T
            solved = np.clip(np.linalg.lstsq(system, -np.cross(goal, axis), rcond=None)[0], 0.0, 1.0)
            for unit, weight in zip((aside, level), solved, strict=True):
                weights[row, names.index(f"eyeLook{unit}{side}")] = weight
            found[row, eye] = axis + steps @ solved
    cosine = (found * way).sum(axis=-1) / np.linalg.norm(found, axis=-1)
    return weights, np.degrees(np.arccos(np.clip(cosine, -1, 1)))
