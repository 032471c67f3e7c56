"""Blinn-Phong against a sphere by hand and a loop in plain Python, GGX against the integrals that define its parts.

And where regressed numbers may put a light.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from renderers.illumination import sphere_points
from renderers.reflectance import (
    blinn_phong,
    decode_intensity,
    decode_light,
    decode_shininess,
    ggx,
    ggx_distribution,
    smith_visibility,
)

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


@pytest.mark.parametrize("squared", [0.06, 0.25, 1.0])
@pytest.mark.parametrize("degrees", [0, 40, 80])
def test_microfacets_of_ggx_cover_the_surface_from_every_side(squared: float, degrees: float) -> None:
    """Those that an eye sees cover as much of its view as the surface does (Heitz, equation 14).

    Over all microfacets m, G_1 int D(m) max(0, m . e) dm = n . e. A light straight above shadows nothing, so that G is
    the eye's G_1.
    """
    roughness, angle = double([squared]), math.radians(degrees)
    facets = sphere_points(400_000)
    facets = facets[facets[:, 2] > 0]
    area = ggx_distribution(facets[:, 2].square()[None], roughness) * 2 * math.pi / len(facets)
    assert float((area * facets[:, 2]).sum()) == pytest.approx(1, abs=2e-3)
    eye = double([math.sin(angle), 0, math.cos(angle)])
    seen = (area * (facets @ eye[0]).clamp_min(0)).sum()
    cosine = double([math.cos(angle)])
    shadows = 4 * cosine * smith_visibility(torch.ones_like(cosine), cosine, roughness)
    assert float(shadows * seen) == pytest.approx(math.cos(angle), abs=3e-3)


@pytest.mark.parametrize("shininess", [6.0, 32.0])
def test_ggx_is_as_bright_as_blinn_phong_straight_on_and_never_reflects_more_than_it_gets(shininess: float) -> None:
    """The light that leaves towards the eye, from lights all around, is at most what a white surface would get."""
    ahead, lights = double([[0, 0, 1]]), sphere_points(20_000)
    albedo, exponent = torch.full_like(ahead, 0.04), double([shininess])
    facing = ggx(albedo, torch.zeros_like(ahead), ahead, double([0, 0, 8]), exponent)
    torch.testing.assert_close(facing, albedo)
    roughness = 2 / (shininess + 2)
    for degrees in (0, 50, 80):
        angle = math.radians(degrees)
        normal = double([math.sin(angle), 0, math.cos(angle)]).expand(len(lights), 1, 3)
        here = torch.zeros_like(normal)
        strength = ggx(torch.ones_like(here), here, normal, 8 * lights, exponent.expand(len(lights), 1))
        # f (n . l) is the strength over 4 a^2 pi.
        reflected = float(strength[..., 0].mean()) * 4 * math.pi / (4 * math.pi * roughness)
        assert 0.6 < reflected <= 1.001


def test_ggx_by_hand() -> None:
    """One point in scalars, light and eye at different angles; and nothing from behind."""
    normal, light, n = [0.6, 0.0, 0.8], [8.0, 6.0, 5.0], 14.0
    to_light = [value / math.sqrt(125) for value in light]
    half = [to_light[0], to_light[1], to_light[2] + 1]
    length = math.sqrt(sum(value * value for value in half))
    a2 = 2 / (n + 2)
    nl, ne = sum(a * b for a, b in zip(normal, to_light, strict=True)), normal[2]
    nh, lh = (sum(a * b for a, b in zip(one, half, strict=True)) / length for one in (normal, to_light))

    def smith(cosine: float) -> float:
        return (-1 + math.sqrt(1 + a2 * (1 / cosine**2 - 1))) / 2

    d = a2 / (math.pi * (nh * nh * (a2 - 1) + 1) ** 2)
    g = 1 / (1 + smith(nl) + smith(ne))
    f = 0.04 + 0.96 * (1 - lh) ** 5
    expected = 4 * a2 * math.pi * d * f * g / (4 * nl * ne) * nl
    arguments = torch.full((1, 1, 3), 0.04, dtype=torch.float64), torch.zeros(1, 1, 3, dtype=torch.float64)
    shine = ggx(*arguments, double([normal]), double(light), double([n]))
    assert shine.flatten().tolist() == pytest.approx([expected] * 3)
    for behind in ([0.6, 0, -0.8], [-0.6, 0, 0.8]):  # the eye, the light
        assert (ggx(*arguments, double([behind]), double(light), double([n])) == 0).all()


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
