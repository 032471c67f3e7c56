"""Face-like meshes and models of any size, made of smooth waves: the same on every machine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from renderers.face_models.linear import LinearModel

HALF_AXES = (0.75, 1.0, 0.7)  # decimetres; about a head's
AZIMUTH = math.radians(110)  # of the patch's sides, so that some of it hides behind the rest
ELEVATION = math.radians(75)


def face_like_mesh(faces: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bumpy patch of an ellipsoid, in the pose and size of the mean face.

    Args:
        faces: about how many triangles; the patch is a square grid, so the nearest number of the form 2 n^2 is made.

    Returns:
        Vertices (V, 3) float64 in decimetres, triangles (F, 3) int64 counter-clockwise seen from outside, and UVs
        (V, 2) in [0, 1].
    """
    cells = max(1, round(math.sqrt(faces / 2)))
    u, v = np.meshgrid(np.linspace(0, 1, cells + 1), np.linspace(0, 1, cells + 1))
    azimuth, elevation = (2 * u - 1) * AZIMUTH, (2 * v - 1) * ELEVATION
    radius = 1 + 0.06 * np.sin(5 * azimuth) * np.cos(7 * elevation) + 0.25 * np.exp(-12 * (azimuth**2 + elevation**2))
    direction = [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
    vertices = np.stack([axis * radius * d for axis, d in zip(HALF_AXES, direction, strict=True)], axis=-1)
    corner = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    here, right, above, across = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    lower, upper = np.stack([here, right, across], axis=-1), np.stack([here, across, above], axis=-1)
    triangles = np.stack([lower, upper], axis=2).reshape(-1, 3)
    return vertices.reshape(-1, 3), triangles, np.stack([u, v], axis=-1).reshape(-1, 2)


def _waves(points: np.ndarray, columns: int, seed: int) -> np.ndarray:
    """(V, 3, columns) smooth vector fields of unit amplitude over (V, 3) points."""
    random = np.random.default_rng(seed)
    phase = points @ random.normal(scale=3.0, size=(3, columns)) + random.uniform(0, 2 * math.pi, columns)
    return np.sin(phase)[:, None, :] * random.normal(size=(3, columns))


def _ellipse(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
    """(count, 2) points round an ellipse, from its left end over the top."""
    angle = math.pi - np.arange(count) * 2 * math.pi / count
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], axis=-1)


def landmark_places() -> np.ndarray:
    """(68, 2) where the iBUG points are about on such a face, seen from the front; decimetres, x right, y up."""
    along = np.linspace(0, math.pi, 17)
    jaw = np.stack([-0.6 * np.cos(along), 0.15 - 0.9 * np.sin(along)], axis=-1)
    arch = np.linspace(0, math.pi, 5)
    brow = np.stack([-0.31 - 0.19 * np.cos(arch), 0.4 + 0.06 * np.sin(arch)], axis=-1)
    bridge = np.stack([np.zeros(4), np.linspace(0.27, -0.05, 4)], axis=-1)
    nostrils = np.stack([np.linspace(-0.12, 0.12, 5), np.full(5, -0.14)], axis=-1)
    eyes = [_ellipse(side * 0.28, 0.25, 0.12, 0.05, 6) for side in (-1, 1)]
    mouth = [_ellipse(0.0, -0.42, 0.24, 0.1, 12), _ellipse(0.0, -0.42, 0.18, 0.04, 8)]
    return np.concatenate([jaw, brow, (brow * [-1, 1])[::-1], bridge, nostrils, *eyes, *mouth])


def _landmark_indices(vertices: np.ndarray) -> np.ndarray:
    """(68,) the vertices of the front that are nearest to `landmark_places`."""
    front = np.flatnonzero(vertices[:, 2] > 0)
    return front[cKDTree(vertices[front, :2]).query(landmark_places())[1]]


def face_like_model(
    faces: int = 70_789, identity: int = 80, expression: int = 64, albedo: int = 80, specular: bool = False
) -> LinearModel:
    """A morphable model over `face_like_mesh` with the sizes of BFM 2009 unless told otherwise (35,721 vertices).

    Args:
        faces: about how many.
        identity: columns of its basis.
        expression: likewise.
        albedo: likewise.
        specular: with a specular albedo too, of as many columns as the diffuse one.
    """
    vertices, triangles, uv = face_like_mesh(faces)
    shine: dict[str, Any] = {}
    if specular:
        shine["mean_specular"] = np.broadcast_to([0.2, 0.2, 0.2], vertices.shape)
        shine["specular_basis"] = 0.003 * _waves(vertices, albedo, seed=3)
    return LinearModel(
        name="face-like",
        mean_shape=vertices,
        identity_basis=0.005 * _waves(vertices, identity, seed=0),
        expression_basis=0.005 * _waves(vertices, expression, seed=1),
        mean_albedo=np.broadcast_to([0.7, 0.5, 0.4], vertices.shape),
        albedo_basis=0.01 * _waves(vertices, albedo, seed=2),
        faces=triangles,
        landmark_indices=_landmark_indices(vertices),
        uv=uv,
        regions={"skin": np.arange(len(vertices))},
        **shine,
    )
