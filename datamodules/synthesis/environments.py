"""Light and backgrounds of 18 real places: Poly Haven's panoramas (CC0), see `derive_environments.py`.

A direction is a unit vector with x right and y up; -z points to the middle of the panorama. Light is linear, in units
of the panorama's mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renderers.illumination import AMBIENT, light_probe
from renderers.io.npz_file import read_npz

HEIGHT, WIDTH = 64, 128
PROBE = 200  # directions in which the irradiance is computed
FILE = Path(__file__).with_name("environments.npz")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Environment:
    """One place.

    Attributes:
        name: of the panorama.
        panorama: (HEIGHT, WIDTH, 3) float32 linear light without the strongest one; row 0 is straight up.
        direction: (3,) towards the strongest light.
        light: (3,) irradiance of a surface that faces it.
    """

    name: str
    panorama: NDArray[np.float32]
    direction: NDArray[np.float32]
    light: NDArray[np.float32]


@cache
def environments() -> tuple[Environment, ...]:
    """All eighteen places."""
    held = read_npz(FILE)
    panoramas = decode_panorama(held["panoramas"])
    rows = zip(held["names"], panoramas, held["directions"], held["lights"], strict=True)
    return tuple(Environment(str(name), *arrays) for name, *arrays in rows)


def panorama_directions(height: int = HEIGHT, width: int = WIDTH) -> tuple[Array, Array]:
    """The directions of a panorama's texels, (H, W, 3) unit vectors, and their solid angles (H, W)."""
    latitude = np.pi * (0.5 - (np.arange(height) + 0.5) / height)[:, None]
    longitude = 2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5)[None]
    across = np.cos(latitude)
    parts = across * np.sin(longitude), np.sin(latitude) + 0 * longitude, -across * np.cos(longitude)
    edges = np.sin(np.pi * (0.5 - np.arange(height + 1) / height))
    solid = (edges[:-1] - edges[1:])[:, None] * np.full((1, width), 2 * np.pi / width)
    return np.stack(parts, axis=-1), solid


def look_up(panorama: Tensor, directions: Tensor) -> Tensor:
    """Light from some directions.

    Args:
        panorama: (H, W, 3).
        directions: (N, 3) unit vectors in its frame.

    Returns:
        (N, 3), bilinear.
    """
    height, width = panorama.shape[:2]
    x, y, z = directions.unbind(-1)
    column = (torch.atan2(x, -z) / (2 * torch.pi) + 0.5) * width - 0.5
    row = ((0.5 - torch.asin(y.clamp(-1, 1)) / torch.pi) * height - 0.5).clamp(0, height - 1)
    left, top = column.floor(), row.floor().clamp_max(height - 2)
    across, down = (column - left)[:, None], (row - top)[:, None]
    first, second = left.long() % width, (left.long() + 1) % width
    upper, flat = top.long() * width, panorama.flatten(0, 1)
    above = torch.lerp(flat[upper + first], flat[upper + second], across)
    below = torch.lerp(flat[upper + width + first], flat[upper + width + second], across)
    return torch.lerp(above, below, down)


def illumination_of(irradiance: Tensor) -> Tensor:
    """The weights of `renderers.illumination` that give an irradiance: (200, 3) at the directions of `probe` -> (27,).

    `AMBIENT` is subtracted, because that module adds it.
    """
    weights = (light_probe(PROBE)[1].float() @ irradiance).T.clone()
    weights[:, 0] -= AMBIENT
    return weights.flatten()


def probe() -> Tensor:
    """(200, 3) directions spread evenly over the sphere."""
    return light_probe(PROBE)[0].float()


@cache
def soft_light(index: int) -> Tensor:
    """(27,) the weights of one environment's panorama, see `light_of`."""
    return light_of(environments()[index].panorama)


def light_of(panorama: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) -> (27,) weights in its own frame: irradiance over pi, which a white surface reflects."""
    directions, solid = panorama_directions(*panorama.shape[:2])
    cosine = (probe().double().numpy() @ directions.reshape(-1, 3).T).clip(0)
    light = panorama.reshape(-1, 3) * solid.reshape(-1, 1)
    return illumination_of(torch.as_tensor(cosine @ light / np.pi, dtype=torch.float32))


def encode_panorama(light: Array) -> NDArray[np.uint8]:
    """(..., 3) linear light -> (..., 4) bytes, three mantissas and one exponent (Ward 1991)."""
    most = light.max(axis=-1).clip(1e-9)
    exponent = np.ceil(np.log2(most * 256 / 255))
    mantissa = (light / np.exp2(exponent)[..., None] * 256).clip(0, 255)
    return np.concatenate([mantissa.round(), exponent[..., None] + 128], axis=-1).astype(np.uint8)


def decode_panorama(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The inverse of `encode_panorama`."""
    return stored[..., :3].astype(np.float32) * np.exp2(stored[..., 3:].astype(np.float32) - 136)
