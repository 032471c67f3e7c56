"""Marks of a person's skin, painted by formulas: freckles, moles, flush, beard shadow, make-up.

A painter returns layers: its strength at each of the N texels of `FacePlaces`, and its change of display RGB.
"""

from __future__ import annotations

import numpy as np

from datamodules.synthesis.face_places import FacePlaces, bell, smoothstep

Generator = np.random.Generator
Layers = list[tuple[np.ndarray, np.ndarray]]  # (N,) strength and (3,) RGB each

# Changes of display colour at full strength: melanin takes blue and green first, blood takes green.
MELANIN = np.array([-0.22, -0.25, -0.22])
BLOOD = np.array([0.03, -0.17, -0.13])
MOLE = np.array([-0.36, -0.36, -0.31])
SCAR = np.array([0.10, 0.10, 0.09])
STUBBLE = np.array([-0.32, -0.29, -0.24])
LIPSTICKS = np.array([[0.04, -0.26, -0.18], [-0.12, -0.24, -0.14], [0.12, -0.10, 0.02], [-0.16, -0.17, -0.15]])
EYE_SHADOWS = np.array([[-0.22, -0.14, 0.02], [-0.20, -0.20, -0.16], [-0.10, -0.22, -0.04], [-0.18, -0.06, -0.12]])
EYELINER = np.array([-0.40, -0.38, -0.35])
BLUSH = np.array([0.05, -0.18, -0.11])
BEARDED, MADE_UP = 0.42, 0.40  # shares of people; nobody is both
FRECKLED, BLEMISHED, FLUSHED, BIRTHMARKED, SCARRED = 0.45, 0.40, 0.55, 0.12, 0.20


def paint_skin(places: FacePlaces, generator: Generator) -> np.ndarray:
    """(N, 3) float32 display RGB to add for one person; `FacialDetail` then removes what a linear albedo can hold."""
    bare = places.front * (1 - smoothstep(places.lips, -0.02, 0.01)) * (1 - smoothstep(places.eyes, -0.05, -0.01))
    layers = _mottling(places, generator, bare) + _moles(places, generator, bare)
    for share, paint in (
        (FLUSHED, _flush),
        (FRECKLED, _freckles),
        (BLEMISHED, _blemishes),
        (BIRTHMARKED, _birthmark),
        (SCARRED, _scar),
    ):
        if generator.random() < share:
            layers += paint(places, generator, bare)
    kind = generator.random()
    if kind < BEARDED:
        layers += _beard(places, generator)
    elif kind > 1 - MADE_UP:
        layers += _lipstick(places, generator) + _eye_make_up(places, generator) + _blush(places, generator, bare)
    strengths, colors = zip(*layers, strict=True)
    return np.stack(strengths, axis=1).astype(np.float32) @ np.stack(colors).astype(np.float32)


def _mottling(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """Fine unevenness of both pigments, and the lips' own lines."""
    level = generator.uniform(0.04, 0.10)
    fine, medium = places.noises(generator, "fine", 3), places.noises(generator, "medium", 2)
    melanin, blood = 0.7 * fine[0] + 0.7 * medium[0], 0.5 * fine[1] + 0.9 * medium[1]
    lines = smoothstep(places.lips, 0.0, 0.02) * fine[2]
    skin = level * bare
    return [(skin * melanin, MELANIN), (skin * blood + 0.12 * lines, BLOOD)]


def _flush(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """Red patches with uneven edges on cheeks, nose and chin."""
    mark = places.mark
    x, y = np.abs(places.points[:, 0]), places.points[:, 1]
    cheek = bell(x - generator.uniform(0.30, 0.42), 0.16) * bell(y - mark[29, 1] + generator.uniform(0.05, 0.2), 0.14)
    middle = bell(x, 0.12) * np.maximum(bell(y - mark[30, 1], 0.10), 0.7 * bell(y - mark[8, 1] - 0.12, 0.10))
    where = np.maximum(generator.uniform(0.4, 1) * cheek, generator.uniform(0, 1) * middle)
    patches = smoothstep(places.noise(generator, "medium") + 0.6 * places.noise(generator, "broad"), -0.3, 0.7)
    return [(generator.uniform(0.5, 1.3) * bare * where * patches, BLOOD)]


def _freckles(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """Small melanin spots, densest over the nose and the upper cheeks."""
    x, y = np.abs(places.points[:, 0]), places.points[:, 1]
    middle = places.mark[29, 1]
    spread = generator.uniform(0.10, 0.26)
    where = bell(y - middle + 0.06, spread) * smoothstep(x, 0.72, 0.45) + 0.06
    count = int(generator.integers(50, 260))
    centres = places.scatter(generator, count, bare * where)
    radii = 0.011 + 0.012 * generator.beta(1.5, 3, size=count)
    strength = generator.uniform(0.35, 1.0) * generator.uniform(0.4, 1, size=count)
    return [(bare * places.spots(centres, radii, strength, places.noise(generator, "fine")), MELANIN)]


def _blemishes(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """Inflamed spots on forehead, cheeks and chin."""
    count = int(generator.integers(6, 30))
    groups = smoothstep(places.noise(generator, "broad"), -0.2, 1.2) * (1 - bell(places.points[:, 0], 0.08))
    centres = places.scatter(generator, count, bare * (groups + 0.02))
    radii, strength = generator.uniform(0.014, 0.032, size=count), generator.uniform(0.5, 1.2, size=count)
    return [(bare * places.spots(centres, radii, strength, places.noise(generator, "fine")), BLOOD)]


def _moles(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """A few small dark discs anywhere."""
    count = 1 + int(generator.poisson(3))
    centres = places.scatter(generator, count, bare)
    radii, strength = generator.uniform(0.011, 0.024, size=count), generator.uniform(0.5, 1, size=count)
    return [(bare * places.spots(centres, radii, strength, np.zeros(len(places))), MOLE)]


def _birthmark(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """One large stain, of blood vessels or of melanin."""
    centre, radius = places.scatter(generator, 1, bare), generator.uniform(0.06, 0.16, size=1)
    ragged = 2 * places.noise(generator, "medium")
    stain = smoothstep(places.spots(centre, radius, np.ones(1), ragged), 0.4, 0.6)
    return [(generator.uniform(0.5, 0.9) * bare * stain, BLOOD if generator.random() < 0.5 else MELANIN)]


def _scar(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """A pale line of one to three centimetres."""
    centre = places.scatter(generator, 1, bare)[0]
    turn, length = generator.uniform(0, np.pi), generator.uniform(0.06, 0.14)
    offset = places.points[:, :2] - centre[:2]
    along = offset @ [np.cos(turn), np.sin(turn)]
    across = offset @ [-np.sin(turn), np.cos(turn)] + 2 * generator.uniform(-1, 1) * along**2
    return [(bare * bell(across, 0.014) * smoothstep(np.abs(along), length, 0.6 * length), SCAR)]


def _beard(places: FacePlaces, generator: Generator) -> Layers:
    """Shaven or short: the whole jaw, a goatee or a moustache, with a ragged border and uneven growth."""
    mark, (x, y, z) = places.mark, places.points.T
    side = np.abs(x)
    mouth, nose = mark[54], mark[33]
    rise = generator.uniform(-0.10, 0.10)
    line = np.interp(
        side,
        [0.0, mouth[0] * 0.7, mouth[0] * 1.15, 0.48, 0.62, 0.72],
        [
            nose[1] - 0.02,
            nose[1] - 0.05,
            mouth[1] + 0.05 + rise,
            mouth[1] + 0.14 + rise,
            mark[13, 1] + 0.25,
            mark[15, 1],
        ],
    )
    ragged = 0.02 * places.noise(generator, "medium")
    below = smoothstep(line - y + ragged, -0.01, 0.05) * smoothstep(z, -0.62, -0.5)
    style = generator.choice(["jaw", "goatee", "moustache"], p=[0.55, 0.3, 0.15])
    if style != "jaw":
        below = below * smoothstep(side + ragged, mouth[0] + 0.06, mouth[0] + 0.01)
    if style == "moustache":
        below = below * smoothstep(y, mouth[1] - 0.05, mouth[1])
    beneath = mark[57]  # the patch on either side under the lower lip stays bare
    bald = bell(side - 0.11, 0.045) * bell(y - beneath[1] + 0.03, 0.03)
    lips = smoothstep(places.lips, 0.0, -0.025)
    growth = np.clip(0.75 + 0.3 * places.noise(generator, "fine") + 0.15 * places.noise(generator, "medium"), 0.2, 1.4)
    return [(generator.uniform(0.45, 1.0) * below * lips * (1 - bald) * growth, STUBBLE)]


def _lipstick(places: FacePlaces, generator: Generator) -> Layers:
    """Coloured lips with a dark contour; the lower lip shines."""
    color = generator.choice(LIPSTICKS) * generator.uniform(0.5, 1.1)
    inside = smoothstep(places.lips, -0.012, 0.010)
    contour = bell(places.lips - 0.008, 0.011)
    lower = smoothstep(places.points[:, 1], places.mark[66, 1] + 0.02, places.mark[66, 1] - 0.03)
    shine = 0.4 * lower * smoothstep(places.lips, 0.02, 0.06)
    return [(inside * (1 - shine) + 0.5 * contour, color)]


def _eye_make_up(places: FacePlaces, generator: Generator) -> Layers:
    """Eye shadow on the upper lids, and a line along them that may end in a wing."""
    mark, (x, y, _) = places.mark, places.points.T
    side = np.abs(x)
    inner, outer = mark[42], mark[45]
    share = (side - inner[0]) / (outer[0] - inner[0])
    above = smoothstep(y - np.interp(side, [inner[0], outer[0]], [inner[1], outer[1]]), -0.01, 0.03)
    reach = generator.uniform(0.05, 0.11)
    lid = smoothstep(places.eyes, -reach, -0.4 * reach) * smoothstep(places.eyes, 0.03, 0.0) * above
    lid = lid * smoothstep(share, -0.25, 0.15) * smoothstep(share, 1.45, 1.0)
    color = generator.choice(EYE_SHADOWS) * generator.uniform(0.5, 1.1)
    line = bell(places.eyes + 0.008, 0.012) * above
    slope = generator.uniform(0.2, 0.7)
    wing = bell(y - outer[1] - slope * (side - outer[0]), 0.013) * smoothstep(share, 0.85, 1.05)
    line = np.maximum(line, wing * smoothstep(share, 1.55, 1.25))
    return [(lid, color), (generator.uniform(0.2, 1) * line * places.front, EYELINER)]


def _blush(places: FacePlaces, generator: Generator, bare: np.ndarray) -> Layers:
    """A brush stroke along each cheekbone, fading towards the temple."""
    x, y, _ = places.points.T
    side = np.abs(x) - 0.42
    above = y - places.mark[33, 1] - generator.uniform(0.06, 0.14) - generator.uniform(0.3, 0.9) * side
    stroke = smoothstep(above, -0.08, 0.02) * smoothstep(above, 0.16, 0.0)
    stroke = stroke * smoothstep(side, -0.20, -0.05) * smoothstep(side, 0.26, 0.05)
    return [(generator.uniform(0.5, 1.2) * bare * stroke, BLUSH)]
