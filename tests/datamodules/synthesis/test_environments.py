"""Panoramas against quadrature on the sphere and against their own texels."""

from __future__ import annotations

import numpy as np
import torch

from datamodules.synthesis.environments import (
    decode_panorama,
    encode_panorama,
    environments,
    light_of,
    look_up,
    panorama_directions,
    soft_light,
)
from renderers.illumination import irradiance

NORMALS = torch.nn.functional.normalize(torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def integrated(panorama: np.ndarray) -> np.ndarray:
    """(24, 3) irradiance over pi, a sum over the texels written out here."""
    height, width = panorama.shape[:2]
    latitude = np.pi / 2 - (np.arange(height) + 0.5) / height * np.pi
    longitude = -np.pi + (np.arange(width) + 0.5) / width * 2 * np.pi
    total = np.zeros((len(NORMALS), 3))
    for row, up in enumerate(latitude):
        direction = np.stack(
            [np.cos(up) * np.sin(longitude), np.full(width, np.sin(up)), -np.cos(up) * np.cos(longitude)]
        )
        cosine = np.maximum(NORMALS.numpy() @ direction, 0)
        total += cosine @ panorama[row] * np.cos(up) * (np.pi / height) * (2 * np.pi / width)
    return total / np.pi


def test_weights_give_the_irradiance_of_light_that_nine_functions_hold() -> None:
    directions, solid = panorama_directions(48, 96)
    x, y, z = np.moveaxis(directions, -1, 0)
    np.testing.assert_allclose(solid.sum(), 4 * np.pi)
    panorama = np.stack([1 + 0.5 * y, 1 + 0.3 * x * y - 0.2 * z, 1 + 0.4 * (3 * z * z - 1)], axis=-1)
    found = irradiance(NORMALS[None], light_of(panorama.astype(np.float32))[None])[0]
    np.testing.assert_allclose(found.numpy(), integrated(panorama), atol=2e-3)


def test_real_places_are_near_their_integral() -> None:
    for index in (0, 5, 12):
        found = irradiance(NORMALS[None], soft_light(index)[None])[0].numpy()
        wanted = integrated(environments()[index].panorama)
        assert np.abs(found - wanted).max() < 0.06 * wanted.max()


def test_a_look_along_a_texel_sees_it() -> None:
    panorama = torch.rand(6, 12, 3)
    directions, _ = panorama_directions(6, 12)
    seen = look_up(panorama, torch.from_numpy(directions).float().flatten(0, 1))
    torch.testing.assert_close(seen, panorama.flatten(0, 1), atol=1e-4, rtol=0)


def test_bytes_hold_light_to_a_hundredth() -> None:
    light = np.random.default_rng(0).uniform(0.01, 100, (50, 3))
    back = decode_panorama(encode_panorama(light))
    assert (np.abs(back - light) <= 0.004 * light.max(axis=1, keepdims=True)).all()


def test_every_place_has_a_light_somewhere_and_a_name_of_its_own() -> None:
    places = environments()
    assert len({place.name for place in places}) == len(places) == 18
    for place in places:
        np.testing.assert_allclose(np.linalg.norm(place.direction), 1, atol=1e-5)
        assert (place.light > 0).all() and np.isfinite(place.panorama).all() and place.panorama.min() >= 0
