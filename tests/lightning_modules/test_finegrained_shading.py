"""Light and relief by least squares, against NumPy's dense solutions and exact faces."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.finegrained import shading
from lightning_modules.finegrained.shading import refitted_light, relief_from_shading, without_wide_waves
from renderers.coefficients import Coefficients
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.illumination import AMBIENT, irradiance, spherical_harmonics_basis
from renderers.uv.chart import UVChart, unit

SIZE, CHART = 48, 14


@cache
def faces() -> tuple[Coefficients, Rendering]:
    """Two mean faces under coloured light from aside."""
    coefficients = mean_coefficients(load_default(), 2)
    coefficients.angles[:, 1] = torch.tensor([-0.4, 0.3])
    light = coefficients.illumination.view(2, 3, 9)
    light[:, :, 1], light[:, :, 3] = torch.tensor([-0.2, 0.1])[:, None], torch.tensor([0.3, 0.25, 0.2])
    return coefficients, FaceRenderer(load_default(), SIZE)(coefficients)


def lit(illumination: Tensor, rendering: Rendering) -> Tensor:
    normals = unit(rendering.normals).flatten(2).transpose(1, 2)
    return rendering.albedo * irradiance(normals, illumination).transpose(1, 2).unflatten(2, (SIZE, SIZE))


def test_light_is_the_ridge_regression_of_every_channel() -> None:
    coefficients, rendering = faces()
    torch.manual_seed(0)
    image = (lit(coefficients.illumination, rendering) + 0.1 * torch.randn(2, 3, SIZE, SIZE)).clamp(0, 1)
    skin = torch.rand(2, 1, SIZE, SIZE)
    start = coefficients.illumination + 0.1 * torch.randn(2, 27)
    found = refitted_light(image, skin, start, rendering).view(2, 3, 9)
    for face in range(2):
        counted = (rendering.mask[face, 0] & (image[face].amax(dim=0) < 0.99)).flatten()
        weight = skin[face, 0].flatten()[counted].double()
        weight = (weight / weight.sum()).sqrt()[:, None]
        normals = unit(rendering.normals)[face].flatten(1).T[counted]
        basis = spherical_harmonics_basis(normals.double())
        for channel in range(3):
            albedo = rendering.albedo[face, channel].flatten()[counted].double()[:, None]
            before = start.view(2, 3, 9)[face, channel].double()
            ambient = torch.tensor([AMBIENT] + 8 * [0.0], dtype=torch.float64)
            rows = torch.cat([weight * albedo * basis, shading.LIGHT_RIDGE**0.5 * torch.eye(9)])
            seen = image[face, channel].flatten()[counted].double()[:, None]
            right = torch.cat([weight * seen, (shading.LIGHT_RIDGE**0.5 * (before + ambient))[:, None]])
            wanted = np.linalg.lstsq(rows.numpy(), right.numpy(), rcond=None)[0][:, 0] - ambient.numpy()
            np.testing.assert_allclose(found[face, channel].double(), wanted, atol=2e-4)


def test_light_moves_towards_the_true_one_and_stays_where_nothing_is_seen() -> None:
    coefficients, rendering = faces()
    true = coefficients.illumination
    start = true + 0.15
    image, skin = lit(true, rendering).clamp(0, 1), torch.ones(2, 1, SIZE, SIZE)
    found = refitted_light(image, skin, start, rendering)

    def error(light: Tensor) -> float:
        return float((lit(light, rendering) - image)[rendering.mask.expand_as(image)].abs().mean())

    assert error(found) < 0.2 * error(start)
    torch.testing.assert_close(refitted_light(image, 0 * skin, start, rendering), start, atol=1e-6, rtol=0)


def test_relief_is_the_dense_least_squares_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every texel's equations written out, on a small chart, and solved by NumPy."""
    monkeypatch.setattr(shading, "ITERATIONS", 400)
    coefficients, rendering = faces()
    chart = UVChart(load_default(), CHART)
    torch.manual_seed(1)
    difference, visibility = 0.1 * torch.randn(2, 3, CHART, CHART), torch.rand(2, 1, CHART, CHART)
    found = relief_from_shading(chart, difference, visibility, coefficients.illumination, rendering)
    wanted_difference = without_wide_waves(difference, shading.WIDEST_DIFFERENCE)
    normals, albedo = unit(chart.bake(rendering.vertex_normals)), chart.bake(rendering.vertex_albedo)
    maps = chart.bake(chart.uv).expand(2, -1, -1, -1)
    tilts = [chart.surface_gradient(rendering, place) for place in maps.split(1, dim=1)]

    def shade(bent: Tensor) -> Tensor:
        colors = irradiance(bent.flatten(2).transpose(1, 2), coefficients.illumination).transpose(1, 2)
        return albedo * colors.unflatten(2, (CHART, CHART))

    flat = shade(normals)
    answers = [(shade(unit(normals - shading.SLOPE_STEP * tilt)) - flat) / shading.SLOPE_STEP for tilt in tilts]
    texels = CHART * CHART
    place = np.arange(texels).reshape(CHART, CHART)
    # v runs against the rows: its slope at a texel is what it is higher than the one below.
    along_u, along_v = np.zeros((texels, texels)), np.zeros((texels, texels))
    for row in range(CHART):
        for column in range(CHART):
            here, right, below = place[row, column], place[row, (column + 1) % CHART], place[(row + 1) % CHART, column]
            along_u[here, here], along_u[here, right] = -CHART, CHART
            along_v[here, here], along_v[here, below] = CHART, -CHART
    for face in range(2):
        rows, right_side = [], []
        for channel in range(3):
            seen = np.sqrt(visibility[face, 0].numpy().ravel())[:, None]
            u, v = (answer[face, channel].numpy().ravel()[:, None] for answer in answers)
            rows.append(seen * (u * along_u + v * along_v))
            right_side.append(seen[:, 0] * wanted_difference[face, channel].numpy().ravel())
            tilt_u, tilt_v = (tilt[face, channel].numpy().ravel()[:, None] for tilt in tilts)
            rows.append(np.sqrt(shading.FLATNESS) * (tilt_u * along_u + tilt_v * along_v))
            right_side.append(np.zeros(texels))
        rows.append(np.sqrt(shading.FLATNESS) * shading.WIDEST * np.eye(texels))
        right_side.append(np.zeros(texels))
        wanted = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right_side), rcond=None)[0]
        wanted = wanted.reshape(CHART, CHART) * chart.mask[0, 0].numpy()
        assert np.abs(wanted).max() > 1e-4
        np.testing.assert_allclose(found[face, 0], wanted, atol=2e-3 * np.abs(wanted).max())


def test_few_iterations_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    coefficients, rendering = faces()
    chart = UVChart(load_default(), 96)
    torch.manual_seed(2)
    difference = torch.nn.functional.interpolate(0.1 * torch.randn(2, 3, 24, 24), size=96, mode="bicubic")
    given = (chart, difference, chart.mask.float().expand(2, -1, -1, -1), coefficients.illumination, rendering)
    few = relief_from_shading(*given)
    monkeypatch.setattr(shading, "ITERATIONS", 200)
    many = relief_from_shading(*given)
    assert float((few - many).norm() / many.norm()) < 0.2


def test_wide_waves_are_damped() -> None:
    """Eight waves along u and six along v come back damped by their frequency alone."""
    along = (torch.arange(48) + 0.5) / 48
    wave = torch.sin(2 * torch.pi * 8 * along) * torch.cos(2 * torch.pi * 6 * along[:, None])
    damping = 1 / (1 + (shading.WIDEST / (2 * torch.pi * 10)) ** 2)
    torch.testing.assert_close(without_wide_waves(wave[None, None])[0, 0], damping * wave, atol=1e-5, rtol=0)
    assert without_wide_waves(torch.full((1, 1, 48, 48), 3.0)).abs().max() < 1e-5
