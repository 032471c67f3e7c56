"""Landmarks and regions carried over to faces whose own are known, and to surfaces that are no faces."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from renderers.face_models.default.model import load_default
from renderers.face_models.transfer import transfer_from_default
from renderers.io.errors import UserError
from tests.conf.fake_bfm_h5 import NAMED_POINTS, FakeFace, fake_bfm_h5


def surface(fake: FakeFace) -> tuple[np.ndarray, np.ndarray]:
    """Decimetres and (F, 3), as a reader hands them on."""
    return fake.arrays["shape/representer/points"].T / 100.0, fake.arrays["shape/representer/cells"].T


def errors(points: np.ndarray, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(68,) millimetres"""
    return 100 * np.linalg.norm(points[found] - points[truth], axis=1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


@pytest.mark.parametrize(("seed", "subdivide"), [(0, 0), (1, 1)])
def test_finds_the_points_of_another_person_on_another_mesh(seed: int, subdivide: int) -> None:
    fake = fake_bfm_h5(seed, subdivide)
    points, faces = surface(fake)
    found = transfer_from_default("fake", points, faces, load_default())
    assert errors(points, found.landmark_indices, fake.landmarks).max() < 3
    assert errors(points, found.landmark_indices, fake.landmarks).mean() < 0.5
    assert len(set(found.landmark_indices.tolist())) == 68
    assert found.distance < 0.005
    for name, least in {"skin": 0.97, "eyes": 0.95, "inner_mouth": 0.8, "lips": 0.85, "nose": 0.9}.items():
        assert overlap(found.regions[name], fake.regions[name]) > least, name
    assert "boundary" not in found.regions


def test_finds_them_where_no_identity_of_the_default_fits() -> None:
    # A smooth displacement of 1.5 mm in each direction; along the cheeks and the jaw nothing in the surface shows it.
    fake = fake_bfm_h5(4, subdivide=1, identity=1.0, warp=1.5)
    points, faces = surface(fake)
    error = errors(
        points, transfer_from_default("fake", points, faces, load_default()).landmark_indices, fake.landmarks
    )
    assert error.mean() < 3
    assert error[17:].mean() < 2


def test_named_points_hold_the_others_where_nothing_in_the_surface_shows_them() -> None:
    """A mesh without one of the default's vertices, bent by 3 mm in each direction: thirteen points are told."""
    fake = fake_bfm_h5(11, subdivide=1, identity=1.0, warp=3.0, other_mesh=True)
    points, faces = surface(fake)
    named = np.full(68, -1)
    named[list(NAMED_POINTS.values())] = fake.landmarks[list(NAMED_POINTS.values())]
    mean = {}
    for name, known in (("untold", None), ("told", named)):
        found = transfer_from_default("fake", points, faces, load_default(), known).landmark_indices
        error = np.linalg.norm(100 * points[found] - fake.places, axis=1)
        mean[name] = error[17:][named[17:] < 0].mean()
    assert (found[named >= 0] == named[named >= 0]).all()
    assert mean["told"] < 0.75 * mean["untold"], mean


def test_ears_and_neck_take_no_region_but_skin() -> None:
    fake = fake_bfm_h5(2)
    points, faces = surface(fake)
    collar = trimesh.creation.cylinder(radius=0.6, height=0.8)
    neck = collar.vertices @ Rotation.from_euler("x", 90, degrees=True).as_matrix().T
    neck = neck + points.mean(axis=0) + [0, -1.6, -0.8]
    count = len(points)
    both = np.concatenate([points, neck])
    found = transfer_from_default("fake", both, np.concatenate([faces, collar.faces + count]), load_default())
    assert errors(both, found.landmark_indices, fake.landmarks).max() < 3
    added = np.arange(count, len(both))
    assert np.isin(added, found.regions["skin"]).all()
    assert all(members.max() < count for name, members in found.regions.items() if name != "skin")


def test_a_cropped_face_is_fitted_up_to_its_rim() -> None:
    fake = fake_bfm_h5(3)
    points, faces = surface(fake)
    inner = points[fake.landmarks[17:]]
    kept = (np.abs(points - inner.mean(axis=0))[:, :2] < [0.72, 0.85]).all(axis=1)
    rank = np.cumsum(kept) - 1
    cropped = rank[faces[kept[faces].all(axis=1)]]
    found = transfer_from_default("fake", points[kept], cropped, load_default()).landmark_indices
    assert errors(points[kept], found[17:], rank[fake.landmarks[17:]]).max() < 3


def test_known_landmarks_are_kept_and_find_a_face_that_looks_elsewhere() -> None:
    fake = fake_bfm_h5(5)
    points, faces = surface(fake)
    points = points @ Rotation.from_euler("xyz", [50, -70, 20], degrees=True).as_matrix().T
    with pytest.raises(UserError, match=r"fake: .* give `landmarks`"):
        transfer_from_default("fake", points, faces, load_default())
    found = transfer_from_default("fake", points, faces, load_default(), fake.landmarks)
    assert (found.landmark_indices == fake.landmarks).all()
    assert overlap(found.regions["lips"], fake.regions["lips"]) > 0.9
    with pytest.raises(UserError, match="check the `landmarks`"):
        transfer_from_default("fake", points, faces, load_default(), fake.landmarks[::-1])


def test_what_is_no_face_is_refused() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    noise = np.random.default_rng(0).normal(size=(500, 3))
    surfaces = {
        "sphere": (np.array(sphere.vertices), np.array(sphere.faces)),
        "noise": (noise, np.arange(498)[:, None] + np.arange(3)),
    }
    for name, (points, faces) in surfaces.items():
        with pytest.raises(UserError, match=f"{name}: the default face does not fit it") as raised:
            transfer_from_default(name, points, faces, load_default())
        assert "\n" not in str(raised.value)
