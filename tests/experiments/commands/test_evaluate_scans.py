"""`evaluate --suite scans` on heads whose shape is known, and what it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from datamodules.datasets.own_scans import read_people, read_points
from experiments.__main__ import main
from experiments.commands.evaluate.bootstrap import median_difference, people_interval, ratio_interval
from experiments.commands.evaluate.error_maps import SCALE, WORST, colors
from experiments.commands.evaluate.scans import pose_error
from experiments.commands.reconstruct import pipeline
from experiments.fitting.photometric_fitting import FitSettings
from losses.metrics.nonrigid import correspondence_rmse, smooth_registration
from losses.metrics.similarity import umeyama
from losses.metrics.surface import TriangleMesh
from renderers.face_models.default.model import load_default
from renderers.io.errors import UserError
from tests.conf.photographed_scans import DISTANCE, FOCAL, turned_scan, write_heads, write_points
from tests.conf.photographed_scans import SIZE as SCAN_SIZE
from tests.experiments.test_main import complaint

QUICK = FitSettings(photometric_iterations=2, landmark_rounds=2, photometric_size=32)


def test_the_suite_measures_shape_pose_and_marked_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "fit_settings", lambda model, contour: QUICK)
    model = load_default()
    write_heads(tmp_path / "people", model, count=1, views=1, size=224)
    write_heads(tmp_path / "others", model, count=1, views=1, size=224)
    alone = (tmp_path / "others/head000").rename(tmp_path / "people/nobody")
    (alone / "scan.obj").unlink()
    write_points(alone / "view0.pts", 60 + 100 * np.random.default_rng(0).random((51, 2)))  # without the jaw's
    out = tmp_path / "out"
    assert main(["evaluate", "--suite", "scans", "--data", str(tmp_path / "people"), "--output", str(out)]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    assert record["checkpoint"] is None
    rows = ("mean face", "fit", "shipped network", "shipped network, fit")
    assert set(record["sets"]) == {*rows, *(f"{row}, no scan" for row in rows)}
    mean = record["sets"]["mean face"]
    # Against the numpy alignment of the mean face and the scan that was written.
    scan = np.asarray(trimesh.load(tmp_path / "people/head000/scan.obj", process=False).vertices)
    average = 100 * model.mean_shape.double().numpy()
    left = umeyama(average, scan).apply(average) - scan
    assert mean["shape_rmse_mm"]["mean"] == pytest.approx(np.sqrt((left**2).sum(axis=1).mean()), rel=1e-3)
    assert 0.5 < mean["median_mm"]["mean"] < 4 and mean["nonrigid_mm"]["mean"] > mean["median_mm"]["mean"]
    assert record["sets"]["fit"]["pose_error_deg"]["mean"] < 12
    assert set(record["sets"]["fit, no scan"]) == {"nme", "seconds"}
    assert record["pooled"]["mean face"]["share_of_mean_face"] == 1
    assert (out / "evaluation.png").is_file()
    assert "Neutral shapes against scans, 1 photographs" in capsys.readouterr().out


def test_a_bent_mesh_finds_the_surface_and_its_own_vertices() -> None:
    mesh = trimesh.creation.icosphere(3, 60.0)
    start, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    # Other axes, other triangles: the surface is the same ellipsoid that the bent sphere has to become.
    target = trimesh.creation.icosphere(4, 60.0)
    target.vertices = Rotation.from_euler("x", 20, degrees=True).apply(target.vertices) * [1.05, 1.0, 0.95]
    found = smooth_registration(start, faces, TriangleMesh(np.asarray(target.vertices), np.asarray(target.faces)))
    radius = (found.vertices / (60 * np.array([1.05, 1.0, 0.95]))) ** 2
    np.testing.assert_allclose(radius.sum(axis=1), 1, atol=0.01)
    assert found.valid.all()
    everywhere = np.ones(len(start), dtype=bool)
    turned = 3 * Rotation.from_euler("y", 50, degrees=True).apply(found.vertices) + 7
    assert correspondence_rmse(turned, found, everywhere) < 1e-9
    assert correspondence_rmse(start, found, everywhere) == pytest.approx(60 * 0.05 * np.sqrt(2 / 3), rel=0.2)


def test_intervals_over_people_are_those_of_their_means() -> None:
    generator = np.random.default_rng(1)
    values = {str(person): list(generator.normal(2.0, 0.5, size=3)) for person in range(200)}
    means = np.array([np.mean(value) for value in values.values()])
    interval = people_interval(values)
    assert interval.mean == pytest.approx(means.mean())
    # The normal approximation holds for 200 people.
    half = 1.96 * means.std() / np.sqrt(200)
    assert (interval.low, interval.high) == (
        pytest.approx(means.mean() - half, abs=0.01),
        pytest.approx(means.mean() + half, abs=0.01),
    )
    halved = {person: [0.5 * value for value in value_list] for person, value_list in values.items()}
    ratio = ratio_interval(halved, values)
    assert [ratio.mean, ratio.low, ratio.high] == pytest.approx([0.5] * 3)


def test_medians_are_compared_face_by_face() -> None:
    generator = np.random.default_rng(2)
    base = generator.normal(0, 5, size=400)
    shifted = median_difference(base + 2, base)  # the faces differ by far more than the two rows
    assert [shifted.mean, shifted.low, shifted.high] == pytest.approx([2.0] * 3)
    gap = median_difference(generator.normal(0, 5, size=400), base)
    # Of independent medians: the deviation of each is sqrt(pi / 2) times a mean's.
    half = 1.96 * 5 * np.sqrt(np.pi / 2 * 2 / 400)
    assert gap.high - gap.low == pytest.approx(2 * half, rel=0.3)


def test_points_of_a_drawn_scan_are_where_a_pinhole_sees_them() -> None:
    nose, turn = np.array([[0.2, -0.3, 0.9]]), np.radians(60)
    _, seen = turned_scan(nose, 60.0)
    x, z = 0.2 * np.cos(turn) + 0.9 * np.sin(turn), 0.9 * np.cos(turn) - 0.2 * np.sin(turn)
    expected = SCAN_SIZE / 2 + FOCAL * np.array([x, 0.3]) / (DISTANCE - z)
    np.testing.assert_allclose(seen[0, 0, :2], expected, rtol=1e-5)


def test_a_models_own_frontal_does_not_count_as_a_pose_error() -> None:
    true = Rotation.from_euler("xyz", (5, 30, -4), degrees=True)
    placed = Rotation.from_euler("xyz", (9, -2, 1), degrees=True)  # the scan stands so in the model's eyes
    pitch, yaw, roll = (true * placed).as_euler("xyz", degrees=True)
    degrees = {"pitch": pitch, "yaw": yaw, "roll": roll}
    assert pose_error(degrees, placed.as_matrix(), (5, 30, -4)) == pytest.approx(0, abs=1e-6)
    assert pose_error(degrees, placed.as_matrix(), (5, 33, -4)) == pytest.approx(3, abs=1e-6)


def test_the_scale_of_an_error_map_ends_at_its_worst() -> None:
    np.testing.assert_allclose(colors(np.array([0.0, WORST, 99.0])), [SCALE[0], SCALE[-1], SCALE[-1]])


@pytest.mark.parametrize(
    "files, said",
    [
        ({}, "is not laid out as people of one's own"),
        ({"a/x.png": ""}, "neither a scan.obj nor a scan.ply"),
        ({"a/x.png": "", "a/scan.obj": "", "a/poses.txt": "y.png 1 2 3"}, "no photograph 'y.png'"),
        ({"a/x.png": "", "a/scan.obj": "", "a/poses.txt": "x.png 1 2 left"}, "PITCH YAW ROLL"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_people(tmp_path)


def test_wrong_points_and_a_missing_checkpoint_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pts"
    points = np.arange(136.0).reshape(68, 2)
    for count in (68, 51):
        write_points(path, points[:count])
        np.testing.assert_allclose(read_points(path), points[:count])
    for text in ("1 2", "{\n1 2\n}", "{\n1 b\n}"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"x\.pts"):
            read_points(path)
    assert "needs --checkpoint" in complaint(capsys, ["evaluate", "--suite", "now", "--data", str(tmp_path)])
    assert "needs --data" in complaint(capsys, ["evaluate", "--suite", "scans"])
