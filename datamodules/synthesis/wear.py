"""Clothes and hats: shells that are cut from the mean head's skin and lie a little above any person's skin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from renderers.face_models.default.whole_head import WholeHead
from renderers.face_models.mesh_edit import cut, vertex_normals
from renderers.fixed_sum import FixedSum

Array = NDArray[np.float64]
Level = Callable[[Array], Array]

COLLAR_FRONT, COLLAR_BACK = (-0.55, -1.42), (-1.25, -1.09)  # z and y of the neck's lower end
HAIR_UNDER = 0.02  # decimetres above a hat's rim, from which on hair is under the hat
BRIM_STEPS, BRIM_TURN = 5, 1.15  # rows of a brim, and radians that a cap's brim reaches to either side


@dataclass(frozen=True)
class Shell:
    """A shell with G vertices and F faces.

    Attributes:
        operator: from the head's W vertices to the shell's.
        lift: (G,) decimetres along the normals.
        faces: (F, 3).
        uv: (G, 2) decimetres, for patterns.
        level: points of the mean head (P, 3) -> (P,), positive under the shell, where it hides hair.
        extra: (E, 3) further vertices, a brim on the mean head; they come after those of the operator.
    """

    operator: FixedSum
    lift: Tensor
    faces: Tensor
    uv: Tensor
    level: Level
    extra: Tensor


def _collar(points: Array) -> Array:
    """(P,) distance of points (P, 3) below a plain collar."""
    slope = (COLLAR_BACK[1] - COLLAR_FRONT[1]) / (COLLAR_BACK[0] - COLLAR_FRONT[0])
    return np.asarray(COLLAR_FRONT[1] + slope * (points[:, 2] - COLLAR_FRONT[0]) - points[:, 1])


def _front(points: Array, half_width: float, slope: float) -> Array:
    """(P,) subtracted from the level for a pointed opening at the throat."""
    return np.asarray(np.where(points[:, 2] > -0.9, slope * np.clip(half_width - np.abs(points[:, 0]), 0, None), 0))


def _opening(points: Array, width: float, height: float, middle: float) -> Array:
    """(P,) positive outside an oval round the face; all behind the ears is outside."""
    x, y, z = points.T
    oval = np.hypot(x / width, (y - middle) / height) - 1
    return np.asarray(np.maximum(oval * 0.6, -0.45 - z))


GARMENTS: dict[str, tuple[Level, float]] = {
    "crew": (lambda p: _collar(p) - 0.10, 0.05),
    "wide": (lambda p: _collar(p) - 0.42, 0.04),
    "vee": (lambda p: _collar(p) - 0.05 - _front(p, 0.55, 0.9), 0.05),
    "high": (lambda p: _collar(p) + 0.32, 0.07),
    "shirt": (lambda p: _collar(p) + 0.14 - _front(p, 0.28, 1.6), 0.07),
    "thick": (lambda p: _collar(p) + 0.05, 0.16),
}  # fmt: skip
"""Name -> level, see `Shell`, and decimetres that the garment stands off."""

HATS: dict[str, tuple[Level, float, tuple[str, ...]]] = {
    "beanie": (lambda p: p[:, 1] - 0.72 + 0.30 * (0.2 - p[:, 2]), 0.17, ("scalp", "face", "ear")),
    "cap": (lambda p: p[:, 1] - 0.84 + 0.16 * (0.2 - p[:, 2]), 0.17, ("scalp", "face")),
    "brimmed": (lambda p: p[:, 1] - 0.84 + 0.16 * (0.2 - p[:, 2]), 0.20, ("scalp", "face")),
    "scarf": (lambda p: _opening(p, 0.66, 0.98, -0.06), 0.10, ("scalp", "face", "ear", "neck", "shoulders")),
    "hood": (lambda p: _opening(p, 0.74, 1.12, 0.02), 0.24, ("scalp", "face", "ear", "neck", "shoulders")),
}
"""The same for hats, scarves and hoods, and the parts of the head that each covers."""


def garment(whole: WholeHead, name: str) -> Shell:
    """Clothes on neck and shoulders, of `GARMENTS`."""
    level, lift = GARMENTS[name]
    return _shell(whole, level, lift, ("neck", "shoulders"), None)


def hat(whole: WholeHead, name: str) -> Shell:
    """A hat of `HATS`."""
    level, lift, parts = HATS[name]
    return _shell(whole, level, lift, parts, {"cap": BRIM_TURN, "brimmed": np.pi}.get(name))


def _shell(whole: WholeHead, level: Level, lift: float, parts: tuple[str, ...], brim: float | None) -> Shell:
    points = whole.mean_shape.astype(np.float64)
    faces = whole.faces[np.isin(whole.parts, parts)]
    operator, faces, _ = cut(points, faces, level(points))
    used = np.unique(faces)
    place = np.zeros(operator.shape[0], dtype=np.int64)
    place[used] = np.arange(len(used))
    operator, faces = operator[used], place[faces]
    mean = np.asarray(operator @ points)
    # It rises away from its rim, so that it seems to have a body.
    raised = lift * (0.45 + 0.55 * np.clip(level(mean) / 0.25, 0, 1))
    uv, extra = mean[:, [0, 1]] + 0.5 * mean[:, [2, 2]] * [0.4, 1.0], np.zeros((0, 3))
    if brim is not None:
        normals = vertex_normals(mean, faces)
        extra, brim_faces = _brim(mean + raised[:, None] * normals, level, brim, len(mean))
        faces, uv = np.concatenate([faces, brim_faces]), np.concatenate([uv, extra[:, [0, 2]]])
    return Shell(
        FixedSum(operator.tocsr()),
        torch.from_numpy(raised).float(),
        torch.from_numpy(faces),
        torch.from_numpy(uv).float(),
        level,
        torch.from_numpy(extra).float(),
    )


def _brim(points: Array, level: Level, turn: float, offset: int) -> tuple[Array, NDArray[np.int64]]:
    """Rows of points outwards from a hat's rim, and their triangles."""
    rim = points[level(points) < 0.04]
    middle = (rim.max(axis=0) + rim.min(axis=0)) / 2
    angle = np.linspace(-turn, turn, 41)
    around = np.arctan2(rim[:, 0] - middle[0], rim[:, 2] - middle[2])
    order = np.argsort(around)
    radius = np.hypot(rim[:, 0] - middle[0], rim[:, 2] - middle[2])[order]
    around, height = around[order], rim[order, 1]
    r, y = (gaussian_filter1d(np.interp(angle, around, part, period=2 * np.pi), 2.0) for part in (radius, height))
    reach = (0.75 * np.cos(angle / turn * np.pi / 2) ** 0.5) if turn < 3 else np.full_like(angle, 0.62)
    rows = []
    for share in np.linspace(0, 1, BRIM_STEPS):
        out = r - 0.03 + share * np.nan_to_num(reach)
        fall = y - 0.05 - 0.16 * share - 0.10 * np.square(np.sin(angle)) * share
        rows.append(np.stack([middle[0] + out * np.sin(angle), fall, middle[2] + out * np.cos(angle)], axis=-1))
    index = offset + np.arange(BRIM_STEPS * len(angle)).reshape(BRIM_STEPS, -1)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], axis=-1), np.stack([b, c, d], axis=-1)])
    return np.concatenate(rows), faces
