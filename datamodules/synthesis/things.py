"""Glasses, masks, beards and hands of `datamodules.corruption`, worn in the scene and lit by its light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from datamodules.corruption.head import template
from datamodules.corruption.meshes import HEAD, LENS
from datamodules.corruption.paints import GRAIN, HAIR_COLORS, Hits
from datamodules.corruption.rational import STYLES, Occluder, interpolate_rows, vertex_normals
from datamodules.synthesis.parsing import LABEL
from datamodules.synthesis.shading import SAMPLES, Light, depth_behind, polynomial, visible_faces
from renderers.camera import project
from renderers.color import decode, encode

Generator = np.random.Generator

RATES = {
    "glasses": 0.20, "sunglasses": 0.035, "surgical_mask": 0.05, "beard": 0.11, "moustache": 0.05, "hand": 0.035,
    "eye_mask": 0.003,
}  # fmt: skip
"""Share of people who wear or hold each."""
TOGETHER = (("glasses", "sunglasses", "eye_mask"), ("surgical_mask", "beard", "moustache", "hand"))
"""A person has at most one thing of each group."""
LABELS = {"glasses": "glasses", "sunglasses": "glasses", "beard": "hair", "moustache": "hair"}
EVEN = 0.75  # even light for `paint`, because the scene's light is applied afterwards
STANDING_OFF = {"surgical_mask": 0.07, "eye_mask": 0.04, "moustache": 0.02, "beard": 0.02}
"""Decimetres by which things stand off further than on the mean head, because noses differ."""
OPAQUE = 0.5  # a pixel shows a thing of more than this opacity


@dataclass(frozen=True)
class Worn:
    """One thing of one person.

    Attributes:
        kind: of `RATES`.
        styles: (STYLES,) random numbers in [0, 1).
        texture: (GRAIN, GRAIN) random numbers in [0, 1).
    """

    kind: str
    styles: Tensor
    texture: Tensor


@dataclass(frozen=True)
class Layer:
    """The layer of things over S pictures.

    Attributes:
        color: (S, 3, H, W) display values times opacity.
        opacity: (S, 1, H, W).
        label: (S, 1, H, W) uint8 of `parsing` where a pixel shows a thing, clear lenses included; 0 elsewhere.
    """

    color: Tensor
    opacity: Tensor
    label: Tensor


def sample_things(share: float, hair_color: np.ndarray, generator: Generator) -> list[Worn]:
    """The things that one person wears or holds. Beards have the hair's colour.

    Args:
        share: factor on `RATES`.
        hair_color: (3,) display.
        generator: the draw depends on its state alone.
    """
    found = []
    for group in TOGETHER:
        chance = generator.random()
        styles, texture = generator.random(STYLES), generator.random((GRAIN, GRAIN))
        for kind in group:
            rate = share * RATES[kind]
            if 0 <= chance < rate:
                if kind in ("beard", "moustache"):
                    nearest = np.square(np.array(HAIR_COLORS) - hair_color).sum(axis=1).argmin()
                    styles[4] = (nearest + 0.5) / len(HAIR_COLORS)
                found.append(Worn(kind, torch.from_numpy(styles).float(), torch.from_numpy(texture).float()))
            chance -= rate
    return found


@lru_cache
def _occluder(kind: str) -> Occluder:
    return Occluder(kind)


def draw_things(
    worn: list[Worn],
    landmarks: Tensor,
    skin: Tensor,
    rotation: Tensor,
    translation: Tensor,
    intrinsics: Tensor,
    light: Light,
    behind: Tensor,
) -> Layer:
    """The things of one person in S views, without the parts that the scene hides.

    Args:
        worn: at least one.
        landmarks: (68, 3) of the person with the expression, head frame, decimetres.
        skin: (3,) display colour of hands.
        rotation: (S, 3, 3).
        translation: (S, 3).
        intrinsics: (S, 3, 3).
        light: of the scene.
        behind: (S, H * SAMPLES, W * SAMPLES) depth of the scene at every sample.
    """
    views, size = len(rotation), behind.shape[-1] // SAMPLES
    color = torch.zeros(views, 3, size, size)
    opacity, label = torch.zeros(views, 1, size, size), torch.zeros(views, 1, size, size, dtype=torch.uint8)
    for thing in worn:
        one = _draw(thing, landmarks, skin, rotation, translation, intrinsics, light, behind)
        color = one[:, :3] + color * (1 - one[:, 3:])
        opacity = one[:, 3:] + opacity * (1 - one[:, 3:])
        shown = one[:, 3:] > (0.02 if thing.kind in ("glasses", "sunglasses") else OPAQUE)
        label = torch.where(shown, LABEL[LABELS.get(thing.kind, "other")], label)
    return Layer(color, opacity, label)


def _draw(
    thing: Worn,
    landmarks: Tensor,
    skin: Tensor,
    rotation: Tensor,
    translation: Tensor,
    intrinsics: Tensor,
    light: Light,
    behind: Tensor,
) -> Tensor:
    """(S, 4, H, W) premultiplied display colour and opacity of one thing."""
    occluder, views = _occluder(thing.kind), len(rotation)
    own = occluder.own
    points = occluder.place(thing.styles[None])[0, own:]
    deviation = landmarks - torch.from_numpy(template()).float()
    points = points + occluder.follows()[own:] @ deviation
    points[:, 2] += STANDING_OFF.get(thing.kind, 0.0)
    faces, parts = occluder.faces[occluder.parts != HEAD] - own, occluder.parts[occluder.parts != HEAD]
    posed = points @ rotation.transpose(1, 2) + translation[:, None]
    projected = project(posed, intrinsics) * torch.tensor([SAMPLES, SAMPLES, 1.0])
    fine = behind.shape[-1]
    seen = visible_faces(projected, faces, fine)
    shown = (seen >= 0) & (depth_behind(projected, faces, seen) < behind)
    image, row, column = shown.nonzero(as_tuple=True)
    size = fine // SAMPLES
    if not len(image):
        return torch.zeros(views, 4, size, size)
    face = seen[shown]
    normals = torch.nn.functional.normalize(vertex_normals(posed, faces), dim=-1)
    to_eye = torch.nn.functional.normalize(posed.new_tensor([0.0, 0.0, 10.0]) - posed, dim=-1)
    facing = (normals * to_eye).sum(dim=-1, keepdim=True)
    normals = torch.where(facing < 0, -normals, normals)
    arriving = _irradiance(normals, light)
    places = occluder.uv[own:].expand(views, -1, -1)
    head = points.expand(views, -1, -1)
    attributes = torch.cat([projected[..., :2], head, places, facing.abs(), arriving], dim=-1)
    corners = (faces[face] + (image * len(points))[:, None]).flatten()
    values = attributes.flatten(0, 1).index_select(0, corners).view(len(face), 3, -1)
    point, u, v, seen_facing, received = interpolate_rows(values, row, column).split([3, 1, 1, 1, 3], dim=1)
    styles, texture = thing.styles.expand(views, -1), thing.texture.expand(views, -1, -1)
    even = torch.full_like(u[:, 0], EVEN)
    part = parts[face]
    hits = Hits(image, point, u[:, 0], v[:, 0], part, even, seen_facing[:, 0], styles, texture, skin.expand(views, -1))
    color, opacity = occluder.paint(hits)
    # A lens reflects its surroundings, so its colour does not depend on the light's colour and direction.
    lit = torch.where((part == LENS)[:, None], received.mean(dim=1, keepdim=True), received)
    color = encode(decode(color.clamp(0, 1)) * lit).clamp(0, 1)
    painted = torch.cat([color, torch.ones_like(color[:, :1])], dim=1) * opacity[:, None]
    pixel = (image * size + row // SAMPLES) * size + column // SAMPLES
    layer = torch.zeros(views * size * size, 4)
    layer.index_add_(0, pixel, painted / SAMPLES**2)
    return layer.view(views, size, size, 4).permute(0, 3, 1, 2)


def covered_marks(opacity: Tensor, points: Tensor) -> Tensor:
    """(S, N) bool: whether things of this opacity (S, 1, H, W) hide the points (S, N, 2), pixels."""
    size = opacity.shape[-1]
    column, row = points.floor().long().clamp(0, size - 1).unbind(-1)
    return opacity.flatten(1).gather(1, row * size + column) > OPAQUE


def _irradiance(normals: Tensor, light: Light) -> Tensor:
    """(S, V, 3) irradiance of all lights, without shadows."""
    x = torch.cat([normals, normals * normals.roll(-1, dims=-1), normals.square(), normals[..., :1] * 0 + 1], dim=-1)
    soft = (x @ polynomial(light.harmonics)).clamp_min(0)
    key = (normals @ light.key[..., None]).clamp_min(0) * light.strength[:, None]
    return soft + key + normals[..., 2:].clamp_min(0) * light.flash[:, None]
