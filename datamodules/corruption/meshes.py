"""Surfaces of the rational occlusions in the head frame (see head.py), nearly linear in a few numbers of style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from datamodules.corruption.head import head_grid, surface_depth, template

# Parts, of which each triangle has one. The head is not drawn, but hides all that is behind it.
HEAD, CLOTH, RIM, LENS, CORD, HAIR, FINGER, BACK = range(8)
MORPHS = 3  # numbers of style that move vertices


@dataclass(frozen=True)
class Mesh:
    """V vertices and F triangles.

    Attributes:
        vertices: (V, 3) decimetres, head frame.
        uv: (V, 2) in [0, 1], across and along each surface.
        faces: (F, 3).
        parts: (F,) of the parts above.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    parts: np.ndarray


class _Builder:
    """Collects grids of points; the head comes first."""

    def __init__(self) -> None:
        self.vertices: list[np.ndarray] = []
        self.uv: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.parts: list[np.ndarray] = []
        self.count = 0
        self.grid(head_grid(), HEAD)

    def grid(self, points: np.ndarray, part: int) -> None:
        """Add (R, C, 3) points, joined with their neighbours. v grows from row to row, u from column to column."""
        rows, columns = points.shape[:2]
        index = np.arange(rows * columns).reshape(rows, columns) + self.count
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
        faces = np.stack([np.stack([a, c, b], axis=-1), np.stack([b, c, d], axis=-1)]).reshape(-1, 3)
        u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
        self.vertices.append(points.reshape(-1, 3))
        self.uv.append(np.stack([u, v], axis=-1).reshape(-1, 2))
        self.faces.append(faces)
        self.parts.append(np.full(len(faces), part))
        self.count += rows * columns

    def both_sides(self, points: np.ndarray, part: int) -> None:
        """Add a grid and its mirror image."""
        self.grid(points, part)
        self.grid(points[:, ::-1] * [-1.0, 1.0, 1.0], part)

    def band(self, path: np.ndarray, height: float, part: int) -> None:
        """Add an upright band along (N, 3) points, on both sides of the head."""
        half = np.array([0.0, height / 2, 0.0])
        self.both_sides(np.stack([path + half, path - half]), part)

    def mesh(self) -> Mesh:
        return Mesh(*(np.concatenate(x) for x in (self.vertices, self.uv, self.faces, self.parts)))


def _on_head(x: np.ndarray, y: np.ndarray, gap: np.ndarray | float, stiffness: float = 0.0) -> np.ndarray:
    """(R, C, 3) points over the head. Stiff cloth spans hollows of about `stiffness` grid steps."""
    depth = surface_depth(x, y)
    if stiffness > 0:
        depth = np.maximum(depth, gaussian_filter(depth, stiffness, mode="nearest"))
    return np.stack([x, y, depth + gap], axis=-1)


def _curve(u: np.ndarray, knots: list[float], values: list[float]) -> np.ndarray:
    """A smooth monotone curve through values at |u|."""
    return np.asarray(PchipInterpolator(knots, values)(np.abs(u)))


def _spectacles(half_width: float, half_height: float, rim: float, droop: float) -> Mesh:
    builder = _Builder()
    turn = np.linspace(0, 2 * np.pi, 33)
    # A superellipse: between an ellipse and a rectangle.
    across = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.75
    down = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.75
    center_x, center_y = 0.335, 0.195

    def outline(grow: float, recede: float) -> np.ndarray:
        x = center_x + (half_width + grow) * across
        y = center_y + (half_height + grow) * down + droop * across * (down < 0) * 0.1
        return np.stack([x, y, 0.29 - 0.2 * x**2 - recede], axis=-1)

    middle = np.tile([center_x, center_y, 0.29 - 0.2 * center_x**2], (33, 1))
    builder.both_sides(np.stack([outline(0, 0), outline(rim, 0), outline(rim, 0.04)])[:, ::-1], RIM)
    builder.both_sides(np.stack([middle, outline(0, 0)])[:, ::-1], LENS)
    inner = center_x - half_width - rim / 2
    x = np.linspace(-inner, inner, 7)
    arch = center_y + 0.05 + 0.04 * (1 - (x / inner) ** 2)
    builder.grid(np.stack([np.stack([x, arch + s, np.full(7, 0.29)], axis=-1) for s in (rim / 2, -rim / 2)]), RIM)
    hinge = center_x + half_width + rim
    path = np.array([[hinge, 0.27, 0.29 - 0.2 * hinge**2], [0.73, 0.28, 0.05], [0.78, 0.27, -0.3], [0.78, 0.22, -0.62]])
    builder.band(path, rim * 1.2, RIM)
    return builder.mesh()


def glasses(style: np.ndarray) -> Mesh:
    """Rims, bridge, temple arms; style: width, height, thickness of the rims."""
    return _spectacles(0.23 + 0.05 * style[0], 0.15 + 0.06 * style[1], 0.025 + 0.04 * style[2], 0.0)


def sunglasses(style: np.ndarray) -> Mesh:
    """Like glasses, but larger."""
    return _spectacles(0.26 + 0.03 * style[0], 0.18 + 0.07 * style[1], 0.03 + 0.03 * style[2], 0.5)


def surgical_mask(style: np.ndarray) -> Mesh:
    """From the bridge of the nose to under the chin, with ear loops; style: height of the upper edge, width."""
    builder = _Builder()
    u, v = np.linspace(-1, 1, 25)[None], np.linspace(0, 1, 21)[:, None]
    top = 0.02 + 0.12 * style[0] - 0.14 * np.abs(u) ** 1.5
    bottom = -0.97 + 0.31 * u**2
    y = top + (bottom - top) * v
    x = u * (0.58 + 0.07 * style[1] - 0.16 * v**2)
    cloth = _on_head(x, y, 0.05 + 0.06 * np.exp(-((x**2 + (y + 0.15) ** 2) / 0.06)), 2.0)
    builder.grid(cloth, CLOTH)
    for corner, end in ((cloth[1, -1], [0.77, 0.2, -0.56]), (cloth[-4, -1], [0.77, 0.02, -0.56])):
        out = np.array([max(corner[0], 0.66) + 0.06, (corner[1] + end[1]) / 2, (corner[2] + end[2]) / 2])
        builder.band(np.stack([corner, out, end]), 0.03, CORD)
    return builder.mesh()


def _moustache_grid(width: float, thickness: float) -> np.ndarray:
    u, v = np.linspace(-1, 1, 21)[None], np.linspace(0, 1, 6)[:, None]
    top = -0.27 - 0.19 * np.abs(u) ** 1.5 + 0.0 * v
    bottom = -0.385 - thickness - 0.13 * np.abs(u) ** 1.5
    return _on_head(u * width + 0.0 * v, top + (bottom - top) * v, 0.04)


def moustache(style: np.ndarray) -> Mesh:
    """Between nose and lip; style: width, thickness."""
    builder = _Builder()
    builder.grid(_moustache_grid(0.22 + 0.14 * style[0], 0.05 * style[1]), HAIR)
    return builder.mesh()


def beard(style: np.ndarray) -> Mesh:
    """Along the jaw from ear to ear, and a moustache; style: length below the chin, height on the cheeks."""
    builder = _Builder()
    t = np.linspace(-1, 1, 41)
    jaw = np.stack([np.interp(t, np.linspace(-1, 1, 17), template()[:17, axis]) for axis in range(3)], axis=-1)
    knots = [0.0, 0.12, 0.25, 0.4, 0.6, 0.8, 1.0]
    inner_x = np.sign(t) * np.interp(np.abs(t), knots, [0.0, 0.1, 0.24, 0.36, 0.48, 0.58, 0.64])
    rise = 0.12 * style[1] * np.interp(np.abs(t), [0.2, 0.5, 1.0], [0.0, 1.0, 0.0])
    inner_y = np.interp(np.abs(t), knots, [-0.655, -0.65, -0.54, -0.46, -0.3, -0.05, 0.24]) + rise
    v = np.linspace(0, 1, 8)[:, None]
    on_cheek = _on_head(inner_x + (jaw[:, 0] - inner_x) * v, inner_y + (jaw[:, 1] - inner_y) * v, 0.03)
    w = np.linspace(0, 1, 5)[1:, None, None]
    length = 0.03 + (0.03 + 0.27 * style[0]) * np.cos(t * np.pi / 2)[:, None] ** 3
    below = on_cheek[-1] + w * length * np.stack([-0.3 * t, 0 * t - 1, 0.1 - 0.2 * np.abs(t)], axis=-1)
    builder.grid(np.concatenate([on_cheek, below]), HAIR)
    builder.grid(_moustache_grid(0.31, 0.03), HAIR)
    return builder.mesh()


def eye_mask(style: np.ndarray) -> Mesh:
    """Over the eyes from temple to temple, with a cord; style: height of the upper edge, of the lower, of the tips."""
    builder = _Builder()
    u, v = np.linspace(-1, 1, 31)[None], np.linspace(0, 1, 13)[:, None]
    knots = [0.0, 0.3, 0.55, 0.8, 1.0]
    top = _curve(u, knots, [0.38, 0.42, 0.46, 0.46, 0.38]) + 0.08 * style[0] + 0.1 * style[2] * u**4
    bottom = _curve(u, knots, [0.13, 0.02, -0.02, 0.05, 0.26]) - 0.08 * style[1] * (1 - u**4)
    cloth = _on_head(0.6 * u + 0.0 * v, top + (bottom - top) * v, 0.05, 1.5)
    builder.grid(cloth, CLOTH)
    side = cloth[4, -1]
    builder.band(np.stack([side, [0.73, side[1], -0.25], [0.76, side[1] - 0.02, -0.62]]), 0.05, CORD)
    return builder.mesh()


def hair_fringe(style: np.ndarray) -> Mesh:
    """From the crown over the forehead to the brows, longer at the temples; style: length, length at the temples."""
    builder = _Builder()
    u, v = np.sin(np.linspace(-1, 1, 41) * np.pi / 2)[None], np.linspace(0, 1, 17)[:, None]
    tips = 0.46 - 0.26 * style[0]
    locks = 0.1 - 0.5 * style[1]
    bottom = _curve(u, [0.0, 0.7, 0.85, 0.96, 1.0], [tips, tips - 0.03, tips - 0.1, locks, locks])
    top = 1.16 - 0.3 * u**2
    y = top + (bottom - top) * v
    x = u * np.interp(y, [-0.5, 0.0, 0.5, 0.8, 1.0, 1.2], [0.66, 0.72, 0.73, 0.7, 0.62, 0.4])
    builder.grid(_on_head(x, y, 0.07, 1.0), HAIR)
    return builder.mesh()


def _tube(path: np.ndarray, radii: np.ndarray, flatness: float = 1.0) -> np.ndarray:
    """(N, 13, 3) rings of radii (N,) round (N, 3) points near the plane z = 0; `flatness` shrinks them along z."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along, [0.0, 0.0, 1.0])
    turn = np.linspace(0, 2 * np.pi, 13)[None, :, None]
    ring = np.cos(turn) * across[:, None] + np.sin(turn) * np.array([0.0, 0.0, flatness])
    return path[:, None] + radii[:, None, None] * ring


def hand(style: np.ndarray) -> Mesh:
    """The back of a hand; origin between the knuckles, fingers along +y; style: spread of the fingers, their length.

    It is laid over the face by `lay_hand`.
    """
    builder = _Builder()
    s = np.concatenate([np.linspace(-0.1, 0.85, 9), 1 - 0.15 * (1 - np.sin(np.linspace(0.1, 1, 5) * np.pi / 2))])
    taper = np.where(s < 0.85, 1.05 - 0.25 * s, 0.84 * np.sqrt(np.clip(1 - ((s - 0.85) / 0.152) ** 2, 0, None)))
    spread = 0.03 + 0.12 * style[0]
    for place, length in ((-0.3, 0.72), (-0.1, 0.82), (0.1, 0.77), (0.29, 0.6)):
        lean = spread * place / 0.3
        reach = s * length * (0.9 + 0.25 * style[1])
        path = np.stack([place + lean * reach, reach - 0.25 * place**2, 0 * s], axis=-1)
        builder.grid(_tube(path, 0.1 * taper), FINGER)
    thumb = np.array([-0.24, -0.66, 0.0]) + s[:, None] * np.array([-0.45 - 0.15 * style[0], 0.58, 0.0])
    builder.grid(_tube(thumb, 0.12 * taper), FINGER)
    y = np.array([0.1, 0.04, -0.1, -0.3, -0.5, -0.7, -0.85, -1.0, -1.5, -2.2, -3.0])
    half = np.array([0.2, 0.36, 0.42, 0.43, 0.42, 0.37, 0.29, 0.26, 0.29, 0.34, 0.36])
    builder.grid(_tube(np.stack([0 * y, y, 0 * y], axis=-1), half, 0.35), BACK)
    return builder.mesh()


OCCLUDERS: Mapping[str, Callable[[np.ndarray], Mesh]] = {
    "glasses": glasses,
    "sunglasses": sunglasses,
    "surgical_mask": surgical_mask,
    "beard": beard,
    "moustache": moustache,
    "eye_mask": eye_mask,
    "hand": hand,
    "hair_fringe": hair_fringe,
}
