"""Blinn-Phong against a sphere by hand and a loop in plain Python; where regressed numbers may put a light."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from renderers.reflectance import blinn_phong, decode_intensity, decode_light, decode_shininess

NUMBERS = st.floats(-1e4, 1e4)


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sphere(rings: int = 90, steps: int = 180) -> Tensor:
    """(1, N, 3) points of the unit sphere, which are its normals; among them those at even degrees of both angles."""
    polar = torch.linspace(0, math.pi, rings + 1, dtype=torch.float64)[:, None]
    around = torch.linspace(0, 2 * math.pi, steps + 1, dtype=torch.float64)[None, :-1]
    points = [polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos().expand(rings + 1, steps)]
    return torch.stack(points, dim=-1).reshape(1, -1, 3)


def by_hand(albedo: float, point: list[float], normal: list[float], light: list[float], shininess: float) -> float:
    """Equation 5 for one point and one channel, in scalars."""

    def unit(vector: list[float]) -> list[float]:
        length = math.sqrt(sum(v * v for v in vector))
        return [v / length for v in vector]

    to_light = unit([a - b for a, b in zip(light, point, strict=True)])
    to_eye = unit([-point[0], -point[1], 10 - point[2]])
    half = unit([a + b for a, b in zip(to_light, to_eye, strict=True)])
    if sum(a * b for a, b in zip(normal, to_light, strict=True)) <= 0:
        return 0.0
    return albedo * max(0.0, sum(a * b for a, b in zip(normal, half, strict=True))) ** shininess


@pytest.mark.parametrize("degrees", [0, 40, 80])
def test_a_spheres_highlight_lies_halfway_to_a_light_as_far_as_the_eye(degrees: int) -> None:
    """Mirrored about that direction light and eye change places, so there the half vector is the normal."""
    points, angle = sphere(), math.radians(degrees)
    light = double([10 * math.sin(angle), 0, 10 * math.cos(angle)])
    shine = blinn_phong(torch.full_like(points, 0.7), points, points, light, double([30]))
    brightest = points[0, shine[0, :, 0].argmax()]
    torch.testing.assert_close(brightest, double(math.sin(angle / 2), 0, math.cos(angle / 2)))
    torch.testing.assert_close(shine.amax(), double(0.7)[0])
    # What the light does not reach: farther round than acos(1 / 10) from it.
    unlit = (points * light[:, None] / 10).sum(dim=-1) <= 0.1
    assert unlit.any() and (shine[unlit] == 0).all()


def test_around_the_half_vector_it_falls_like_the_cosines_power() -> None:
    light, shininess = double([10 * math.sin(1.0), 0, 10 * math.cos(1.0)]), double([17])
    tilt = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    angle = 0.5 + tilt  # of the normal; the half vector stands at 0.5
    normals = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=-1)[None]
    albedo = torch.rand(1, 19, 3, dtype=torch.float64)
    shine = blinn_phong(albedo, torch.zeros_like(normals), normals, light, shininess)
    torch.testing.assert_close(shine, albedo * (tilt.cos() ** 17)[None, :, None])


def test_like_a_loop_over_points() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    normals = normalize(torch.randn(2, 50, 3, generator=generator, dtype=torch.float64), dim=-1)
    albedo = torch.rand(2, 50, 3, generator=generator, dtype=torch.float64)
    light, shininess = double([3, 8, 4], [-6, 1, 9]), double([5], [40])
    expected = [
        [
            [by_hand(float(a), p.tolist(), n.tolist(), light[b].tolist(), float(shininess[b])) for a in albedo[b, k]]
            for k, (p, n) in enumerate(zip(points[b], normals[b], strict=True))
        ]
        for b in range(2)
    ]
    shine = blinn_phong(albedo, points, normals, light, shininess)
    assert (shine > 1e-3).any(dim=-1).sum() > 10 and (shine == 0).any()
    torch.testing.assert_close(shine, torch.tensor(expected, dtype=torch.float64))


def test_a_light_behind_the_surface_gives_nothing() -> None:
    """Grazing: the half vector still stands before the surface, the light no longer does."""
    normals, albedo = double([[0, 0, 1]]), torch.ones(1, 1, 3, dtype=torch.float64)
    for height, lit in ((0.01, True), (-0.01, False), (0.0, False)):
        light = double([9, 0, height])
        half = normalize(normalize(light, dim=-1) + double([0, 0, 1]), dim=-1)
        assert (half * normals[0]).sum() > 0.7
        shine = blinn_phong(albedo, torch.zeros(1, 1, 3, dtype=torch.float64), normals, light, double([4]))
        assert bool((shine > 0).all()) == lit
        assert bool((shine == 0).all()) != lit


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NUMBERS, min_size=3, max_size=3), st.lists(NUMBERS, min_size=3, max_size=3), NUMBERS,
    st.floats(-1, 2), st.integers(0, 1000),
)  # fmt: skip
def test_energy_is_never_negative_nor_more_than_the_albedo(
    light: list[float], point: list[float], raw: float, albedo: float, seed: int
) -> None:
    normals = normalize(torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)
    points = torch.tensor([[point]]).expand(1, 20, 3)
    shininess = decode_shininess(torch.tensor([[raw]]))
    shine = blinn_phong(torch.full((1, 20, 3), albedo), points, normals, torch.tensor([light]), shininess)
    assert (shine >= 0).all()
    assert (shine <= max(albedo, 0) * (1 + 1e-3)).all()  # float32: a unit vector's length to some 1e-7, to the 48th


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.floats(0, 30))
def test_shininess_and_intensity_are_bounded_and_geometric(raw: float, step: float) -> None:
    for decode, least, most in ((decode_shininess, 4.0, 48.0), (decode_intensity, 0.5, 8.0)):
        both = decode(double([raw], [-raw]))
        assert (both >= least).all() and (both <= most * (1 + 1e-12)).all()
        torch.testing.assert_close(both.prod(), double(least * most)[0])
        low, high = decode(double([raw], [raw + step])).flatten()
        assert low <= high
        torch.testing.assert_close(decode(double([0])), double([math.sqrt(least * most)]))


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=3))
def test_the_light_stays_in_front_of_the_face(raw: list[float]) -> None:
    x, y, z = decode_light(double(raw))[0].tolist()
    distance = math.sqrt(x * x + y * y + z * z)
    assert 5 * (1 - 1e-9) <= distance <= 25 * (1 + 1e-9)
    assert math.degrees(math.acos(z / distance)) <= 65 + 1e-6
    # The bend keeps the way to which the light is asked to go.
    assert x * (raw[1] + 0.2) == pytest.approx(y * raw[0], abs=1e-6 * distance * (1 + abs(raw[0]) + abs(raw[1])))
    assert x * raw[0] >= 0 and y * (raw[1] + 0.2) >= 0


def test_zeros_are_a_light_above_the_camera() -> None:
    """Near the axis the bend is slight: tan(a) by a series, a - a^3 / (3 limit^2)."""
    (position,) = decode_light(torch.zeros(1, 3, dtype=torch.float64))
    assert float(position.norm()) == pytest.approx(math.sqrt(5 * 25))
    assert float(position[0]) == 0
    limit = math.tan(math.radians(65))
    assert float(position[1] / position[2]) == pytest.approx(0.2 - 0.2**3 / (3 * limit**2), rel=1e-4)


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(1)
    points = 0.5 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    tilted = double([0, 0, 1]) + 0.3 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    albedo = 0.1 + torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    raw_light = 0.2 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    raw_shininess = torch.randn(2, 1, generator=generator, dtype=torch.float64)

    def shine(albedo: Tensor, points: Tensor, normals: Tensor, light: Tensor, shininess: Tensor) -> Tensor:
        return blinn_phong(albedo, points, normals, decode_light(light), decode_shininess(shininess))

    inputs = [albedo, points, normalize(tilted, dim=-1), raw_light, raw_shininess]
    assert (shine(*inputs) > 0).all()  # away from both clamps
    assert torch.autograd.gradcheck(shine, [value.requires_grad_() for value in inputs])


def test_gradients_stay_finite_where_nothing_shines() -> None:
    normals = torch.tensor([[[0.0, 0, -1], [1, 0, 0], [0, 1, 0], [0, 0, 0]]], requires_grad=True)
    light = torch.tensor([[0.0, 0, 10]], requires_grad=True)
    shininess = torch.tensor([[4.0]], requires_grad=True)
    points = torch.zeros(1, 4, 3, requires_grad=True)
    blinn_phong(torch.ones(1, 4, 3), points, normals, light, shininess).sum().backward()
    for value in (normals, light, shininess, points):
        assert value.grad is not None and value.grad.isfinite().all()
