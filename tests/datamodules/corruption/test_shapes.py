"""Hulls and polygons against SciPy and scikit-image, gauges against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from skimage.draw import polygon as skimage_polygon

from datamodules.corruption import shapes
from tests.datamodules.preparation.test_skin import layout

SEEDS = st.integers(0, 2**31 - 1)
AXIS = torch.linspace(-3, 3, 601) + 0.005
Y, X = torch.meshgrid(AXIS[:-1], AXIS[:-1], indexing="ij")
CELL = 0.01**2


def shoelace(corners: torch.Tensor) -> torch.Tensor:
    """(B,) signed areas."""
    after = corners.roll(-1, dims=1)
    return ((corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0]) / 2).sum(dim=1)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(3, 40), st.integers(1, 5))
def test_hull_has_the_corners_of_scipys(seed: int, count: int, batch: int) -> None:
    points = np.random.default_rng(seed).normal(size=(batch, count, 2)).astype(np.float32).astype(np.float64)
    corners = shapes.convex_hull(torch.as_tensor(points))
    for found, cloud in zip(corners, points, strict=True):
        expected = cloud[ConvexHull(cloud).vertices]
        assert {tuple(corner) for corner in found.tolist()} == {tuple(corner) for corner in expected.tolist()}
    areas = [ConvexHull(cloud).volume for cloud in points]
    np.testing.assert_allclose(shoelace(corners), areas, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_hull_of_whole_numbers_with_many_on_a_line_and_twice(seed: int, side: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.integers(0, side, size=(3, 30, 2)).astype(np.float32)
    points[:, :3] = [[0, 0], [0, side], [side, 0]]  # never all on one line
    areas = shoelace(shapes.convex_hull(torch.as_tensor(points)))
    np.testing.assert_allclose(areas, [ConvexHull(cloud).volume for cloud in points], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(3, 9))
@example(0, 3)
def test_polygons_are_filled_as_scikit_image_does(seed: int, count: int) -> None:
    """Also crossed ones, and ones that leave the picture."""
    corners = np.random.default_rng(seed).uniform(-15, 55, size=(3, count, 2))
    filled = shapes.fill_polygon(torch.as_tensor(corners), 32, 40)
    for found, outline in zip(filled, corners, strict=True):
        expected = np.zeros((32, 40), bool)
        # scikit-image puts pixel centres at whole numbers.
        expected[skimage_polygon(outline[:, 1] - 0.5, outline[:, 0] - 0.5, shape=(32, 40))] = True
        np.testing.assert_array_equal(found.numpy(), expected)


def test_hulls_of_different_corner_counts_fill_right_in_one_batch() -> None:
    generator = np.random.default_rng(0)
    clouds = [generator.uniform(4, 60, size=(68, 2)) for _ in range(3)]
    clouds[1][3:] = clouds[1][:3].mean(axis=0)  # a triangle
    clouds[2][4:] = clouds[2][:3].mean(axis=0)
    filled = shapes.face_hull(torch.as_tensor(np.stack(clouds)), 64, 64)
    for found, cloud in zip(filled, clouds, strict=True):
        outline = cloud[ConvexHull(cloud).vertices]
        expected = np.zeros((64, 64), bool)
        expected[skimage_polygon(outline[:, 1] - 0.5, outline[:, 0] - 0.5, shape=(64, 64))] = True
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_face_out_of_sight_counts_as_the_whole_picture() -> None:
    landmarks = torch.as_tensor(layout() * 64 / 224, dtype=torch.float32)
    inside, outside = shapes.face_hull(torch.stack([landmarks, landmarks + 500]), 64, 64)
    assert outside.all()
    assert inside.sum().item() == pytest.approx(ConvexHull(landmarks.numpy()).volume, rel=0.02)


def area(gauge: torch.Tensor, scale: float) -> float:
    return float((gauge <= scale).sum()) * CELL


@pytest.mark.parametrize("aspect", [0.6, 1.0, 1.8])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_areas_of_ellipses_and_rectangles(aspect: float, scale: float) -> None:
    wide = torch.tensor(aspect)
    assert area(shapes.ellipse_gauge(X, Y, wide), scale) == pytest.approx(math.pi * scale**2, rel=0.01)
    assert area(shapes.rectangle_gauge(X, Y, wide), scale) == pytest.approx(4 * scale**2, rel=0.02)
    ellipse = shapes.ellipse_gauge(X, Y, wide) <= scale
    assert X[ellipse].max().item() == pytest.approx(scale * aspect, abs=0.02)


@given(SEEDS, st.integers(3, 7), st.floats(0.3, 2))
@settings(max_examples=15, deadline=None)
def test_polygon_gauge_is_the_half_planes(seed: int, sides: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.arange(sides) + 0.2 * torch.rand(1, sides, generator=generator)) * 2 * math.pi / sides
    distances = 0.5 + torch.rand(1, sides, generator=generator)
    x, y = X[None, ::9, ::9], Y[None, ::9, ::9]
    inside = torch.ones_like(x, dtype=torch.bool)
    for angle, distance in zip(angles[0].tolist(), distances[0].tolist(), strict=True):
        inside &= math.cos(angle) * x + math.sin(angle) * y <= scale * distance
    different = (shapes.polygon_gauge(x, y, angles, distances) <= scale) != inside
    assert different.sum() <= 2  # rounding on the very edge
    assert 0 < inside.sum() < inside.numel()


def test_blobs_outline_is_its_formula() -> None:
    amplitudes, phases = torch.tensor([[0.2, 0.1, 0.05]]), torch.tensor([[0.3, 1.0, 2.0]])
    theta = torch.linspace(-3, 3, 50)
    radius = torch.exp(
        0.2 * torch.cos(2 * theta + 0.3) + 0.1 * torch.cos(3 * theta + 1) + 0.05 * torch.cos(4 * theta + 2)
    )
    x, y = 1.7 * radius * torch.cos(theta), 1.7 * radius * torch.sin(theta)
    gauge = shapes.blob_gauge(x[None, None], y[None, None], amplitudes, phases)
    torch.testing.assert_close(gauge, torch.full_like(gauge, 1.7))


def test_stripes_cover_the_scales_part() -> None:
    gauge = shapes.stripes_gauge(X, torch.tensor(0.5))
    for part in (0.1, 0.5, 0.9):
        assert (gauge <= part).float().mean().item() == pytest.approx(part, abs=0.02)
    torch.testing.assert_close(shapes.stripes_gauge(torch.tensor([-1.0, 0, 0.25, 0.5]), torch.tensor(0.5)),
                               torch.tensor([0.0, 0, 1, 0]))  # fmt: skip
