"""The head on which rational occlusions are built, and the camera that lays it under 68 landmarks.

The head frame is that of the default face model: decimetres, x to the picture's right, y up, z towards the viewer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from renderers.landmarks68 import INNER_MOUTH, LANDMARKS, MIRROR

# Landmarks of the default face model's mean face, in the middle and on the picture's left; millimetres.
_LEFT_LANDMARKS = {
    0: (-70.2, 23.6, -50.3), 1: (-69.6, 5.1, -46.0), 2: (-67.2, -14.6, -40.2), 3: (-62.5, -32.5, -35.0),
    4: (-57.3, -50.5, -32.4), 5: (-46.6, -69.2, -21.8), 6: (-34.5, -80.3, -11.2), 7: (-14.1, -91.7, -2.4),
    8: (0.0, -92.5, 4.3),
    17: (-55.4, 33.9, -4.0), 18: (-46.3, 40.8, 6.9), 19: (-36.2, 44.3, 12.6), 20: (-23.0, 42.4, 17.2),
    21: (-9.2, 38.5, 18.8),
    27: (0.0, 25.0, 19.3), 28: (0.0, 11.8, 26.1), 29: (0.0, 2.2, 32.5), 30: (0.0, -11.9, 43.0),
    31: (-14.0, -19.2, 20.2), 32: (-7.0, -22.0, 23.7), 33: (0.0, -24.2, 26.3),
    36: (-45.3, 22.7, 2.2), 37: (-36.4, 26.9, 9.3), 38: (-28.6, 26.8, 9.4), 39: (-21.5, 21.2, 5.1),
    40: (-29.1, 18.7, 7.7), 41: (-36.9, 18.5, 7.8),
    48: (-25.2, -46.7, 10.5), 49: (-15.0, -41.3, 20.5), 50: (-5.6, -39.4, 24.4), 51: (0.0, -40.0, 25.3),
    57: (0.0, -58.3, 19.9), 58: (-6.6, -57.8, 18.8), 59: (-16.4, -55.5, 15.5),
    60: (-23.0, -47.6, 9.4), 61: (-8.8, -45.8, 18.7), 62: (0.0, -46.4, 19.9), 66: (0.0, -47.1, 18.8),
    67: (-5.7, -46.9, 18.2),
}  # fmt: skip
# More points of that face's skin (cheeks, forehead, chin), then guessed points of the crown and under the chin.
_LEFT_SKIN = (
    (-20, 8, 9), (-35, 8, 6), (-50, 8, -1), (-62, 12, -15), (-20, -10, 14), (-35, -10, 9), (-50, -10, 1),
    (-62, -10, -13), (-25, -27, 12), (-40, -30, 6), (-55, -30, -10), (-38, -45, 5), (-48, -50, -9), (-20, -70, 10),
    (-35, -62, 1), (0, -72, 16), (0, -84, 13), (-18, -83, 7), (0, 55, 20), (0, 75, 14), (0, 93, 6), (-30, 60, 14),
    (-30, 85, 5), (-52, 55, -2), (-50, 75, -6), (-66, 45, -35), (-62, 60, -21),
    (0, 112, -8), (-35, 106, -14), (-60, 90, -36), (-70, 65, -50), (0, -100, -8), (-20, -98, -12),
)  # fmt: skip
_CHEEK_TO_CROWN = (  # (y, half the head's width there)
    (-0.97, 0.12), (-0.91, 0.2), (-0.8, 0.35), (-0.69, 0.47), (-0.52, 0.58), (-0.34, 0.63), (-0.14, 0.68),
    (0.05, 0.705), (0.24, 0.71), (0.45, 0.71), (0.65, 0.7), (0.9, 0.6), (1.1, 0.38),
)  # fmt: skip
DISTANCE = 10.0  # decimetres from the camera to the frame's origin
NEARNESS = 0.12  # decimetres; a landmark's deviation moves the points within about this distance
HEAD_ROWS, HEAD_COLUMNS = 24, 21


@cache
def template() -> np.ndarray:
    """(68, 3) the landmarks of the mean face in the head frame, decimetres."""
    points = np.zeros((LANDMARKS, 3))
    for index, point in _LEFT_LANDMARKS.items():
        points[MIRROR[index]] = np.array(point) * [-0.01, 0.01, 0.01]
        points[index] = np.array(point) * 0.01
    return points


@cache
def _surface() -> Any:
    from scipy.interpolate import RBFInterpolator

    skin = np.array(_LEFT_SKIN) * 0.01
    mirrored = skin[skin[:, 0] < 0] * [-1.0, 1.0, 1.0]
    points = np.concatenate([template()[: INNER_MOUTH.start], skin, mirrored])
    return RBFInterpolator(points[:, :2], points[:, 2], kernel="thin_plate_spline", smoothing=1e-4)


def surface_depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of the head's front at x, y (any shape, decimetres): a thin-plate spline through landmarks and skin."""
    x, y = np.broadcast_arrays(x, y)
    return np.asarray(_surface()(np.stack([x.ravel(), y.ravel()], axis=-1))).reshape(x.shape)


@cache
def head_grid() -> np.ndarray:
    """(rows, columns, 3) points of the head's front, from ear to ear and from the crown to the chin."""
    height, half_width = np.array(_CHEEK_TO_CROWN).T
    y = np.linspace(height[-1], height[0], HEAD_ROWS)[:, None]
    x = np.sin(np.linspace(-1, 1, HEAD_COLUMNS) * np.pi / 2)[None] * np.interp(y, height, half_width)
    y = np.broadcast_to(y, x.shape)
    return np.stack([x, y, surface_depth(x, y)], axis=-1)


def landmark_weights(points: np.ndarray) -> np.ndarray:
    """(V, 68) weights of the landmarks around (V, 3) points of the head frame; each row sums to 1."""
    squared = ((points[:, None] - template()[None]) ** 2).sum(axis=-1)
    weights = 1 / (squared + NEARNESS**2) ** 2
    return weights / weights.sum(axis=1, keepdims=True)


class Pose(NamedTuple):
    """The poses of B heads: affine cameras, and the deviations of the landmarks from them.

    Attributes:
        linear: (B, 3, 2) head frame -> pixels.
        offset: (B, 1, 2) pixels.
        residual: (B, 68, 2) pixels, landmarks minus the template's images.
        to_viewer: (B, 3) unit vector towards the camera, in the head frame.
        up: (B, 3) unit vector up the picture, in the head frame.
    """

    linear: Tensor
    offset: Tensor
    residual: Tensor
    to_viewer: Tensor
    up: Tensor

    def project(self, points: Tensor, weights: Tensor | None) -> Tensor:
        """Points of the head frame in the pictures.

        Args:
            points: (B, V, 3) decimetres.
            weights: (V, 68) of `landmark_weights`. Without them the points do not follow the landmarks' deviations.

        Returns:
            (B, V, 3) x, y in pixels, z the depth in decimetres.
        """
        flat = points @ self.linear + self.offset
        if weights is not None:
            flat = flat + weights @ self.residual
        depth = DISTANCE - points @ self.to_viewer[..., None]
        return torch.cat([flat, depth], dim=-1)


def fit_pose(landmarks: Tensor) -> Pose:
    """The least-squares affine camera from the template to (B, 68, 2) landmarks.

    The template is not flat, so its landmarks determine the camera at any yaw. The camera is linear in the landmarks.
    """
    solid = np.concatenate([template(), np.ones((68, 1))], axis=1)
    inverse = torch.as_tensor(np.linalg.pinv(solid), dtype=landmarks.dtype, device=landmarks.device)
    affine = inverse @ landmarks
    linear, offset = affine[:, :3], affine[:, 3:]
    points = torch.as_tensor(template(), dtype=landmarks.dtype, device=landmarks.device)
    across, down = torch.nn.functional.normalize(linear, dim=1).unbind(dim=2)
    to_viewer = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=1)
    return Pose(linear, offset, landmarks - (points @ linear + offset), to_viewer, -down)
