"""The light of a scene: a real place, turned at random, perhaps a lamp and a flash, and the camera's exposure."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from datamodules.synthesis.environments import environments, illumination_of, probe, soft_light
from datamodules.synthesis.shading import Light
from renderers.illumination import AMBIENT, irradiance

Generator = np.random.Generator

LAMP_SHARE, FLASH_SHARE = 0.30, 0.10
LAMP_STRENGTH = (0.3, 1.6)  # times the soft light
FLASH_STRENGTH = (0.4, 1.5)  # times the soft light
LAMP_TINT = 0.06  # standard deviation of the logarithm of a lamp's red and blue
BALANCE = (0.6, 1.0)  # share of the light's own colour that the camera removes
BRIGHTNESS, BRIGHTNESS_SPREAD = 0.80, 0.22  # median of the light on a face, and deviation of its logarithm
LONGER = 0.7  # the darkest skin is exposed longer by this share
TURN_PER_VIEW = 12.0  # degrees, standard deviation for `light_change` of 1
LUMINANCE = torch.tensor([0.2126, 0.7152, 0.0722])


def sample_light(
    views: int, light_change: float, plain: bool, dark: float, generator: Generator, head_turns: Tensor | None = None
) -> tuple[Light, Tensor]:
    """One person's light in every view.

    Args:
        views: S.
        light_change: how much the light differs between the views, 0 to 1.
        plain: soft white light from the front instead of a real place.
        dark: darkness of the skin, 0 to 1; a camera exposes a dark face longer.
        generator: the draw depends on its state alone.
        head_turns: (S, 3, 3) rotations of the head, with place and lamp, from the target's view to each view. The flash
            stays with the camera, and all pictures are exposed for the target's view. None: no rotation, and each
            picture has its own exposure.

    Returns:
        the light, and (S, 27) its weights of `renderers.illumination`, with lamp and flash but without shadows.
    """
    chosen, turn = int(generator.integers(len(environments()))), generator.uniform(0, 2 * math.pi)
    aside = light_change * math.radians(TURN_PER_VIEW) * generator.standard_normal(views)
    lamp, flash = _sample_lamp(generator), _sample_flash(generator)
    balance, exposure = (
        generator.uniform(*BALANCE),
        BRIGHTNESS * np.exp(BRIGHTNESS_SPREAD * generator.standard_normal()),
    )
    brightness = exposure * (1 + LONGER * dark) * np.exp(0.3 * light_change * generator.standard_normal(views))
    one_exposure = head_turns is not None
    if head_turns is None:
        head_turns = torch.eye(3).expand(views, 3, 3)
    turns = torch.stack([_about_y(turn + float(angle)) for angle in aside]) @ head_turns.transpose(1, 2)
    place = environments()[chosen]
    panorama = torch.full((2, 4, 3), 0.8) if plain else torch.from_numpy(place.panorama)
    soft, keys, strengths = [], [], []
    for view in range(views):
        around = torch.full((len(probe()), 3), 0.8)
        key, strength = head_turns[view, :, 2], torch.full((3,), 0.3)
        if not plain:
            around = irradiance((probe() @ turns[view].T)[None], soft_light(chosen)[None])[0]
            key = turns[view].T @ torch.from_numpy(place.direction)
            strength = torch.from_numpy(place.light) / math.pi
        if lamp is not None:
            around = around + strength * (probe() @ key).clamp_min(0)[:, None]
            key, strength = head_turns[view] @ lamp[0], lamp[1] * around.mean()
        soft.append(around)
        keys.append(key)
        strengths.append(strength)
    around, key, strength = torch.stack(soft), torch.stack(keys), torch.stack(strengths)
    flashes = flash * around.mean(dim=(1, 2))[:, None].expand(-1, 3)
    # Colour and brightness of the light on surfaces that face the camera.
    front = _on_face(around, key, strength, flashes)
    if one_exposure:
        front = front[views // 2].expand(views, 3)
    tint = front / (front @ LUMINANCE)[:, None]
    gain = (torch.tensor(brightness, dtype=torch.float32) / (front @ LUMINANCE))[:, None] * tint**-balance
    around, strength, flashes = around * gain[:, None], strength * gain, flashes * gain
    toward_camera = probe()[:, 2].clamp_min(0)[None, :, None]
    everything = (
        around + strength[:, None] * (key @ probe().T).clamp_min(0)[..., None] + flashes[:, None] * toward_camera
    )
    harmonics = torch.stack([illumination_of(part) for part in around])
    harmonics.unflatten(1, (3, 9))[..., 0] += AMBIENT
    light = Light(harmonics, key, strength, flashes, panorama * gain.mean(dim=0), turns)
    return light, torch.stack([illumination_of(part) for part in everything])


def _sample_lamp(generator: Generator) -> tuple[Tensor, Tensor] | None:
    """Direction, mostly in front and above, and colour of a lamp; or None. Both draw equally many random numbers."""
    share, aside, above = generator.random(), generator.uniform(-1.9, 1.9), generator.normal(0.5, 0.35)
    low, high = np.log(LAMP_STRENGTH)
    strength, tint = np.exp(generator.uniform(low, high)), np.exp(LAMP_TINT * generator.standard_normal())
    if share >= LAMP_SHARE:
        return None
    direction = torch.tensor([math.sin(aside), above, math.cos(aside)], dtype=torch.float32)
    return direction / direction.norm(), float(strength) * torch.tensor([tint, 1.0, 1 / tint], dtype=torch.float32)


def _sample_flash(generator: Generator) -> float:
    share, strength = generator.random(), generator.uniform(*FLASH_STRENGTH)
    return float(strength) if share < FLASH_SHARE else 0.0


def _about_y(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _on_face(around: Tensor, key: Tensor, strength: Tensor, flash: Tensor) -> Tensor:
    """(S, 3) mean light on surfaces that face the camera within about 60 degrees."""
    facing = (probe()[:, 2] > 0.5).float()
    weight = (facing / facing.sum())[None, :, None]
    lit = (key @ probe().T).clamp_min(0)[..., None] * strength[:, None]
    return ((around + 0.8 * lit) * weight).sum(dim=1) + 0.8 * flash
