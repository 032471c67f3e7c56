"""Hair as thin opaque ribbons, which grow on the mean head's scalp by the rules of a style."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Flow = Literal["crown", "parted", "back", "forward", "gathered"]
CONTROLS = 4  # points of the head that move a point of a ribbon


@dataclass(frozen=True)
class Style:
    """The rules of a hairstyle. Lengths are in decimetres.

    Attributes:
        flow: the course of the hair: away from the crown or a parting, backwards, forwards, or to a knot at the back.
        top, sides: length on top, and at the sides and the back.
        ribbons: number of ribbons.
        steps: pieces of each ribbon.
        width: of a ribbon.
        lift: distance of the hair from the head.
        gravity: how soon the hair falls, 0 to 1.
        curl: radius of the curls.
        turns: turns of a curl in a decimetre.
        ruffle: how much the directions of the ribbons differ.
        fringe: length of hair that falls over the forehead; 0 for none.
        receding: how much of the front and the crown is bald, 0 to 1.
        tail: length of gathered hair beyond its knot; 0 for none.
        bun: radius of the knot; 0 for none.
    """

    flow: Flow = "crown"
    top: float = 0.5
    sides: float = 0.3
    ribbons: int = 1100
    steps: int = 6
    width: float = 0.07
    lift: float = 0.06
    gravity: float = 0.3
    curl: float = 0.0
    turns: float = 2.0
    ruffle: float = 0.25
    fringe: float = 0.0
    receding: float = 0.0
    tail: float = 0.0
    bun: float = 0.0


STYLES: dict[str, Style] = {
    "cropped": Style(top=0.09, sides=0.06, ribbons=3200, steps=2, width=0.028, lift=0.03, gravity=0.0, ruffle=0.5),
    "short": Style("forward", top=0.42, sides=0.16, ribbons=2800, steps=4, width=0.036, lift=0.07, gravity=0.1,
                   ruffle=0.35),
    "quiff": Style("back", top=0.65, sides=0.14, ribbons=2600, steps=5, width=0.036, lift=0.18, gravity=0.05,
                   ruffle=0.25),
    "parted": Style("parted", top=0.95, sides=0.4, ribbons=2200, steps=7, width=0.038, lift=0.07, gravity=0.35),
    "fringe": Style(top=1.2, sides=1.1, ribbons=2200, steps=8, width=0.038, lift=0.07, gravity=0.6, ruffle=0.15,
                    fringe=0.5),
    "bob": Style("parted", top=1.9, sides=1.3, ribbons=2000, steps=9, width=0.042, lift=0.08, gravity=0.7, ruffle=0.11),
    "long": Style("parted", top=4.2, sides=3.6, ribbons=1700, steps=12, width=0.046, lift=0.07, gravity=0.8,
                  ruffle=0.10),
    "wavy": Style("parted", top=3.2, sides=2.6, ribbons=1700, steps=13, width=0.046, lift=0.10, gravity=0.75,
                  curl=0.07, turns=1.0, ruffle=0.22),
    "curly": Style(top=1.5, sides=1.4, ribbons=2000, steps=12, width=0.04, lift=0.14, gravity=0.45, curl=0.10,
                   turns=2.4, ruffle=0.5),
    "afro": Style(top=0.55, sides=0.45, ribbons=2600, steps=8, width=0.045, lift=0.35, gravity=0.0, curl=0.07,
                  turns=4.0, ruffle=0.7),
    "tied": Style("gathered", top=1.8, sides=1.5, ribbons=2000, steps=8, width=0.045, lift=0.035, gravity=0.0,
                  ruffle=0.06, tail=2.6),
    "bun": Style("gathered", top=1.8, sides=1.5, ribbons=2000, steps=8, width=0.045, lift=0.035, gravity=0.0,
                 ruffle=0.06, bun=0.34),
    "receding": Style("back", top=0.22, sides=0.16, ribbons=2200, steps=3, width=0.032, lift=0.03, gravity=0.1,
                      receding=0.7),
    "crown": Style("crown", top=0.1, sides=0.16, ribbons=1800, steps=3, width=0.032, lift=0.03, receding=1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """The mean head, on which hair grows and rests, in decimetres.

    Attributes:
        points: (V, 3) skin of head, neck and shoulders.
        normals: (V, 3).
        scalp: (F, 3) triangles where hair grows.
    """

    points: Array
    normals: Array
    scalp: NDArray[np.int64]


@dataclass(frozen=True)
class Ribbons:
    """The mesh of a head of hair, with V vertices and F faces.

    Attributes:
        points: (V, 3) decimetres, on the mean head.
        normals: (V, 3) away from the head.
        faces: (F, 3). The edge from the last to the first corner runs along the hair.
        across, along: (V,) places on the ribbon, in [0, 1].
        number: (V,) a random number of the ribbon, in [0, 1).
        roots: (V,) bool, whether the vertex is at the ribbon's root.
    """

    points: Array
    normals: Array
    faces: NDArray[np.int64]
    across: Array
    along: Array
    number: Array
    roots: NDArray[np.bool_]


def grow(head: Head, style: Style, detail: float, generator: np.random.Generator) -> Ribbons:
    """Grow a random head of hair.

    Args:
        head: of the mean person.
        style: the rules; lengths vary by a fifth.
        detail: share of the ribbons to draw. Fewer ribbons are wider and have fewer pieces.
        generator: the draw depends on its state alone.
    """
    style = _varied(style, detail, generator)
    tree = cKDTree(head.points)
    roots, normals = _roots(head, style, generator)
    center, top = head.points[np.unique(head.scalp)].mean(axis=0), head.points[:, 1].max()
    knot = np.array([0.0, center[1] + generator.uniform(-0.1, 0.75), head.points[:, 2].min() - 0.06])
    parting = generator.choice([-1.0, 1.0]) * generator.uniform(0.0, 0.35)
    height = np.clip((roots[:, 1] - center[1]) / (top - center[1]), 0, 1)
    length = style.sides + (style.top - style.sides) * height
    length *= 1 + 0.15 * generator.standard_normal(len(roots)).clip(-2, 2)
    forward = (style.fringe > 0) & (roots[:, 2] > center[2] + 0.45 * (head.points[:, 2].max() - center[2]))
    forward &= np.abs(roots[:, 0]) < 0.62
    length = np.where(forward, style.fringe * (1 + 0.12 * generator.standard_normal(len(roots))), length)
    # One or two locks may hang into the face.
    bare = 0.64 + 0.10 * generator.random(len(roots)) - 0.25 * (generator.random(len(roots)) < 0.03)
    paths, outward = [roots], [normals]
    place, direction = roots - 0.02 * normals, normals
    sway = style.ruffle * generator.standard_normal((len(roots), 3))
    for step in range(style.steps):
        share = (step + 1) / style.steps
        flow = _flow(style.flow, place, center, top, parting, knot)
        flow = np.where(forward[:, None], _unit(np.array([0.0, -0.35, 1.0]) + 0.3 * place * [1, 0, 0]), flow)
        flow = _unit(flow - (flow * outward[-1]).sum(axis=1, keepdims=True) * outward[-1])
        fall = min(1.0, style.gravity * 2.2 * share * max(length.mean(), 0.3))
        wanted = (1 - fall) * flow + fall * np.array([0.0, -1.0, 0.0]) + sway * (0.6 + 0.4 * share)
        wanted += (2.2 * style.lift if step == 0 else 1.5 * max(style.lift - 0.1, 0)) * outward[-1]
        direction = _unit(0.35 * direction + wanted)
        move = length / style.steps
        if style.flow == "gathered":
            # Hair ends at the knot.
            away = np.linalg.norm(knot - place, axis=1)
            move = np.minimum(away / (style.steps - step), move + 0.2)
        place = place + move[:, None] * direction
        clearance = 0.025 + style.lift * min(1.0, 1.6 * share) * (0.6 + 0.8 * generator.random(len(roots)))
        place, normal = _pushed_out(head, tree, place, clearance)
        if style.gravity > 0.3:
            place = _beside_face(place, forward, bare)
        paths.append(place)
        outward.append(normal)
    path, normal = np.stack(paths, axis=1), np.stack(outward, axis=1)
    if style.curl > 0:
        path = path + _curls(path, normal, style, length, generator)
    strips = [_ribbons(path, normal, style.width, generator)]
    if style.tail > 0:
        strips.append(_tail(knot, style, head, tree, generator))
    if style.bun > 0:
        strips.append(_bun(knot, style, generator))
    return _joined(strips)


def _varied(style: Style, detail: float, generator: np.random.Generator) -> Style:
    scale = 1 + 0.2 * generator.standard_normal(6).clip(-1.5, 1.5)
    return replace(
        style,
        ribbons=round(style.ribbons * detail),
        width=style.width / detail,
        steps=max(2, round(style.steps * detail**0.4)),
        top=style.top * scale[0],
        sides=style.sides * scale[1],
        fringe=style.fringe * scale[2],
        lift=style.lift * scale[3],
        curl=style.curl * scale[4],
        tail=style.tail * scale[5],
    )


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-9))


def _roots(head: Head, style: Style, generator: np.random.Generator) -> tuple[Array, Array]:
    """The hair's roots (N, 3), spread evenly over the scalp without its bald part, and the skin's normals there."""
    corners = head.points[head.scalp]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = generator.choice(len(area), size=style.ribbons, p=area / area.sum())
    weights = generator.dirichlet(np.ones(3), size=style.ribbons)[..., None]
    roots = (corners[chosen] * weights).sum(axis=1)
    normals = _unit((head.normals[head.scalp[chosen]] * weights).sum(axis=1))
    if style.receding > 0:
        kept = ~bald_share(roots, head, style.receding, generator.random(len(roots)))
        roots, normals = roots[kept], normals[kept]
    return roots, normals


def bald_share(points: Array, head: Head, receding: float, chance: Array) -> NDArray[np.bool_]:
    """(N,) bool, the points of the scalp that are bald: at first the temples, then the crown and all between them."""
    scalp = head.points[np.unique(head.scalp)]
    low, high = scalp.min(axis=0), scalp.max(axis=0)
    back = (high[2] - points[:, 2]) / (high[2] - low[2])
    height = (points[:, 1] - low[1]) / (high[1] - low[1])
    temples = back < 0.42 * receding - 0.16 * np.exp(-np.square(points[:, 0] / 0.2)) * (1.2 - receding)
    crown = (height > 1.18 - 0.42 * receding) & (receding > 0.8)
    return np.asarray((temples | crown) & (chance < 0.94))


def _flow(flow: Flow, place: Array, center: Array, top: float, parting: float, knot: Array) -> Array:
    """(N, 3) the direction of hair at each place, before it is laid along the head."""
    if flow == "gathered":
        return _unit(knot - place)
    if flow == "back":
        return _unit(np.array([0.0, -0.1, -1.0]) + 0.35 * (place - center) * [1, 0, 0])
    if flow == "forward":
        around = _unit((place - [0.0, top, center[2] - 0.35]) * [1, 0.6, 1])
        return _unit(around + np.array([0.0, 0.0, 0.55]))
    if flow == "parted":
        side = np.where(place[:, 0] > parting, 1.0, -1.0)[:, None]
        return _unit(side * [1.0, 0.0, 0.0] + np.array([0.0, -0.35, -0.45]))
    return _unit((place - [0.0, top, center[2] - 0.25]) * [1, 0.6, 1])


def _pushed_out(head: Head, tree: cKDTree, place: Array, clearance: Array) -> tuple[Array, Array]:
    """The places, moved away from the skin to at least the clearance (N,), and the skin's normals there."""
    _, near = tree.query(place, k=3)
    normal = _unit(head.normals[near].mean(axis=1))
    height = ((place[:, None] - head.points[near]) * head.normals[near]).sum(axis=2).mean(axis=1)
    return place + np.maximum(clearance - height, 0)[:, None] * normal, normal


def _beside_face(place: Array, forward: NDArray[np.bool_], bare: Array) -> Array:
    """The places, with hair in front of the ears and below the hairline moved aside, to `bare` (N,) from the middle."""
    x, y, z = place.T
    before = (z > -0.62) & (y < 0.80 - 0.25 * np.square(x)) & ~forward
    aside = np.where(x < 0, -1.0, 1.0) * np.maximum(np.abs(x), bare)
    return np.stack([np.where(before, aside, x), y, z], axis=-1)


def _curls(path: Array, normal: Array, style: Style, length: Array, generator: np.random.Generator) -> Array:
    """(N, steps + 1, 3) offsets that wind every hair about its course."""
    along = _unit(np.gradient(path, axis=1))
    side = _unit(np.cross(along, normal))
    share = np.linspace(0, 1, path.shape[1])[None]
    phase = 2 * np.pi * (share * style.turns * length[:, None] + generator.random((len(path), 1)))
    radius = style.curl * np.minimum(1, 3 * share) * (0.6 + 0.8 * generator.random((len(path), 1)))
    return np.asarray((radius * np.cos(phase))[..., None] * side + (radius * (1 + np.sin(phase)))[..., None] * normal)


def _ribbons(path: Array, normal: Array, width: float, generator: np.random.Generator) -> Ribbons:
    """Ribbons along (N, P, 3) paths, broadside to (N, P, 3) normals, narrowing to their tips."""
    count, pieces = path.shape[:2]
    along = _unit(np.gradient(path, axis=1))
    tilt = 0.5 * generator.standard_normal((count, 1, 1))
    side = _unit(np.cross(along, normal) + tilt * normal)
    share = np.linspace(0, 1, pieces)
    half = 0.5 * width * (1 - 0.45 * share**4)[None, :, None] * (0.7 + 0.6 * generator.random((count, 1, 1)))
    points = np.stack([path - half * side, path + half * side], axis=2)
    index = np.arange(count * pieces * 2).reshape(count, pieces, 2)
    a, b, c, d = index[:, :-1, 0], index[:, :-1, 1], index[:, 1:, 0], index[:, 1:, 1]
    faces = np.concatenate([np.stack(corner, axis=-1).reshape(-1, 3) for corner in ((a, b, c), (d, c, b))])
    shape = (count, pieces, 2)
    return Ribbons(
        points.reshape(-1, 3),
        np.broadcast_to(normal[:, :, None], points.shape).reshape(-1, 3),
        faces,
        np.broadcast_to([0.0, 1.0], shape).ravel(),
        np.broadcast_to(share[None, :, None], shape).ravel(),
        np.broadcast_to(generator.random((count, 1, 1)), shape).ravel(),
        np.broadcast_to(share[None, :, None] == 0, shape).ravel(),
    )


def _tail(knot: Array, style: Style, head: Head, tree: cKDTree, generator: np.random.Generator) -> Ribbons:
    """The hair that hangs from the knot."""
    count, pieces = 300, 10
    spread = generator.standard_normal((count, 3)) * [0.10, 0.05, 0.07]
    place, paths, normals = np.broadcast_to(knot, (count, 3)) + 0.3 * spread, [], []
    for share in np.linspace(0, 1, pieces):
        paths.append(place)
        normals.append(_unit(np.array([0.0, 0.25, -1.0]) + 3 * spread))
        direction = _unit(np.array([0.0, -share * 2.5 + 0.1, -0.9 + 0.9 * share]) + 1.2 * spread)
        place = place + style.tail / pieces * direction
        place, _ = _pushed_out(head, tree, place, np.full(count, 0.12))
    return _ribbons(np.stack(paths, axis=1), np.stack(normals, axis=1), 0.05, generator)


def _bun(knot: Array, style: Style, generator: np.random.Generator) -> Ribbons:
    """A ball of hair wound about itself."""
    count, pieces = 240, 9
    axis = _unit(np.array([0.0, 0.3, -1.0]) + 0.5 * generator.standard_normal((count, 3)))
    first = _unit(np.cross(axis, generator.standard_normal((count, 3))))
    second = np.cross(axis, first)
    turn = np.linspace(0, 1.4 * np.pi, pieces)[None, :, None] + 2 * np.pi * generator.random((count, 1, 1))
    lean = generator.uniform(-0.75, 0.75, size=(count, 1, 1))
    ball = (
        np.sqrt(1 - lean**2) * (np.cos(turn) * first[:, None] + np.sin(turn) * second[:, None]) + lean * axis[:, None]
    )
    radius = style.bun * (0.85 + 0.2 * generator.random((count, 1, 1)))
    middle = knot + np.array([0.0, 0.05, -0.6 * style.bun])
    return _ribbons(middle + radius * ball, ball, 0.06, generator)


def _joined(strips: list[Ribbons]) -> Ribbons:
    offsets = np.cumsum([0, *(len(strip.points) for strip in strips[:-1])])
    faces = np.concatenate([strip.faces + offset for strip, offset in zip(strips, offsets, strict=True)])
    names = ("points", "normals", "across", "along", "number", "roots")
    held = {name: np.concatenate([getattr(strip, name) for strip in strips]) for name in names}
    return Ribbons(**held, faces=faces)


def followed(points: Array, controls: Array) -> tuple[NDArray[np.int64], Array]:
    """The control points (K, 3) that move points (N, 3): (N, CONTROLS) indices, and weights that sum to 1."""
    found = cKDTree(controls).query(points, k=CONTROLS)
    weights = 1 / (np.asarray(found[0]) + 0.05) ** 2
    return np.asarray(found[1], dtype=np.int64), weights / weights.sum(axis=1, keepdims=True)
