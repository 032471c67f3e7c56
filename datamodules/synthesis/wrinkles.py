"""Wrinkles of a face in families of lines: their courses, and the expressions that deepen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datamodules.synthesis.face_places import FacePlaces, bell, smoothstep
from renderers.face_models.default.regions import smooth_curve

Generator = np.random.Generator
MILLIMETRE = 0.01  # decimetres

BULGE = 0.4  # height of the raised skin beside a line, relative to the line's depth
SPAN = 4.5  # widths from a line, beyond which it has no effect
WOBBLE = 0.012  # decimetres by which a line strays from its course


@dataclass(frozen=True)
class Side:
    """One place of a family of lines, with n texels.

    Attributes:
        texels: (n,) indices into `FacePlaces`.
        across: (n,) decimetres, 0 on the first line and `Family.spacing` on the next.
        along: (n,) 0 where lines may begin, 1 where they may end.
        actions: name of an action (an ARKit unit) -> its effect here, a number or (n,).
    """

    texels: np.ndarray
    across: np.ndarray
    along: np.ndarray
    actions: dict[str, float | np.ndarray]


@dataclass(frozen=True)
class Family:
    """Similar lines of a person, alike on both sides of the face.

    Attributes:
        sides: their places.
        depth: decimetres, of the deepest line of the oldest person at full action.
        width: decimetres, standard deviation of a line's profile.
        count: (least, most) lines.
        spacing: decimetres between lines.
    """

    sides: tuple[Side, ...]
    depth: float
    width: float
    count: tuple[int, int]
    spacing: float


def profile(across: np.ndarray) -> np.ndarray:
    """A line's cross-section: -1 in its middle, raised beside it; `across` in widths."""
    wide = np.exp(-0.125 * across * across)  # twice as wide as the groove, which is the fourth power of this
    return np.asarray((BULGE * wide - np.square(wide * wide)) / (1 - BULGE))


class Wrinkles:
    """All families of lines of a face model.

    Args:
        places: of the chart that the lines are carved in.
    """

    def __init__(self, places: FacePlaces) -> None:
        self.families = (*_upper_face(places), *_around_eyes(places), *_lower_face(places))
        self.actions = tuple(sorted({name for family in self.families for s in family.sides for name in s.actions}))

    def carve(self, generator: Generator, weights: dict[str, float], texels: int) -> np.ndarray:
        """The relief of a person's wrinkles: (texels,) decimetres along the normal, negative where a line is.

        Args:
            generator: draws the person's lines. It draws the same number of values for every expression, so that one
                seed gives one person.
            weights: how strongly each facial action is active, in [0, 1]; an action that is absent has weight 0.
            texels: the length of the result.
        """
        carved = np.zeros(texels, dtype=np.float32)
        age = generator.beta(1.2, 1.8)
        for family in self.families:
            lines = int(generator.integers(family.count[0], family.count[1] + 1))
            depth = family.depth * generator.uniform(0.5, 1.0) * (0.6 + 0.4 * age)
            width = family.width * generator.uniform(0.85, 1.2)
            order = family.spacing * (np.arange(lines) + 0.15 * generator.standard_normal(lines))
            share = generator.uniform(0.5, 1.0, size=lines)
            for side in family.sides:
                active = sum((weights.get(name, 0.0) * gain for name, gain in side.actions.items()), start=0.0)
                static = 0.35 + 0.45 * age
                strength = depth * (static + (1 - static) * np.clip(active, 0, 1))
                carved[side.texels] += strength * self._lines(generator, side, order, share, width)
        return carved

    @staticmethod
    def _lines(generator: Generator, side: Side, order: np.ndarray, share: np.ndarray, width: float) -> np.ndarray:
        """(n,) sum of the lines' profiles. Each line has its own bend and length."""
        total = np.zeros(len(side.texels), dtype=np.float32)
        for place, weight in zip(order.tolist(), share.tolist(), strict=True):
            turn, phase = generator.uniform(3, 7), generator.uniform(0, 2 * np.pi)
            begin, end = generator.uniform(0, 0.15), generator.uniform(0.85, 1)
            near = np.flatnonzero(np.abs(side.across - place) < SPAN * width)
            along = side.along[near]
            across = (side.across[near] - place + WOBBLE * np.sin(turn * along + phase)) / width
            length = smoothstep(np.minimum((along - begin) / 0.2, (end - along) / 0.25), 0, 1)
            total[near] += weight * length * profile(across)
        return total


def _side(
    places: FacePlaces,
    across: np.ndarray,
    along: np.ndarray,
    reach: tuple[float, float],
    actions: dict[str, float | np.ndarray],
    where: np.ndarray | None = None,
) -> Side:
    """The part of the face with `across` in `reach` and `along` in [0, 1]."""
    chosen = (across > reach[0]) & (across < reach[1]) & (along > 0) & (along < 1) & (places.front > 0)
    if where is not None:
        chosen &= where
    texels = np.flatnonzero(chosen)
    picked = {name: gain[texels] if isinstance(gain, np.ndarray) else gain for name, gain in actions.items()}
    return Side(texels, across[texels].astype(np.float32), along[texels].astype(np.float32), picked)


def _upper_face(places: FacePlaces) -> list[Family]:
    """Lines across the forehead, between the brows, and over the root of the nose."""
    mark, (x, y, _) = places.mark, places.points.T
    left, right = smoothstep(x, -0.10, 0.25), smoothstep(x, 0.10, -0.25)
    raise_brows: dict[str, float | np.ndarray] = {
        "browInnerUp": 1.1 * bell(x, 0.30),
        "browOuterUpLeft": left,
        "browOuterUpRight": right,
    }
    arch = y - (mark[[19, 24], 1].mean() + 0.10) + 0.25 * x**2
    forehead = _side(places, arch, (x + 0.50) / 1.0, (-0.08, 0.42), raise_brows)
    frowns = []
    for name, sign in (("Left", 1), ("Right", -1)):
        across = sign * x - 0.045 - 0.25 * np.maximum(y - mark[22, 1], 0)
        along = (y - mark[27, 1] - 0.05) / 0.28
        frowns.append(_side(places, across, along, (-0.045, 0.10), {f"browDown{name}": 1.2, f"noseSneer{name}": 0.3}))
    root: dict[str, float | np.ndarray] = {
        "noseSneerLeft": 0.8 * left + 0.2,
        "noseSneerRight": 0.8 * right + 0.2,
        "browDownLeft": 0.25,
        "browDownRight": 0.25,
    }
    bunny = _side(places, y - mark[28, 1] + 1.2 * x**2 + 0.05, (x + 0.15) / 0.30, (-0.07, 0.2), root)
    return [
        Family((forehead,), 3.0 * MILLIMETRE, 0.026, (2, 4), 0.095),
        Family(tuple(frowns), 3.2 * MILLIMETRE, 0.024, (1, 1), 0.06),
        Family((bunny,), 1.9 * MILLIMETRE, 0.020, (2, 3), 0.07),
    ]


def _around_eyes(places: FacePlaces) -> list[Family]:
    """Crow's feet, and bags under the eyes."""
    mark, (x, y, _) = places.mark, places.points.T
    feet, bags = [], []
    for name, sign, corner in (("Left", 1, mark[45]), ("Right", -1, mark[36])):
        squint: dict[str, float | np.ndarray] = {
            f"eyeSquint{name}": 0.9,
            f"cheekSquint{name}": 0.8,
            f"mouthSmile{name}": 0.7,
            f"eyeBlink{name}": 0.3,
        }
        outwards, upwards = sign * x - sign * corner[0] + 0.08, y - corner[1]
        radius, angle = np.hypot(outwards, upwards), np.arctan2(upwards, outwards)
        # Angles as lengths, at the middle of the fan.
        fan = 0.20 * (angle + 0.75)
        feet.append(_side(places, fan, (radius - 0.10) / 0.26, (-0.08, 0.40), squint, outwards > 0))
        centre = mark[[42, 45]] if sign > 0 else mark[[36, 39]]
        below = y < centre[:, 1].mean()
        along = (sign * x - np.abs(centre[:, 0]).min() + 0.06) / (np.ptp(np.abs(centre[:, 0])) + 0.10)
        bags.append(_side(places, -places.eyes - 0.065, along, (-0.05, 0.16), squint, below & (sign * x > 0)))
    return [
        Family(tuple(feet), 2.6 * MILLIMETRE, 0.020, (3, 4), 0.085),
        Family(tuple(bags), 2.2 * MILLIMETRE, 0.022, (1, 2), 0.06),
    ]


def _lower_face(places: FacePlaces) -> list[Family]:
    """Lines from the nose past the mouth, beside and below its corners, under the lower lip, and around the lips."""
    mark, (x, y, _) = places.mark, places.points.T
    folds, brackets, drops = [], [], []
    for name, sign, wing, corner in (("Left", 1, mark[35], mark[54]), ("Right", -1, mark[31], mark[48])):
        cx, cy = sign * corner[0], corner[1]
        knots = np.array([[sign * wing[0] + 0.035, wing[1] + 0.06], [cx + 0.01, (wing[1] + cy) / 2 + 0.03],
                          [cx + 0.095, cy - 0.03], [cx + 0.10, cy - 0.12]])  # fmt: skip
        curve = smooth_curve(knots[:, ::-1])
        line = np.interp(y, curve[::-1, 0], curve[::-1, 1])
        # The distance to a slanted line is less than the sideways distance.
        smile: dict[str, float | np.ndarray] = {
            f"mouthSmile{name}": 1.0,
            f"noseSneer{name}": 0.7,
            f"mouthUpperUp{name}": 0.6,
            f"cheekSquint{name}": 0.4,
        }
        height = knots[0, 1] - knots[-1, 1]
        folds.append(_side(places, 0.85 * (sign * x - line), (knots[0, 1] - y) / height, (-0.12, 0.12), smile))
        radius = np.hypot(sign * x - cx + 0.05, y - cy)
        stretch: dict[str, float | np.ndarray] = {
            f"mouthDimple{name}": 1.0,
            f"mouthStretch{name}": 0.8,
            f"mouthPress{name}": 0.5,
            f"mouthSmile{name}": 0.6,
            f"mouth{name}": 0.8,
        }
        outwards = sign * x > cx
        brackets.append(_side(places, radius - 0.19, (y - cy + 0.16) / 0.32, (-0.06, 0.14), stretch, outwards))
        frown: dict[str, float | np.ndarray] = {
            f"mouthFrown{name}": 1.2,
            f"mouthPress{name}": 0.5,
            f"mouthLowerDown{name}": 0.6,
            "mouthShrugLower": 0.3,
        }
        drop = sign * x - cx - 0.02 + 0.25 * (y - cy)
        drops.append(_side(places, drop, (cy - 0.02 - y) / 0.24, (-0.10, 0.12), frown))
    under = y - mark[57, 1] + 0.075 - 0.9 * x**2
    chin = _side(places, -under, (x + 0.20) / 0.40, (-0.09, 0.12), {
        "mouthShrugLower": 1.0, "mouthRollLower": 0.6, "mouthPressLeft": 0.3, "mouthPressRight": 0.3, "jawForward": 0.3,
    })  # fmt: skip
    middle = mark[48:60, :2].mean(axis=0)
    turn = np.arctan2(y - middle[1], (x - middle[0]) * 0.7)
    purse: dict[str, float | np.ndarray] = {"mouthPucker": 1.0, "mouthFunnel": 0.6, "mouthRollUpper": 0.5}
    rays = _side(places, 0.20 * (np.abs(turn) - 0.8), (0.13 + places.lips) / 0.16, (-0.06, 0.36), purse)
    return [
        Family(tuple(folds), 3.5 * MILLIMETRE, 0.032, (1, 1), 0.1),
        Family(tuple(brackets), 2.4 * MILLIMETRE, 0.022, (1, 2), 0.07),
        Family(tuple(drops), 2.4 * MILLIMETRE, 0.024, (1, 1), 0.1),
        Family((chin,), 2.6 * MILLIMETRE, 0.026, (1, 1), 0.1),
        Family((rays,), 1.5 * MILLIMETRE, 0.017, (4, 5), 0.075),
    ]
