"""Synthetic detail: outside the linear albedo's span, different in everybody, deepened by the right expressions."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datamodules.synthesis.face_places import WAVELENGTHS, FacePlaces
from datamodules.synthesis.facial_detail import DEEPEST, FacialDetail, detail_key
from datamodules.synthesis.skin_marks import paint_skin
from datamodules.synthesis.wrinkles import MILLIMETRE, profile
from renderers.face_models.base import MorphableModel
from renderers.face_models.load import load_face_model
from tests.conf.scenes import small_face_model
from tests.conf.shiny import rebuilt

PEOPLE = range(12)


@cache
def detail(name: str = "default") -> FacialDetail:
    return FacialDetail(model(name), 128)


@cache
def model(name: str) -> MorphableModel:
    return load_face_model("default") if name == "default" else small_face_model()


@cache
def skins(name: str = "default") -> Tensor:
    """(12, 3, R, R)"""
    return torch.stack([detail(name).texture(np.random.default_rng([7, person])) for person in PEOPLE])


def at_vertices(maps: Tensor, name: str = "default") -> Tensor:
    """(B, C, R, R) -> (B, V, C)"""
    return detail(name).chart.sample(maps, model(name).uv.expand(len(maps), -1, -1))


def relief(actions: dict[str, float], seed: int = 0) -> Tensor:
    """(R, R) displacement of one person, decimetres."""
    expression = np.zeros(model("default").expression_size)
    for action, weight in actions.items():
        expression[model("default").expression_names.index(action)] = weight
    return detail().displacement(np.random.default_rng(seed), expression)[0]


def place_of(landmarks: list[int], up: float = 0.0) -> tuple[int, int]:
    """The texel (row, column) near the mean of some landmarks of the default face, `up` decimetres higher."""
    mean = model("default").mean_shape
    target = mean[model("default").landmark_indices[landmarks]].mean(dim=0) + torch.tensor([0.0, up, 0.0])
    nearest = (mean - target)[:, :2].square().sum(dim=1) + (mean[:, 2] < 0)
    u, v = model("default").uv[nearest.argmin()].tolist()
    return int((1 - v) * 128), int(u * 128)


@pytest.mark.parametrize("name", ["default", "bfm2009"])
def test_texture_is_outside_the_albedos_span(name: str) -> None:
    """Least squares of NumPy, coefficients of any size allowed, on what the vertices sample."""
    basis = model(name).albedo_basis.flatten(0, 1).double().numpy()
    for painted in at_vertices(skins(name), name).double().numpy():
        found = np.linalg.lstsq(basis, painted.ravel(), rcond=None)[0]
        left = painted.ravel() - basis @ found
        assert np.square(left).sum() > 0.95 * np.square(painted).sum()


def test_what_is_taken_out_is_a_part_and_not_the_whole() -> None:
    """Spots, edges and mottling of a raw skin survive where its beard's or lipstick's mean goes."""
    places, shares = detail().places, []
    for person in PEOPLE:
        raw = places.to_map(places.skin[:, None] * paint_skin(places, np.random.default_rng([7, person])))
        shares.append(float(skins()[person].square().sum() / raw.square().sum()))
    assert min(shares) > 0.1 and np.median(shares) > 0.3 and max(shares) < 1


def test_texture_is_moderate_and_visible() -> None:
    skin = model("default").regions["skin"]
    strength = at_vertices(skins())[:, skin].square().mean(dim=(1, 2)).sqrt()
    assert float(strength.min()) > 0.008 and float(strength.max()) < 0.08
    assert 0.02 < float(strength.mean()) < 0.05
    assert float(skins().abs().max()) < 0.6


def test_a_seed_is_a_person() -> None:
    again = detail().texture(np.random.default_rng([7, 3]))
    assert torch.equal(again, skins()[3])
    flat = torch.nn.functional.normalize(skins().flatten(1), dim=1)
    likeness = flat @ flat.T - torch.eye(len(PEOPLE))
    assert float(likeness.abs().max()) < 0.6 and float(likeness.abs().mean()) < 0.15
    assert torch.equal(relief({"jawOpen": 0.4}), relief({"jawOpen": 0.4}))
    assert float((relief({}, 1) - relief({}, 2)).abs().max()) > 0.2 * MILLIMETRE


@pytest.mark.parametrize("name", ["default", "bfm2009"])
def test_nothing_is_painted_or_carved_off_the_skin(name: str) -> None:
    decoder, chart = model(name), detail(name).chart
    skin = torch.zeros(decoder.vertex_count, 1)
    skin[decoder.regions["skin"]] = 1
    bare = chart.bake(skin[None])[0, 0] == 0
    carved = detail(name).displacement(np.random.default_rng(0), np.ones(decoder.expression_size))[0]
    assert bare.any() and not skins(name)[:, :, bare].any() and not carved[bare].any()
    assert carved[~bare].any()
    if name == "default":
        eyes = chart.bake(torch.zeros(1, decoder.vertex_count, 1).index_fill(1, decoder.regions["eyes"], 1))[0, 0]
        assert (eyes == 1).sum() > 100 and not carved[eyes == 1].any()


@pytest.mark.parametrize(
    ("action", "landmarks", "up"),
    [
        (["browInnerUp", "browOuterUpLeft", "browOuterUpRight"], [19, 24], 0.2),
        (["browDownLeft", "browDownRight"], [21, 22], 0.0),
        (["mouthSmileLeft", "mouthSmileRight"], [35, 54], 0.0),
        (["mouthFrownLeft"], [54], -0.12),
        (["mouthShrugLower"], [57], -0.08),
        (["eyeSquintLeft"], [45], 0.0),
    ],
)
def test_lines_deepen_with_their_action_and_where_they_belong(
    action: list[str], landmarks: list[int], up: float
) -> None:
    steps = [relief(dict.fromkeys(action, weight)) for weight in (0.0, 0.3, 0.6, 1.0)]
    change = [(step - steps[0]).abs() for step in steps]
    energy = [float(c.sum()) for c in change]
    assert energy[0] == 0 and energy[1] < energy[2] < energy[3]
    assert all((after >= before - 1e-7).all() for before, after in pairwise(change))
    assert float(change[-1].max()) > 0.3 * MILLIMETRE
    row, column = place_of(landmarks, up)
    near = change[-1][max(row - 16, 0) : row + 16, max(column - 16, 0) : column + 16]
    assert float(near.max()) > 0.2 * MILLIMETRE
    assert (change[-1] > 0.05 * MILLIMETRE).float().mean() < 0.35  # the rest of the face stays as it is


def test_an_action_of_one_side_leaves_the_other_alone() -> None:
    change = (relief({"eyeSquintLeft": 1.0}) - relief({})).abs()
    x = detail().chart.bake(model("default").mean_shape[None])[0, 0]
    assert float(change[x > 0].max()) > 0.2 * MILLIMETRE
    assert not change[x < -0.01].any()


def test_actions_that_no_line_follows_change_nothing() -> None:
    assert torch.equal(relief({"eyeLookUpLeft": 1.0, "cheekPuff": 1.0}), relief({}))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), strength=st.floats(0, 4))
def test_displacement_is_bounded_for_any_expression(seed: int, strength: float) -> None:
    generator = np.random.default_rng(seed)
    expression = np.multiply(strength, generator.standard_normal(model("default").expression_size))
    carved = detail().displacement(generator, expression)
    assert carved.isfinite().all() and float(carved.abs().max()) < DEEPEST


def test_nameless_expressions_deepen_every_line_by_their_strength() -> None:
    maker, size = detail("bfm2009"), model("bfm2009").expression_size
    direction = np.asarray(np.random.default_rng(1).standard_normal(size))
    carved = [maker.displacement(np.random.default_rng(0), np.multiply(k, direction)) for k in (0.0, 0.3, 0.9)]
    energy = [float((c - carved[0]).abs().sum()) for c in carved]
    assert energy[0] == 0 < energy[1] < energy[2]
    flipped = maker.displacement(np.random.default_rng(0), np.multiply(-0.9, direction))
    assert torch.equal(flipped, carved[2])


def test_a_line_is_a_groove_with_raised_sides() -> None:
    across = np.linspace(-6, 6, 1201)
    section = profile(across)
    assert section.min() == pytest.approx(-1) and abs(across[section.argmin()]) < 1e-9
    assert 0.1 < section.max() < 0.5 and 2 < abs(across[section.argmax()]) < 3
    np.testing.assert_allclose(section, section[::-1], atol=1e-12)
    assert abs(profile(np.array([4.5]))[0]) < 0.06


@pytest.mark.parametrize("band", WAVELENGTHS)
def test_noise_has_unit_deviation_and_its_wavelength(band: str) -> None:
    places: FacePlaces = detail().places
    fields = places.noises(np.random.default_rng(0), band, 300)
    assert float(fields.var(axis=0).mean()) == pytest.approx(1, abs=0.05)
    assert abs(float(fields.mean())) < 0.1
    # Texels a quarter of a wavelength apart are alike, those half of one apart are not.
    middle = places.points[len(places) // 2]
    distance = np.linalg.norm(places.points - middle, axis=1)
    correlation = (fields.T @ fields[:, len(places) // 2]) / 300
    near, far = WAVELENGTHS[band] / 8, WAVELENGTHS[band] / 2
    assert correlation[distance < near].mean() > 0.7
    assert correlation[(distance > 0.9 * far) & (distance < 1.1 * far)].mean() < 0.25


def test_spots_are_round_and_as_large_as_asked() -> None:
    places = detail().places
    centre = places.points[np.argmin(np.square(places.points - places.mark[33] - [0.35, 0, -0.1]).sum(axis=1))]
    level = np.zeros(len(places))
    painted = places.spots(centre[None], np.array([0.06]), np.array([0.8]), level)
    distance = np.linalg.norm(places.points - centre, axis=1)
    assert (painted[distance < 0.015] == pytest.approx(0.8)) and not painted[distance > 0.06 * 1.71].any()
    half = np.abs(distance - 0.06) < 0.004
    np.testing.assert_allclose(painted[half], 0.4, atol=0.06)
    two = places.spots(np.stack([centre, centre]), np.full(2, 0.06), np.array([0.8, 0.3]), level)
    np.testing.assert_array_equal(two, painted)


def test_scattered_places_lie_where_the_weight_is() -> None:
    places = detail().places
    left = (places.points[:, 0] > 0.05).astype(np.float32)
    drawn = places.scatter(np.random.default_rng(0), 500, left)
    assert drawn.shape == (500, 3) and (drawn[:, 0] > 0).all()


def test_the_key_follows_the_chart_and_the_names() -> None:
    decoder = model("bfm2009")
    uv = decoder.uv.numpy().copy()
    uv[0] += 1e-3
    names = tuple(f"unit{index}" for index in range(decoder.expression_size))
    others = [rebuilt(decoder, uv=uv), rebuilt(decoder, expression_names=names)]
    keys = [str(detail_key(each)) for each in (decoder, *others)]
    assert len(set(keys)) == 3 and keys[0] == str(detail_key(rebuilt(decoder)))
