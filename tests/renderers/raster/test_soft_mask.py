"""Polygon coverage against closed forms, counted samples, area by other means, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask
from torch import Tensor

from renderers.raster.soft_mask import polygon_coverage


def star(seed: int, corners: int = 9, centre: float = 8.0, reach: float = 6.5) -> Tensor:
    """(1, corners, 2) a simple polygon round (centre, centre), clockwise as seen."""
    generator = np.random.default_rng(seed)
    angle = np.sort(generator.uniform(0, 2 * math.pi, corners)) + seed
    radius = generator.uniform(0.3, 1, corners) * reach
    points = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return torch.as_tensor(points)[None]


def shoelace(polygon: Tensor) -> float:
    return sum(float(a[0] * b[1] - a[1] * b[0]) / 2 for a, b in zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def test_a_rectangle_covers_its_pixels_by_their_shares() -> None:
    left, top, right, bottom = 1.25, 2.0, 4.5, 3.75
    corners = torch.tensor([[[left, top], [right, top], [right, bottom], [left, bottom]]], dtype=torch.float64)
    across = torch.tensor([0, 0.75, 1, 1, 0.5, 0], dtype=torch.float64)
    down = torch.tensor([0, 0, 1, 0.75, 0], dtype=torch.float64)
    covered = polygon_coverage(corners, (5, 6))
    assert covered.shape == (1, 1, 5, 6)
    torch.testing.assert_close(covered[0, 0], down[:, None] * across)


@pytest.mark.parametrize("seed", range(5))
def test_coverage_is_the_share_of_samples_inside(seed: int) -> None:
    polygon, fine = star(seed), 32
    # skimage counts samples at whole numbers, in (row, column).
    inside = polygon2mask((16 * fine, 16 * fine), polygon[0].flip(-1).numpy() * fine - 0.5)
    counted = inside.reshape(16, fine, 16, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(polygon_coverage(polygon, (16, 16))[0, 0].numpy(), counted, atol=2.5 / fine)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, 3.0]))
def test_the_sum_is_the_area_and_runs_the_other_way_round_negative(seed: int, softness: float) -> None:
    polygon = star(seed)
    covered = polygon_coverage(polygon, (16, 16), softness)
    assert float(covered.sum()) == pytest.approx(shoelace(polygon[0]), abs=1e-3)
    torch.testing.assert_close(polygon_coverage(polygon.flip(1), (16, 16), softness), -covered)


def test_a_softer_mask_is_the_mean_over_wider_squares() -> None:
    sharp = polygon_coverage(star(1), (16, 16))
    wide = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    torch.testing.assert_close(polygon_coverage(star(1), (16, 16), 3.0), wide)


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    polygon = star(2)
    whole = polygon_coverage(polygon, (16, 16))
    shift = torch.tensor([5.0, 6.0], dtype=torch.float64)
    torch.testing.assert_close(polygon_coverage(polygon - shift, (4, 7)), whole[:, :, 6:10, 5:12])


def test_any_fan_of_triangles_covers_the_same_even_where_the_outline_crosses_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    polygon = 1 + 14 * torch.rand(1, 8, 2, generator=generator, dtype=torch.float64)
    fans = [polygon[:, [0, k, k + 1]] for k in range(1, 7)]
    torch.testing.assert_close(
        polygon_coverage(polygon, (16, 16)), torch.stack([polygon_coverage(fan, (16, 16)) for fan in fans]).sum(dim=0)
    )


@pytest.mark.parametrize("softness", [1.0, 2.0])
def test_gradcheck(softness: float) -> None:
    polygon = torch.cat([star(3, centre=4.1, reach=3.3), star(4, centre=4.1, reach=3.3)]).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: polygon_coverage(p, (8, 8), softness), (polygon,))


def test_upright_and_level_edges_have_their_gradient() -> None:
    corners = [[1.3, 2.2], [4.6, 2.2], [4.6, 3.7], [1.3, 3.7]]
    rectangle = torch.tensor([corners], dtype=torch.float64, requires_grad=True)
    # Nothing in here crosses a pixel's side within the differences' step.
    weights = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def total(polygon: Tensor) -> Tensor:
        return (weights * polygon_coverage(polygon, (6, 6))).sum()

    (gradient,) = torch.autograd.grad(total(rectangle), rectangle)
    step = 1e-2  # beyond what counts as level
    for corner in range(4):
        for axis in range(2):
            moved = torch.zeros_like(rectangle)
            moved[0, corner, axis] = step
            slope = (total(rectangle + moved) - total(rectangle - moved)) / (2 * step)
            assert float(gradient[0, corner, axis]) == pytest.approx(float(slope.detach()), abs=2e-3)


@pytest.mark.parametrize(
    "corners",
    [
        [[3.3, 4.4]] * 4,
        [[1.2, 4.0], [3.1, 4.0], [6.4, 4.0], [3.1, 4.0]],
        [[4.0, 1.2], [4.0, 3.1], [4.0, 6.4], [4.0, 3.1]],
        [[1.2, 1.7], [3.2, 3.7], [5.2, 5.7], [3.2, 3.7]],
    ],
    ids=["point", "level", "upright", "slanted"],
)
def test_a_polygon_without_area_is_empty_with_the_areas_gradient(corners: list[list[float]]) -> None:
    polygon = torch.tensor([corners], requires_grad=True)
    covered = polygon_coverage(polygon, (8, 8))
    assert float(covered.detach().abs().max()) < 1e-5
    (gradient,) = torch.autograd.grad(covered.sum(), polygon)
    # The sum is the shoelace formula's area: half the way round from the corner before to the one after.
    around = (polygon.roll(-1, 1) - polygon.roll(1, 1)).detach() / 2
    torch.testing.assert_close(gradient, torch.stack([around[..., 1], -around[..., 0]], dim=-1), atol=2e-3, rtol=0)
