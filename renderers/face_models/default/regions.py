"""Landmarks and named regions of the embedded default."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.sparse as sparse

LANDMARK_FILE = Path(__file__).with_name("landmarks.json")
DENSE_FILE = Path(__file__).with_name("dense_landmarks.json")


def load_landmarks() -> np.ndarray:
    """(68,) vertex indices of the iBUG points, chosen once on the mean face; valid at every subdivision."""
    return _indices(LANDMARK_FILE)


def load_dense_landmarks() -> np.ndarray:
    """(501,) vertex indices. The iBUG 68 come first. The others cover the face, densest at eyes, lips and nose."""
    return _indices(DENSE_FILE)


def _indices(path: Path) -> np.ndarray:
    return np.array(json.loads(path.read_text(encoding="utf-8"))["indices"], dtype=np.int64)


def polygon_distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance in the plane, positive inside.

    Args:
        points: (N, 2).
        corners: (C, 2) of a closed polygon, in order.
    """
    closed = np.concatenate([corners, corners[:1]])
    distance, _ = polyline_distance(points, closed)
    near = np.flatnonzero(((points >= corners.min(axis=0)) & (points <= corners.max(axis=0))).all(axis=1))
    inside = np.zeros(len(near), dtype=bool)
    x, y = points[near].T
    for (x0, y0), (x1, y1) in pairwise(closed):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    distance[near[inside]] *= -1
    return -distance


def polyline_distance(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to an open polyline and where along it the nearest point lies, to a thousandth of its length.

    Args:
        points: (N, D).
        corners: (C, D).

    Returns:
        (N,) distance, and (N,) share of the polyline's length, 0 to 1.
    """
    from scipy.spatial import cKDTree

    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(lengths)]) / lengths.sum()
    along = np.linspace(0, 1, 1001)
    samples = np.stack([np.interp(along, knots, column) for column in corners.T], axis=1)
    distance, nearest = cKDTree(samples).query(points)
    return np.asarray(distance), along[np.asarray(nearest)]


def smooth_curve(corners: np.ndarray, samples: int = 64, closed: bool = False) -> np.ndarray:
    """(samples, D) points of the cubic spline through (C, D) corners."""
    from scipy.interpolate import CubicSpline

    through = np.concatenate([corners, corners[:1]]) if closed else corners
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(through, axis=0), axis=1))])
    spline = CubicSpline(knots, through, bc_type="periodic" if closed else "natural")
    return np.asarray(spline(np.linspace(0, knots[-1], samples, endpoint=not closed)))


def brow_curve(mark: np.ndarray) -> np.ndarray:
    """(64, 2) the middle of the brow at x > 0; its landmarks lie along its upper edge.

    Args:
        mark: (68, 3) the landmarks of the mean face.
    """
    return smooth_curve(np.column_stack([np.abs(mark[22:27, 0]), mark[22:27, 1]])) - [0.0, 0.030]


def part_weight(base: dict[str, np.ndarray], flat: sparse.csr_matrix, part: str) -> np.ndarray:
    """(V,) share of a base part at each vertex of a finer level."""
    return np.asarray(flat @ (base["parts"] == part).astype(float))


def build_regions(
    base: dict[str, np.ndarray], landmarks: np.ndarray, flat: sparse.csr_matrix, faces: np.ndarray
) -> dict[str, np.ndarray]:
    """Named vertex index arrays; "left" and "right" are the subject's (left is x > 0).

    Args:
        base: arrays of `default.derive_base`.
        landmarks: (68,).
        flat: (V, V0) midpoint subdivision of the base.
        faces: (F, 3) of the finer level.

    Returns:
        skin (all but eyeballs and inner mouth), eyes, inner_mouth, and within the skin: lips, brows, nose, cheeks,
        forehead, chin, eyelids; eye_left, eye_right, brow_left, brow_right, cheek_left, cheek_right; boundary (the
        crop's rim).
    """
    points = np.asarray(flat @ base["mean_shape"])
    mark = base["mean_shape"][landmarks]
    folded = np.column_stack([np.abs(points[:, 0]), points[:, 1]])
    right_half = np.abs(mark[:, :2]) * [1, 0] + mark[:, :2] * [0, 1]
    eye_left, eye_right = part_weight(base, flat, "eye_left") > 0.5, part_weight(base, flat, "eye_right") > 0.5
    mouth = part_weight(base, flat, "mouth") > 0.5
    skin = ~(eye_left | eye_right | mouth)
    x, y, z = points.T
    lips = (
        skin
        & (polygon_distance(points[:, :2], smooth_curve(mark[48:60, :2], closed=True)) > 0)
        & (z > mark[48, 2] - 0.08)
    )
    brow_distance, _ = polyline_distance(folded, brow_curve(mark))
    brows = skin & (brow_distance < 0.04) & (z > -0.3)
    lid = polygon_distance(folded, smooth_curve(right_half[42:48], closed=True))
    eyelids = skin & (lid > -0.07) & (z > -0.3)
    nose_outline = np.array([[0.0, mark[27, 1]], [0.09, mark[28, 1]], [0.24, mark[30, 1]], [0.22, mark[33, 1] - 0.02]])
    nose_outline = np.concatenate([nose_outline, nose_outline[::-1] * [-1, 1]])
    nose = skin & (polygon_distance(points[:, :2], nose_outline) > 0) & (z > mark[48, 2] - 0.1)
    forehead = skin & (y > mark[19, 1] + 0.06)
    chin = skin & (y < mark[57, 1] - 0.06) & (np.abs(x) < 0.30) & (z > mark[8, 2] - 0.15)
    cheeks = skin & (y < mark[41, 1] - 0.12) & (y > mark[57, 1]) & (np.abs(x) > 0.26) & ~lips & ~nose
    masks = {
        "skin": skin,
        "eyes": eye_left | eye_right,
        "eye_left": eye_left,
        "eye_right": eye_right,
        "inner_mouth": mouth,
        "lips": lips,
        "brows": brows,
        "brow_left": brows & (x > 0),
        "brow_right": brows & (x < 0),
        "eyelids": eyelids,
        "nose": nose,
        "cheeks": cheeks,
        "cheek_left": cheeks & (x > 0),
        "cheek_right": cheeks & (x < 0),
        "forehead": forehead,
        "chin": chin,
    }
    from renderers.face_models.mesh_edit import boundary_loops

    return {
        **{name: np.flatnonzero(mask) for name, mask in masks.items()},
        "boundary": np.sort(boundary_loops(faces)[0]),
    }
