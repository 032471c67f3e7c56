"""Files of random numbers in the layout of `BFM_model_front.mat`; no licensed data is in or behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io
from scipy.spatial import Delaunay, cKDTree

# Vertices, vertices on the outline, vertices of the front subset, triangles of the front subset kept in tri_mask2.
# A triangulated disc has 2V - 2 - outline faces: 70,789 for the full size, as in the licensed file.
FULL = (35_709, 627, 27_660, 54_681)
TINY = (800, 80, 600, 1_000)
IDENTITY, EXPRESSION, TEXTURE = 80, 64, 80
Pair = tuple[float, float]


def write_fake_bfm(path: Path, full_size: bool = False, seed: int = 0) -> Path:
    """Write a file with every key, type and, when `full_size`, every count of the licensed one; returns `path`."""
    scipy.io.savemat(path, fake_bfm(full_size, seed))
    return path


def fake_bfm(full_size: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """What the file holds: an egg-shaped face about 2 dm high, smooth random modes, 68 landmarks in their places."""
    rng = np.random.default_rng(seed)
    vertices, outline, front_count, front_faces = FULL if full_size else TINY
    flat = _disc(vertices, outline)
    faces = Delaunay(flat).simplices
    (ax, ay), (bx, by) = (flat[faces[:, 1]] - flat[faces[:, 0]]).T, (flat[faces[:, 2]] - flat[faces[:, 0]]).T
    clockwise = ax * by < ay * bx
    faces[clockwise] = faces[clockwise, ::-1]
    front = np.sort(np.argsort(np.linalg.norm(flat, axis=1), kind="stable")[:front_count])
    rank = np.full(vertices, -1)
    rank[front] = np.arange(front_count)
    inside = rank[faces]
    inside = inside[(inside >= 0).all(axis=1)][:front_faces]
    return {
        "meanshape": _surface(flat).reshape(1, -1).astype(np.float32),
        "idBase": _modes(rng, flat, IDENTITY, 0.02),
        "exBase": _modes(rng, flat, EXPRESSION, 0.02),
        "meantex": (np.array([200.0, 150.0, 125.0]) + 20 * np.cos(4 * flat[:, :1])).reshape(1, -1).astype(np.float32),
        "texBase": _modes(rng, flat, TEXTURE, 4.0),
        "tri": (faces + 1).astype(np.int32),
        "point_buf": _point_buffer(faces, vertices) + 1,
        "tri_mask2": (inside + 1).astype(np.int32),
        "keypoints": (cKDTree(flat).query(_landmarks())[1][None] + 1).astype(np.int32),
        "frontmask2_idx": (front[:, None] + 1).astype(np.int32),
        "skinmask": (np.linalg.norm(flat, axis=1) < 0.9)[None].astype(np.uint8),
    }


def _disc(vertices: int, outline: int) -> np.ndarray:
    """(V, 2) points of the unit disc: `outline` on its edge, the others on a sunflower's spiral inside."""
    count = vertices - outline
    steps = np.arange(count)
    radius, angle = 0.99 * np.sqrt((steps + 0.5) / count), steps * np.pi * (3 - np.sqrt(5))
    angle = np.concatenate([angle, np.arange(outline) * 2 * np.pi / outline])
    radius = np.concatenate([radius, np.ones(outline)])
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _surface(flat: np.ndarray) -> np.ndarray:
    """(V, 3) decimetres: an ellipsoid's front with a nose, off the origin as the licensed mean shape is."""
    x, y = flat.T
    depth = 0.9 * np.sqrt(1.05 - x**2 - y**2) + 0.25 * np.exp(-((x / 0.15) ** 2) - ((y + 0.05) / 0.2) ** 2)
    return np.stack([0.8 * x, 1.1 * y, depth], axis=1) + np.array([0.0, 0.05, 0.3])


def _modes(rng: np.random.Generator, flat: np.ndarray, count: int, scale: float) -> np.ndarray:
    """(3V, K) plane waves of random direction, each weaker than the one before."""
    phase = flat @ rng.normal(0, 3, (2, count)) + rng.uniform(0, 2 * np.pi, count)
    strength = scale * rng.normal(size=(3, count)) / np.sqrt(1 + np.arange(count))
    return (np.cos(phase)[:, None] * strength).reshape(-1, count).astype(np.float32)


def _point_buffer(faces: np.ndarray, vertices: int) -> np.ndarray:
    """(V, 8) up to eight faces around each vertex, padded with the null face F."""
    order = np.argsort(faces.ravel(), kind="stable")
    around = faces.ravel()[order]
    slot = np.arange(len(around)) - np.searchsorted(around, around)
    table = np.full((vertices, 8), len(faces), dtype=np.int32)
    table[around[slot < 8], slot[slot < 8]] = order[slot < 8] // 3
    return table


def _landmarks() -> np.ndarray:
    """(68, 2) the iBUG points in the unit disc, the subject's right on the left: x right, y up."""

    def arc(count: int, center: Pair, radii: Pair, start: float, end: float) -> np.ndarray:
        angle = np.radians(np.linspace(start, end, count))[:, None]
        return np.array(center) + np.array(radii) * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)

    def eye(side: int) -> np.ndarray:
        return arc(7, (side * 0.38, 0.22), (0.14, 0.06), 180, -180)[:6]

    parts = [
        arc(17, (0, 0.1), (0.85, 0.95), 180, 360),
        arc(5, (-0.4, 0.35), (0.25, 0.12), 170, 20),
        arc(5, (0.4, 0.35), (0.25, 0.12), 160, 10),
        np.stack([np.zeros(4), np.linspace(0.25, -0.05, 4)], axis=1),
        arc(5, (0, -0.12), (0.15, 0.06), 180, 360),
        eye(-1),
        eye(1),
        arc(13, (0, -0.45), (0.3, 0.14), 180, -180)[:12],
        arc(9, (0, -0.45), (0.2, 0.06), 180, -180)[:8],
    ]
    return np.concatenate(parts)
