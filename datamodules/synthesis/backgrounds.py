"""Backgrounds of heads: a real place out of focus, soft patches, a studio's wall, or shapes of any colour."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.synthesis.environments import look_up

Picture = NDArray[np.float32]
KINDS, SHARES = ("place", "patches", "wall", "shapes"), (0.55, 0.12, 0.15, 0.18)
COLORFUL = 0.9  # drawn backgrounds keep at most this share of their colours' saturation
WIDENED = (1.0, 5.0)  # factor on the camera's angles for looking up a place, as if its focal length were shorter


def sample_background(
    size: int, intrinsics: Tensor, panorama: Tensor, turn: Tensor, plain: bool, generator: np.random.Generator
) -> Tensor:
    """(size, size, 3) linear light.

    Args:
        size: pixels along each side.
        intrinsics: (3, 3) of the picture.
        panorama: (H, W, 3) of the place.
        turn: (3, 3) from the camera's directions to the panorama's.
        plain: even grey instead.
        generator: the draw depends on its state alone.
    """
    kind = generator.choice(KINDS, p=SHARES)
    if plain:
        return torch.full((size, size, 3), 0.2)
    if kind == "place":
        wide = math.exp(generator.uniform(*np.log(WIDENED)))
        axis = torch.arange(size) + 0.5
        x = (axis - intrinsics[0, 2]) * wide / intrinsics[0, 0]
        y = (axis - intrinsics[1, 2]) * wide / intrinsics[1, 1] + generator.normal(0, 0.08)
        rays = torch.stack([x[None].expand(size, -1), -y[:, None].expand(-1, size), torch.full((size, size), -1.0)], -1)
        rays = torch.nn.functional.normalize(rays.flatten(0, 1), dim=-1) @ turn.T
        return look_up(panorama, rays).unflatten(0, (size, size))
    draw = {"patches": _patches, "wall": _wall, "shapes": _shapes}[str(kind)]
    # These are drawn in display values.
    picture = np.ascontiguousarray(draw(size, generator), dtype=np.float32).clip(0, 1)
    gray = picture.mean(axis=2, keepdims=True)
    return torch.from_numpy((gray + COLORFUL * generator.random() * (picture - gray)).astype(np.float32) ** 2.2)


def _patches(size: int, generator: np.random.Generator) -> Picture:
    cells = int(generator.integers(2, 9))
    coarse = generator.uniform(0, 1, size=(cells, cells, 3)).astype(np.float32)
    mode = cv2.INTER_CUBIC if generator.random() < 0.7 else cv2.INTER_NEAREST
    picture = cv2.resize(coarse, (size, size), interpolation=mode)
    return np.asarray(0.5 + generator.uniform(0.2, 0.9) * (picture - 0.5), dtype=np.float32)


def _wall(size: int, generator: np.random.Generator) -> Picture:
    """One colour, brightest in one place."""
    color = generator.uniform(0.1, 0.95) + generator.normal(0, 0.06, size=3)
    y, x = np.mgrid[:size, :size] / size - generator.uniform(0.2, 0.8, size=(2, 1, 1))
    fall = 1 - generator.uniform(0, 0.6) * (x**2 + y**2)
    return np.asarray(color * fall[..., None], dtype=np.float32)


def _shapes(size: int, generator: np.random.Generator) -> Picture:
    """Boxes and discs, out of focus: a room, a shelf, a street."""
    top, bottom = generator.uniform(0.1, 0.9, size=(2, 3))
    ramp = np.linspace(0, 1, size)[:, None, None]
    picture = np.ascontiguousarray(np.broadcast_to(top + (bottom - top) * ramp, (size, size, 3)), dtype=np.float32)
    for _ in range(int(generator.integers(4, 22))):
        color = tuple(float(part) for part in generator.uniform(0.03, 1, size=3))
        x, y, wide, high = (generator.uniform(-0.2, 1.1, size=4) * size).astype(int).tolist()
        wide, high = abs(wide) // 2 + 1, abs(high) // 2 + 1
        if generator.random() < 0.7:
            cv2.rectangle(picture, (x, y), (x + wide, y + high), color, -1)
        else:
            cv2.ellipse(picture, (x, y), (wide // 2 + 1, wide // 2 + 1), 0, 0, 360, color, -1)
    blur = size * math.exp(generator.uniform(math.log(0.004), math.log(0.06)))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), dtype=np.float32)
