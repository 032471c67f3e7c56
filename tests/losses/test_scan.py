"""Predictions against scans on constructed cases: similarities, known offsets, the cut, invariances, and the budget."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import trimesh
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from losses.metrics.scan import (
    INNER_LANDMARKS,
    NOW_LANDMARKS,
    PredictedFace,
    ScanErrors,
    ScannedFace,
    ScanRule,
    cut_ball,
    landmark_rows,
    now_errors,
    now_region,
    prediction_errors,
)
from losses.metrics.similarity import Similarity
from renderers.io.errors import UserError

PLANE = ScanRule("plane", scale=True, radius=95.0)
RIGID_POINT = ScanRule("point", scale=False)
TIP = np.array([0.0, -5.0, 0.0])  # x and y of the nose's


def head(count: int, half: float = 100.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) millimetres and (F, 3): a face-like height field over a square, its points scattered."""
    generator = np.random.default_rng(seed)
    rim = np.linspace(-half, half, 40)
    edge = np.concatenate([np.stack([rim, np.full(40, side)], 1) for side in (-half, half)])
    flat = np.concatenate([edge, edge[:, ::-1], generator.uniform(-half, half, (count, 2))])
    flat = np.unique(flat, axis=0)
    faces = Delaunay(flat).simplices
    a, b, c = flat[faces[:, 0]], flat[faces[:, 1]], flat[faces[:, 2]]
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    faces[clockwise] = faces[clockwise, ::-1]
    return np.column_stack([flat, height(*flat.T)]), faces.astype(np.int64)


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    nose = 28 * np.exp(-((x / 14) ** 2) - ((y - TIP[1]) / 20) ** 2)
    eyes = 6 * np.exp(-(((np.abs(x) - 32) / 15) ** 2) - ((y - 30) / 10) ** 2)
    return 40 - 0.004 * x**2 - 0.0025 * y**2 + nose - eyes + 3 * np.sin(x / 17 + 0.5) + 2 * np.cos(y / 13)


def landmark_indices(vertices: np.ndarray) -> np.ndarray:
    """(68,): arbitrary but for NoW's seven and the nose tip, which stand where a face has them."""
    places = np.random.default_rng(7).uniform(-60, 60, (68, 2))
    places[30] = TIP[:2]
    places[list(NOW_LANDMARKS)] = [[-45, 30], [-17, 30], [17, 30], [45, 30], [0, -20], [-25, -45], [25, -45]]
    return ((vertices[:, None, :2] - places) ** 2).sum(-1).argmin(axis=0)


def case(count: int = 2500) -> tuple[PredictedFace, ScannedFace]:
    """A face and the scan that it is, with all 68 landmarks."""
    vertices, faces = head(count)
    face = PredictedFace(vertices, faces, landmark_indices(vertices))
    return face, ScannedFace(vertices, faces, face.landmarks)


def with_seven(scan: ScannedFace) -> ScannedFace:
    return replace(scan, landmarks=scan.landmarks[list(NOW_LANDMARKS)])


def moved(face: PredictedFace, angles: tuple[float, float, float], size: float) -> PredictedFace:
    away = Similarity(size, Rotation.from_euler("xyz", angles).as_matrix(), np.array([30.0, -500.0, 70.0]))
    return replace(face, vertices=away.apply(face.vertices))


def offset(face: PredictedFace, millimetres: float) -> PredictedFace:
    """Along the normals of the height field."""
    step = 1e-4
    x, y, _ = face.vertices.T
    slope = [(height(x + step * u, y + step * v) - height(x, y)) / step for u, v in ((1, 0), (0, 1))]
    normals = np.stack([-slope[0], -slope[1], np.ones_like(x)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return replace(face, vertices=face.vertices + millimetres * normals)


@pytest.mark.parametrize("angles, size", [((0.0, 0.0, 0.0), 1.0), ((2.0, -0.7, 1.1), 0.01), ((0.1, 3.0, -2.0), 40.0)])
def test_a_mesh_against_itself_moved_by_a_similarity_is_0(angles: tuple[float, float, float], size: float) -> None:
    face, scan = case()
    away = moved(face, angles, size)
    assert now_errors(away, with_seven(scan)).distances.max() < 1e-6
    for rule in (PLANE, RIGID_POINT):
        found = prediction_errors(away, scan, rule)
        assert found.distances.max() < 1e-6
        np.testing.assert_allclose(found.placed.apply(away.vertices), face.vertices, atol=1e-6)


def test_landmarks_that_are_off_do_not_spoil_the_registration() -> None:
    """The registration starts millimetres away, and still ends where the two are the same."""
    face, scan = case()
    rough = replace(scan, landmarks=scan.landmarks + np.random.default_rng(0).normal(0, 3, scan.landmarks.shape))
    assert now_errors(face, with_seven(rough)).distances.max() < 1e-6
    assert prediction_errors(moved(face, (0.4, 1.0, -0.3), 1.7), rough, PLANE).distances.max() < 1e-6


def test_a_prediction_1_mm_under_the_scan_is_1_mm_through_the_whole_protocol() -> None:
    """Of concentric spheres: no rigid motion can bring all of one nearer to the other."""
    sphere = trimesh.creation.icosphere(subdivisions=5)
    places = head(200)[0]
    nearest = [int(((sphere.vertices - place / np.linalg.norm(place)) ** 2).sum(1).argmin()) for place in places[:68]]
    inner = PredictedFace(80 * np.asarray(sphere.vertices), np.asarray(sphere.faces), np.array(nearest))
    outer = ScannedFace(81 * inner.vertices / 80, inner.faces, inner.landmarks)
    for distance in ("plane", "point"):
        found = prediction_errors(inner, outer, ScanRule(distance, scale=False))
        # Between its corners the outer sphere's triangles lie a little deeper.
        assert len(found.distances) == len(inner.vertices)
        assert found.distances.min() > 0.96 and found.mean > 0.98 and found.distances.max() < 1.0 + 1e-3
    # A scale takes it away, as it takes away the size of whoever is reconstructed.
    assert prediction_errors(inner, outer, ScanRule("plane", scale=True)).mean < 0.02


@pytest.mark.parametrize("millimetres", [1.0, -1.0, 0.25])
def test_a_mesh_offset_along_its_normals_is_that_far(millimetres: float) -> None:
    from losses.metrics.registration import residuals
    from losses.metrics.surface import TriangleMesh

    face, scan = case(20_000)
    surface = TriangleMesh(scan.vertices, scan.faces)
    inside = np.abs(face.vertices[:, :2]).max(axis=1) < 95
    points = offset(face, millimetres).vertices[inside]
    for kind in ("plane", "point"):
        distances = residuals(points, surface.nearest(points), kind)[0]
        expected = millimetres if kind == "plane" else abs(millimetres)
        # The triangles' planes differ from the smooth surface's by their size squared.
        assert np.median(distances) == pytest.approx(expected, abs=2e-3)
        assert np.abs(distances - expected).mean() < 0.02


def test_the_region_of_now_has_the_stated_centre_and_radius() -> None:
    landmarks = np.array(
        [[-45, 30, 0], [-15, 30, 0], [15, 30, 0], [45, 30, 0], [0, -20, 0], [-20, -50, 0], [20, -50, 0]]
    )
    centre, radius = now_region(landmarks.astype(float))
    np.testing.assert_allclose(centre, [0, -20 + 0.3 * 50, 0])
    assert radius == pytest.approx(1.4 * (90 + 50) / 2)
    face, scan = case()
    seven = with_seven(scan)
    centre, radius = now_region(seven.landmarks)
    inside = np.linalg.norm(scan.vertices - centre, axis=1) <= radius
    assert 100 < inside.sum() < len(inside)
    assert len(now_errors(face, seven).distances) == inside.sum()


def test_the_cut_region_has_the_stated_radius() -> None:
    vertices, faces = head(3000)
    centre = np.array([5.0, -3.0, 60.0])
    kept, triangles = cut_ball(vertices, faces, centre, 70.0)
    distance = np.linalg.norm(vertices - centre, axis=1)
    np.testing.assert_array_equal(kept, vertices[distance <= 70])
    assert 69 < np.linalg.norm(kept - centre, axis=1).max() <= 70
    # The same triangles, of the vertices that stayed.
    whole = vertices[faces[(distance[faces] <= 70).all(axis=1)]]
    np.testing.assert_array_equal(kept[triangles], whole)


def test_only_vertices_over_the_cut_scan_are_measured() -> None:
    """What lies beyond the ball may be anything; what lies inside it shows."""
    face, scan = case()
    tip = scan.landmarks[30]
    far = np.linalg.norm(scan.vertices - tip, axis=1)
    assert (far > 105).sum() > 100
    rubbish = tip + (scan.vertices - tip) * np.where(far > 100, 1.5, 1.0)[:, None]
    assert prediction_errors(face, replace(scan, vertices=rubbish), PLANE).distances.max() < 1e-6
    expected = int((far <= 95).sum())
    assert 0.85 * expected < len(prediction_errors(face, scan, PLANE).distances) <= expected
    assert prediction_errors(face, replace(scan, vertices=rubbish), replace(PLANE, radius=None)).mean > 0.5


def test_hidden_vertices_count_for_nothing() -> None:
    """Such as a mouth's bag behind the lips, which no scan has."""
    face, scan = case()
    inside = np.linalg.norm(face.vertices - scan.landmarks[37], axis=1) < 25
    deep = replace(face, vertices=face.vertices - np.where(inside, 15.0, 0.0)[:, None] * [0, 0, 1])
    deep = replace(deep, vertices=np.where(np.isin(np.arange(len(inside)), face.landmark_indices)[:, None],
                                           face.vertices, deep.vertices))  # fmt: skip
    assert inside.sum() > 20 and prediction_errors(deep, scan, PLANE).rmse > 0.5
    shown = prediction_errors(replace(deep, hidden=np.flatnonzero(inside)), scan, PLANE)
    assert shown.distances.max() < 1e-6


def bumpy(face: PredictedFace) -> PredictedFace:
    rough = np.random.default_rng(5).normal(0, 1.0, face.vertices.shape)
    return replace(face, vertices=face.vertices + rough)


MEASURES = (
    lambda face, scan: now_errors(face, with_seven(scan)),
    lambda face, scan: prediction_errors(face, scan, PLANE),
    lambda face, scan: prediction_errors(face, scan, RIGID_POINT),
)


@cache
def standing() -> list[ScanErrors]:
    face, scan = case(400)
    return [measure(bumpy(face), scan) for measure in MEASURES]


@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.floats(0.05, 20),
    st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_neither_the_poses_nor_the_predictions_size_matter(
    angles: tuple[float, float, float], size: float, scan_angles: tuple[float, float, float]
) -> None:
    face, scan = case(400)
    face = bumpy(face)
    turn = Rotation.from_euler("xyz", scan_angles).as_matrix()
    turned = ScannedFace(scan.vertices @ turn.T + 9, scan.faces, scan.landmarks @ turn.T + 9)
    for measure, expected in zip(MEASURES, standing(), strict=True):
        # Rounding decides ties, and so which of the nearly equal ends a registration comes to.
        found = measure(moved(face, angles, size), turned)
        assert expected.mean > 0.1
        np.testing.assert_allclose(
            (found.mean, found.rmse, found.median), (expected.mean, expected.rmse, expected.median), rtol=2e-2
        )


def test_the_order_of_vertices_and_faces_does_not_matter() -> None:
    face, scan = case(900)
    face = bumpy(face)
    order = np.random.default_rng(0).permutation(len(face.vertices))
    rank = np.argsort(order)
    shuffled = PredictedFace(face.vertices[order], rank[face.faces][::-1], rank[face.landmark_indices])
    scrambled = ScannedFace(scan.vertices[order], rank[scan.faces][::-1], scan.landmarks)
    assert now_errors(shuffled, with_seven(scrambled)).rmse == pytest.approx(
        now_errors(face, with_seven(scan)).rmse, rel=1e-2
    )
    assert prediction_errors(shuffled, scrambled, PLANE).rmse == pytest.approx(
        prediction_errors(face, scan, PLANE).rmse, rel=1e-2
    )


def test_a_scan_in_another_size_is_measured_in_its_own() -> None:
    face, scan = case(900)
    face = bumpy(face)
    large = ScannedFace(1.1 * scan.vertices, scan.faces, 1.1 * scan.landmarks)
    ratio = now_errors(face, with_seven(large)).mean / now_errors(face, with_seven(scan)).mean
    assert ratio == pytest.approx(1.1, rel=2e-3)


def test_landmarks_are_known_by_their_number() -> None:
    assert [landmark_rows(count) for count in (7, 51)] == [NOW_LANDMARKS, INNER_LANDMARKS]
    assert landmark_rows(68) == tuple(range(68)) and INNER_LANDMARKS[0] == 17
    face, scan = case(900)
    with pytest.raises(UserError, match="83 landmarks"):
        landmark_rows(83)
    # From seven, the nose tip is where the aligned prediction has its.
    seven = prediction_errors(face, with_seven(scan), PLANE)
    assert len(seven.distances) == len(prediction_errors(face, scan, PLANE).distances)


def test_what_cannot_be_measured_is_one_line() -> None:
    face, scan = case(900)
    metres = replace(with_seven(scan), landmarks=with_seven(scan).landmarks / 1000)
    with pytest.raises(UserError, match="millimetres"):
        now_errors(face, metres)
    with pytest.raises(UserError, match="no face with an area"):
        prediction_errors(face, replace(scan, faces=scan.faces[:0]), PLANE)
    with pytest.raises(UserError, match="lie over the scan"):
        prediction_errors(face, replace(scan, landmarks=scan.landmarks + np.array([500, 0, 0])), RIGID_POINT)
    with pytest.raises(UserError, match="the prediction"):
        now_errors(replace(face, vertices=face.vertices * np.nan), with_seven(scan))


def test_a_full_size_prediction_against_a_full_size_scan_takes_under_3_seconds_of_one_core() -> None:
    """36 thousand vertices against 100 thousand, landmarks a few millimetres off."""
    vertices, faces = head(35_550, half=80, seed=1)
    face = bumpy(moved(PredictedFace(vertices, faces, landmark_indices(vertices)), (0.3, 0.2, 0.1), 1.02))
    scan_vertices, scan_faces = head(100_000)
    wrong = np.random.default_rng(1).normal(0, 2, (68, 3))
    scan = ScannedFace(scan_vertices, scan_faces, vertices[landmark_indices(vertices)] + wrong)
    small, small_scan = case(900)
    prediction_errors(small, small_scan, PLANE)  # the kernel is compiled once
    begun = time.process_time()
    found = prediction_errors(face, scan, PLANE)
    spent = time.process_time() - begun
    assert (len(vertices), len(scan_vertices)) > (35_500, 100_000)
    assert 0.3 < found.rmse < 1.1
    assert spent < 3.0, f"{spent:.2f} s"
