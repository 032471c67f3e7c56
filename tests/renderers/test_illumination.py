"""Spherical harmonics against SciPy's and against the integral they stand for."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import lpmv

from renderers.camera import euler_to_rotation
from renderers.illumination import irradiance, spherical_harmonics_basis, turned_light
from renderers.reflectance import lambertian

BANDS = [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]


def unit_vectors(count: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def real_harmonics(directions: np.ndarray) -> np.ndarray:
    """(N, 3) -> (N, 9) orthonormal real harmonics from SciPy's Legendre functions, with the Condon-Shortley sign."""
    height, azimuth = directions[:, 2], np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for degree, order in BANDS:
        m = abs(order)
        norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m))
        wave = np.sin(m * azimuth) if order < 0 else np.cos(m * azimuth)
        columns.append((math.sqrt(2) if order else 1) * norm * lpmv(m, degree, height) * wave)
    return np.stack(columns, axis=1)


def test_fixture_straight_at_the_viewer() -> None:
    basis = spherical_harmonics_basis(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    expected = torch.tensor([0.886227, 0, 1.772454, 0, 0, 0, 1.401248, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(basis, expected, atol=1e-6, rtol=0)


def test_basis_is_scipys_real_harmonics_times_the_band_constants() -> None:
    normals = unit_vectors(200)
    band = np.repeat([math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)], [1, 3, 5])
    np.testing.assert_allclose(spherical_harmonics_basis(normals).numpy(), real_harmonics(normals.numpy()) * band)


def test_each_band_is_light_seen_through_a_clamped_cosine() -> None:
    """Light shaped like one harmonic, integrated over the hemisphere around a normal, gives that harmonic again.

    The integral's own weights are pi, 2 pi / 3, pi / 4 (Ramamoorthi and Hanrahan); the constants that public
    checkpoints were trained with are 1, sqrt 3 and sqrt 8 times those.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    azimuth = (np.arange(200) + 0.5) * 2 * np.pi / 200
    ring = np.sqrt(1 - nodes[:, None] ** 2)
    light = np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), np.broadcast_to(nodes[:, None], (200, 200))], -1)
    light, solid_angle = light.reshape(-1, 3), np.repeat(weights * 2 * np.pi / 200, 200)
    normals = unit_vectors(10, seed=1)
    cosine = np.clip(normals.numpy() @ light.T, 0, None)
    integral = (cosine * solid_angle) @ real_harmonics(light)
    ratio = np.sqrt(np.repeat([1.0, 3.0, 8.0], [1, 3, 5]))
    np.testing.assert_allclose(spherical_harmonics_basis(normals).numpy(), integral * ratio, atol=2e-4)


def test_no_weights_still_show_the_face_in_even_grey() -> None:
    light = irradiance(unit_vectors(20)[None], torch.zeros(1, 27, dtype=torch.float64))
    torch.testing.assert_close(light, torch.full_like(light, 0.708982), atol=1e-6, rtol=0)


def test_weights_stand_channel_after_channel() -> None:
    normals = unit_vectors(5)[None].expand(3, -1, -1)
    illumination = torch.zeros(3, 27, dtype=torch.float64)
    illumination[torch.arange(3), torch.arange(3) * 9 + 2] = 1.0  # image k lights channel k from the front
    light = irradiance(normals, illumination) - irradiance(normals, torch.zeros_like(illumination))
    expected = torch.einsum("bn,bc->bnc", spherical_harmonics_basis(normals)[..., 2], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(light, expected)


def test_lambertian_colour_is_albedo_times_light() -> None:
    normals = unit_vectors(6)[None]
    albedo = torch.rand(1, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(
        lambertian(albedo, normals, torch.zeros(1, 27, dtype=torch.float64)), albedo * 0.708982, atol=1e-6, rtol=0
    )


def test_gradcheck() -> None:
    normals = unit_vectors(8).view(2, 4, 3).requires_grad_()
    illumination = torch.randn(2, 27, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(irradiance, (normals, illumination))


def test_turned_light_falls_on_turned_normals_as_before() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 27, generator=generator, dtype=torch.float64)
    rotation = euler_to_rotation(torch.randn(2, 3, generator=generator, dtype=torch.float64))
    normals = unit_vectors(50).expand(2, -1, -1)
    after = irradiance(normals @ rotation.transpose(1, 2), turned_light(weights, rotation))
    torch.testing.assert_close(after, irradiance(normals, weights), atol=1e-9, rtol=0)
