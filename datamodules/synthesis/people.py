"""Random people for synthetic heads: skin, hair, gaze, clothes, and the camera."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.synthesis.hair import STYLES
from datamodules.synthesis.wear import GARMENTS, HATS
from renderers.camera import CAMERA_DISTANCE, default_intrinsics
from renderers.face_models.default.albedo import DERMIS, HAEMOGLOBIN, MELANIN, SURFACE, skin_colors, srgb

Generator = np.random.Generator
Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeadSettings:
    """The variation of whole heads, beside that of `SceneSettings`. The first four can each take an ingredient away.

    Attributes:
        hair: heads have hair; else a bare scalp.
        things: factor on how often people wear or hold something; 0 is never.
        environments: light of real places; else soft light from all sides and a weak one from the front.
        backgrounds: backgrounds are varied; else even grey.
        distance: (least, most) decimetres from the camera, uniform in the logarithm. The focal length grows with it.
        zoom: (least, most) size of the head, relative to that under the default camera.
        shift: standard deviation of the crop's middle, as a share of its side.
    """

    hair: bool = True
    things: float = 1.0
    environments: bool = True
    backgrounds: bool = True
    distance: tuple[float, float] = (3.5, 30.0)
    zoom: tuple[float, float] = (0.62, 0.95)
    shift: float = 0.04


# L* of the ten tones of the Monk scale (Monk 2019). As an albedo they are mapped to the range of real skin's L*.
MONK = np.array([94.2, 92.3, 93.1, 87.6, 77.9, 55.1, 42.5, 30.7, 21.1, 14.6])
DARKEST, LIGHTEST = 26.0, 76.0
TONE_SPREAD = 1.8  # of L*, within a tone
WARMTH = (-0.012, 0.012)  # of a person's red against blue

HAIR_COLORS = np.array([
    (0.055, 0.048, 0.045), (0.10, 0.075, 0.06), (0.17, 0.115, 0.08), (0.26, 0.17, 0.11), (0.36, 0.25, 0.155),
    (0.50, 0.38, 0.24), (0.66, 0.53, 0.35), (0.40, 0.17, 0.07), (0.30, 0.10, 0.05), (0.46, 0.45, 0.44),
    (0.76, 0.75, 0.73),
])  # fmt: skip
DARK_SKINNED = np.array([0.62, 0.2, 0.06, 0.01, 0.0, 0.0, 0.01, 0.0, 0.01, 0.06, 0.03])
LIGHT_SKINNED = np.array([0.09, 0.14, 0.17, 0.16, 0.12, 0.09, 0.06, 0.05, 0.03, 0.06, 0.03])
DYES = np.array([(0.75, 0.30, 0.5), (0.2, 0.3, 0.62), (0.2, 0.45, 0.35), (0.4, 0.2, 0.5), (0.62, 0.08, 0.08),
                 (0.85, 0.80, 0.68)])  # fmt: skip
DYED = 0.07

SKINS = 48  # number of skin textures, which people share
HATTED = 0.16
CLOTH_TINT = 0.09
BLINKING, WINKING = 0.10, 0.02
OPEN_MOUTH, WIDE_MOUTH = 0.25, (0.15, 0.75)
GAZE = 11.0  # degrees, standard deviation
FULL_GAZE = 28.0  # degrees of a full eyeLook weight


@dataclass(frozen=True)
class Person:
    """One person's looks. Colours are display values.

    Attributes:
        hair_color: (3,).
        beard_color: (3,) the natural colour of beard and brows; the hair may be dyed.
        dark: darkness of the skin, 0 to 1.
        style: of `hair.STYLES`, or "bald".
        hairdo: number of the head of hair within the style.
        stubble: share of the hair's colour on shaven skin.
        oiliness: gloss of the skin, about 1.
        cloth_color: (3,).
        skin: number of the skin's texture.
        freckled: strength of that texture.
        garment: of `wear.GARMENTS`.
        hat: of `wear.HATS`, or "".
        hat_color: (3,).
        pattern: (2, 3) the cloth's second colour; then its kind, frequency and contrast.
    """

    hair_color: Array
    beard_color: Array
    dark: float
    style: str
    hairdo: int
    stubble: float
    oiliness: float
    cloth_color: Array
    skin: int
    freckled: float
    garment: str
    hat: str
    hat_color: Array
    pattern: Tensor


def lightness(display: Array) -> Array:
    """CIE L* of display colours (..., 3)."""
    light = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    luminance = light @ [0.2126, 0.7152, 0.0722]
    return np.asarray(116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16)


def _shade_of(tone: Array) -> Array:
    """L* of a tone of the Monk scale -> L* of skin that is drawn with it."""
    return np.asarray(DARKEST + (LIGHTEST - DARKEST) * (tone - MONK.min()) / np.ptp(MONK))


def nearest_tone(color: Array) -> NDArray[np.intp]:
    """Display colours of skin (..., 3) -> number of the nearest of the ten Monk tones, from 0."""
    return np.abs(lightness(color)[..., None] - _shade_of(MONK)).argmin(axis=-1)


def sample_skin(generator: Generator) -> tuple[Array, float]:
    """A skin colour (3,) and its darkness, 0 to 1. All tones of the Monk scale are equally frequent."""
    tone = MONK[generator.integers(len(MONK))]
    wanted = _shade_of(tone) + TONE_SPREAD * generator.standard_normal()
    melanin = np.exp(np.linspace(np.log(0.02), np.log(3.0), 200))[:, None]
    blood = generator.uniform(0.08, 0.42)
    colors = srgb(SURFACE + DERMIS * np.exp(-melanin * MELANIN - blood * HAEMOGLOBIN))
    shade = lightness(colors)
    color = np.array([np.interp(-wanted, -shade, channel) for channel in colors.T])
    color += np.array([1.0, 0.0, -1.0]) * generator.uniform(*WARMTH)
    return color, float(np.clip((LIGHTEST - wanted) / (LIGHTEST - DARKEST), 0, 1))


def tone_coefficients(color: Array) -> Array:
    """(3,) first albedo coefficients of the default model that give its skin this colour."""
    mean, directions = skin_colors()
    return np.asarray(np.linalg.solve(directions.T, color - mean))


def sample_hair_color(dark: float, generator: Generator) -> tuple[Array, Array]:
    """(3,) display colour of the hair, which is dyed now and then, and its natural colour for brows and beards."""
    shares = dark * DARK_SKINNED + (1 - dark) * LIGHT_SKINNED
    color = HAIR_COLORS[generator.choice(len(HAIR_COLORS), p=shares / shares.sum())]
    dye, which = generator.random(), generator.integers(len(DYES))
    shade = np.exp(0.15 * generator.standard_normal(3) * [1, 0.4, 0.5] + 0.12 * generator.standard_normal())
    natural = (color * shade).clip(0.02, 0.95)
    return (DYES[which] * shade).clip(0.02, 0.95) if dye < DYED else natural, natural


def sample_looks(
    albedo: Array, names: Mapping[str, int], hairdos: int, settings: HeadSettings, generator: Generator
) -> tuple[Array, Person]:
    """One person's albedo coefficients with a tone of the Monk scale, and the rest of the looks.

    Args:
        albedo: (A,) sampled from the face model. Skin, brows and irises are replaced.
        names: name (`FEATURES`) -> column of the replaced modes of brows and irises.
        hairdos: number of heads of hair of each style.
        settings: of the heads.
        generator: the draw depends on its state alone.
    """
    color, dark = sample_skin(generator)
    hair_color, natural = sample_hair_color(dark, generator)
    albedo = albedo.copy()
    albedo[:3] = tone_coefficients(color)
    brows = float(np.clip((natural.mean() - 0.13) / 0.10, -1.2, 2.5))
    albedo[names["brow_brightness"]] = 0.6 * brows + 0.4 * generator.standard_normal()
    albedo[names["brow_density"]] = 0.9 * generator.standard_normal() + 0.4
    blue, green = generator.random() > 0.35 + 0.65 * dark, generator.random() < 0.25
    albedo[names["iris_blue"]] = generator.uniform(1.2, 3.4) if blue else generator.normal(-0.4, 0.4)
    albedo[names["iris_green"]] = generator.uniform(0.8, 2.6) if green and not blue else generator.normal(0, 0.4)
    style = str(generator.choice([*STYLES, "bald"]))
    style = style if settings.hair else "bald"
    first, second = 0.9 * generator.beta(0.9, 1.4, size=(2, 1)) + CLOTH_TINT * generator.standard_normal((2, 3))
    hat, hatted = str(generator.choice(list(HATS))), generator.random()
    pattern = np.array([generator.integers(0, 6), generator.uniform(25, 90), generator.uniform(0.3, 1.0)])
    return albedo, Person(
        hair_color,
        natural,
        dark,
        style,
        int(generator.integers(hairdos)),
        float(generator.uniform(0.0, 0.45)),
        float(np.exp(0.3 * generator.standard_normal())),
        first.clip(0.02, 0.95),
        int(generator.integers(SKINS)),
        float(generator.uniform(0.1, 0.45)),
        str(generator.choice(list(GARMENTS))),
        hat if hatted < HATTED * settings.things else "",
        (generator.uniform(0.03, 0.75) + 0.12 * generator.standard_normal(3)).clip(0.02, 0.9),
        torch.tensor(np.stack([second.clip(0.02, 0.95), pattern]), dtype=torch.float32),
    )


def sample_gaze(expression: Array, units: dict[str, int], generator: Generator) -> Array:
    """(E,) the expression with a gaze mostly near the camera. Some people also blink, some speak."""
    expression = expression.copy()
    turn, rise = GAZE * generator.standard_normal(2) * [1.0, 0.6]
    for name in units:
        if name.startswith("eyeLook"):
            expression[units[name]] = 0.0
    aside, level = abs(turn) / FULL_GAZE, abs(rise) / FULL_GAZE
    toward = ("eyeLookOutLeft", "eyeLookInRight") if turn > 0 else ("eyeLookInLeft", "eyeLookOutRight")
    lids = ("eyeLookUpLeft", "eyeLookUpRight") if rise > 0 else ("eyeLookDownLeft", "eyeLookDownRight")
    for unit, weight in [*((name, aside) for name in toward), *((name, level) for name in lids)]:
        expression[units[unit]] = min(weight, 1.0)
    blink, speak, wide = generator.random(), generator.random(), generator.uniform(*WIDE_MOUTH)
    if blink < BLINKING:
        for side in ("Left", "Right") if blink > WINKING else (("Left",) if blink > WINKING / 2 else ("Right",)):
            expression[units[f"eyeBlink{side}"]] = 1.0
            expression[units[f"eyeWide{side}"]] = expression[units[f"eyeSquint{side}"]] = 0.0
    if speak < OPEN_MOUTH:
        expression[units["jawOpen"]] = wide
    return expression


def sample_camera(size: int, views: int, settings: HeadSettings, generator: Generator) -> tuple[Tensor, Array]:
    """One camera for all views of a person, and a crop of its picture for each.

    Args:
        size: pixels along each side of the crop.
        views: S.
        settings: distance, size and centring.
        generator: the draw depends on its state alone.

    Returns:
        (S, 3, 3) intrinsics of the crops, and (S,) decimetres to add to the translation's z.
    """
    distance = math.exp(generator.uniform(*np.log(settings.distance)))
    zoom = generator.uniform(*settings.zoom)
    intrinsics = default_intrinsics(size).repeat(views, 1, 1)
    jitter = zoom * np.exp(0.05 * generator.standard_normal(views))
    focal = torch.as_tensor(jitter * distance / CAMERA_DISTANCE, dtype=torch.float32)
    intrinsics[:, 0, 0] *= focal
    intrinsics[:, 1, 1] *= focal
    intrinsics[:, :2, 2] += torch.as_tensor(
        settings.shift * size * generator.standard_normal((views, 2)), dtype=torch.float32
    )
    return intrinsics, np.full(views, CAMERA_DISTANCE - distance)
