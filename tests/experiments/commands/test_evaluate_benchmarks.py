"""The benchmarks' suites on tiny copies of their data whose answers are known: the scans are the mean face itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import trimesh
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from datamodules.preparation.landmarks import DlibDetector
from experiments.commands.evaluate import aflw2000, bu3dfe, facescape, frgc, micc, now
from experiments.commands.evaluate.predictions import Predictor
from experiments.commands.evaluate.results import EVERYONE, Evaluation, Request
from experiments.commands.evaluate.scan_landmarks import find_scan_landmarks
from experiments.training.checkpoint import CONFIG_KEY
from lightning_modules.components.backbones import ResNet
from lightning_modules.mgcnet import MGCNet
from losses.metrics.scan import INNER_LANDMARKS, NOW_LANDMARKS, ScanErrors
from losses.metrics.similarity import Similarity
from renderers.camera import default_intrinsics, project
from renderers.face_models.default.model import load_default
from renderers.io.errors import UserError
from renderers.raster import rasterize
from tests.conf import fake_datasets
from tests.conf.parts import SmallEncoder
from tests.experiments.test_main import complaint

SIZE = 48
TURN = Rotation.from_euler("xyz", (4, -6, 3), degrees=True).as_matrix()
SHIFT = np.array([12.0, -30.0, 900.0])


@cache
def network() -> MGCNet:
    """An untrained one: its last layer is zero, so that it answers the mean face to everything."""
    torch.manual_seed(0)
    return MGCNet(load_default(), ResNet(18), SmallEncoder(), SIZE)


@cache
def mean_face() -> trimesh.Trimesh:
    """The mean face in millimetres, turned and shifted as a scanner would have it."""
    model = load_default()
    return trimesh.Trimesh(100 * model.mean_shape.double().numpy() @ TURN.T + SHIFT, model.faces.numpy(), process=False)


def scanned_face() -> trimesh.Trimesh:
    """The same as a scanner sees it: without the inside of the mouth."""
    face = mean_face().copy()
    face.update_faces(~np.isin(face.faces, load_default().regions["inner_mouth"].numpy()).any(axis=1))
    return face


def landmarks() -> np.ndarray:
    """(68, 3) its own."""
    return np.asarray(mean_face().vertices)[load_default().landmark_indices.numpy()]


def range_image() -> list[str]:
    """The mean face as a range image of 1 mm a pixel."""
    face = mean_face()
    low = face.vertices.min(axis=0) - 3
    columns, rows = (int(side) for side in np.ceil(np.ptp(face.vertices[:, :2], axis=0) + 6))
    places = np.stack([face.vertices[:, 0] - low[0], rows - (face.vertices[:, 1] - low[1])], axis=1)
    depth = 50_000 - face.vertices[:, 2:]
    vertices = torch.from_numpy(np.hstack([places, depth])).float()[None]
    fragments = rasterize(vertices, torch.from_numpy(np.asarray(face.faces)), (rows, columns))
    corners = np.asarray(face.vertices)[face.faces[fragments.pix_to_face[0].numpy().clip(0)]]
    points = np.einsum("hwk,hwkc->hwc", fragments.barycentric[0].double().numpy(), corners)
    seen = fragments.mask[0].numpy()
    planes = [np.where(seen, points[..., axis], -999999.0) for axis in range(3)]
    lines = [" ".join(f"{value:.6f}" for value in plane.ravel()) for plane in planes]
    flags = " ".join(map(str, seen.astype(int).ravel()))
    return [f"{rows} rows", f"{columns} columns", "pixels (flag X Y Z):", flags, *lines]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data sets with scans, each in its owner's layout; every scan is the mean face."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_datasets, "head_scan", scanned_face)
        patch.setattr(fake_datasets, "range_image_lines", range_image)
        for name in ("micc", "facescape", "bu3dfe", "frgc", "now"):
            fake_datasets.WRITERS[name](root / name)
    for path in (root / "now").rglob("*.pp"):
        fake_datasets.save_text(path, *fake_datasets.picked_points_lines(landmarks()[list(NOW_LANDMARKS)]))
    yield root


def ask(data: Path | None, **changes: Any) -> Request:
    return replace(Request(Path("alone.ckpt"), data, EVERYONE, seed=0, batch_size=2), **changes)


def silent(line: str) -> None:
    """For suites that have nothing to tell."""
    raise AssertionError(f"told {line!r}")


def printed(suite: Any, evaluation: Evaluation) -> str:
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(suite.table(evaluation))
    return capture.get()


@pytest.mark.parametrize(
    "suite, counts, worst",
    [
        (micc, {"cooperative": 2, "indoor": 1, "outdoor": 1}, 0.05),
        (facescape, {"neutral": 1, "grin": 1}, 0.01),
        (bu3dfe, {"all": 2}, 0.01),
        (frgc, {"all": 2}, 1.0),
    ],
)
def test_whoever_predicts_the_scan_makes_no_error(
    copies: Path, suite: Any, counts: dict[str, int], worst: float
) -> None:
    """Landmarks found on the scan start the registration; it ends on the scan, whatever they missed."""
    name = suite.__name__.rpartition(".")[2]
    found = suite.evaluate(network(), ask(copies / name), silent)
    assert found.counts == counts and found.truth == "scans"
    for metrics in found.sets.values():
        assert set(metrics) == {"mean_mm", "rmse_mm", "median_mm"}
        assert max(metrics["rmse_mm"]) < worst
    assert list(found.panels) == ["input", "overlay", "shape"]
    assert all(len(pictures) == 3 for pictures in found.panels.values())
    text = printed(suite, found)
    assert ("ours" in text and "MGCNet, table" in text) or "Specular, table" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_scan_of_another_size_and_shape_shows(copies: Path, tmp_path: Path) -> None:
    fake_datasets.write_micc(tmp_path)
    wide = mean_face().copy()
    wide.vertices[:, 0] = (wide.vertices[:, 0] - SHIFT[0]) * 1.15 + SHIFT[0]
    for path in tmp_path.rglob("*.obj"):
        fake_datasets.save_text(
            path, *(f"v {x} {y} {z}" for x, y, z in wide.vertices), *(f"f {a} {b} {c}" for a, b, c in wide.faces + 1)
        )
    found = micc.evaluate(network(), ask(tmp_path, subjects=1), silent)
    assert found.counts == {"cooperative": 1}
    (rmse,) = found.sets["cooperative"]["rmse_mm"]
    assert 0.5 < rmse < 5
    text = printed(micc, found)
    assert f"{rmse:.2f}"[:3] in text and "1.73 ± 0.48" in text and "1.60 ± 0.55" in text


def test_now_pools_exports_and_draws(copies: Path, tmp_path: Path) -> None:
    told: list[str] = []
    found = now.evaluate(network(), ask(copies / "now", output=tmp_path), told.append)
    assert found.counts == {"multiview neutral": 2, "selfie": 1}
    assert found.names["selfie"] == ["P1/selfie/IMG_2"]
    assert set(found.pooled) == {"all", "multiview neutral", "selfie"}
    for figures in found.pooled.values():
        assert max(figures.values()) < 2e-3 and set(figures) == {"median_mm", "mean_mm", "std_mm"}
    assert len(found.curves) == 3 and found.curves[0].share[-1] == 1 and found.curves[0].values[-1] == 7
    assert any("predictions" in line for line in told)
    # What is handed in: SUBJECT/CHALLENGE/IMAGE.obj without colours, and seven landmarks beside it.
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    stems = ["P1/multiview_neutral/IMG_1", "P1/selfie/IMG_2", "P2/multiview_neutral/IMG_3"]
    assert files == [f"predictions/{stem}.{kind}" for stem in stems for kind in ("obj", "txt")]
    path = tmp_path / "predictions/P1/selfie/IMG_2.obj"
    kinds = {(line.split()[0], len(line.split())) for line in path.read_text().splitlines()}
    assert kinds == {("v", 4), ("f", 4)}
    mesh = trimesh.load(path, process=False)
    model = load_default()
    np.testing.assert_allclose(mesh.vertices, 100 * model.mean_shape.numpy(), atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, model.faces.numpy())
    seven = np.loadtxt(path.with_suffix(".txt"))
    own = 100 * model.mean_shape.numpy()[model.landmark_indices.numpy()[list(NOW_LANDMARKS)]]
    np.testing.assert_allclose(seven, own, atol=1e-4)
    text = printed(now, found)
    for figure in ("ours, selfie", "1.19", "16.80", "EMOCA"):
        assert figure in text


def test_what_cannot_be_measured_is_told_and_written(copies: Path, tmp_path: Path) -> None:
    fake_datasets.write_now(tmp_path)
    (tmp_path / "scans/P2/scan.obj").write_text("v 0 0 0\n")
    photos = tmp_path / "NoW_Dataset/final_release_version/iphone_pictures"
    Image.new("RGB", (64, 64), "gray").save(photos / "P1/selfie/IMG_2.jpg")
    told: list[str] = []
    found = now.evaluate(network(), ask(tmp_path), told.append)
    assert found.counts == {"multiview neutral": 1}
    assert "no face found" in found.left_out["P1/selfie/IMG_2"]
    assert "scan.obj" in found.left_out["P2/multiview_neutral/IMG_3"]
    assert "left out 2" in told[0] and len(told) == 3
    (tmp_path / "scans/P1/scan.obj").write_text("")
    with pytest.raises(UserError, match="nothing could be measured"):
        now.evaluate(network(), ask(tmp_path), told.append)
    with pytest.raises(UserError, match="needs --data"):
        now.evaluate(network(), ask(None), told.append)


def test_no_librarys_own_error_costs_the_other_subjects(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlib and torch answer some pictures with RuntimeErrors, linear algebra some scans with LinAlgErrors."""
    find, asked = Predictor.find, list[Path]()

    def failing(self: Predictor, path: Path) -> Any:
        asked.append(path)
        if len(asked) == 1:
            raise RuntimeError("Unsupported\nimage type")
        return find(self, path)

    def measure(face: Any, scan: Any) -> ScanErrors:
        if len(asked) == 2:
            raise np.linalg.LinAlgError("Singular matrix")
        return ScanErrors(np.ones(3), Similarity(1.0, np.eye(3), np.zeros(3)))

    monkeypatch.setattr(Predictor, "find", failing)
    found = replace(now.BENCHMARK, measure=measure).evaluate(network(), ask(copies / "now"), lambda line: None)
    assert sum(found.counts.values()) == 1
    assert sorted(found.left_out.values()) == [
        "LinAlgError: Singular matrix",
        "none of its 1 photographs shows a face (RuntimeError: Unsupported image type)",
    ]


def test_landmarks_are_found_on_a_scan() -> None:
    found = find_scan_landmarks(np.asarray(mean_face().vertices), np.asarray(mean_face().faces), DlibDetector())
    away = np.linalg.norm(found - landmarks()[list(INNER_LANDMARKS)], axis=1)
    assert found.shape == (51, 3)
    assert np.median(away) < 6 and away.max() < 20
    with pytest.raises(UserError, match="towards"):
        egg = trimesh.creation.icosphere(subdivisions=3)
        find_scan_landmarks(egg.vertices * [75, 100, 90], np.asarray(egg.faces), DlibDetector())


def test_a_predicted_expression_is_taken_away_for_a_neutral_scan() -> None:
    module = MGCNet(load_default(), ResNet(18), SmallEncoder(), SIZE)
    torch.manual_seed(1)
    for parameter in module.regressor.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    predictor = Predictor(module.eval())
    images = torch.rand(3, 3, SIZE, SIZE)
    answer = module.answer(images)
    model = load_default()
    for neutral in (True, False):
        expression = 0 * answer.expression if neutral else answer.expression
        expected = 100 * model.shape(answer.identity, expression).double().mean(dim=0)
        face = predictor.mean_face(images, neutral, batch_size=2)
        np.testing.assert_allclose(face.vertices, expected.detach().numpy(), atol=1e-3)
    np.testing.assert_array_equal(face.landmarks, face.vertices[model.landmark_indices.numpy()])


def write_aflw(root: Path, yaws: tuple[float, ...], beside: float) -> Path:
    """Photographs of 200 pixels whose annotated landmarks are the mean face's, but for the jaw: `beside` px aside."""
    model = load_default()
    corners = model.mean_shape[model.landmark_indices]
    pixels = project(corners[None], default_intrinsics(200)[None])[0, :, :2].double().numpy()
    points = np.column_stack([pixels, -100 * corners[:, 2:].numpy()])
    points[:17, 0] += beside
    for number, yaw in enumerate(yaws):
        path = root / "AFLW2000" / f"image{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        pose = np.array([[0.1, np.radians(yaw), 0, 60, 60, 0, 1e-3]])
        box = np.array([[1, 1, 200, 200]])
        annotation = {"pt3d_68": points.T + np.array([[0.5], [0.5], [0]]), "Pose_Para": pose, "roi": box}
        scipy.io.savemat(path.with_suffix(".mat"), annotation)
    return root


def test_aflw_figures_on_landmarks_with_a_known_error(tmp_path: Path) -> None:
    exact = aflw2000.evaluate(network(), ask(write_aflw(tmp_path / "exact", (5, -40, 75), 0.0)), silent)
    assert exact.counts == {"0 to 30": 1, "30 to 60": 1, "60 to 90": 1}
    assert max(error for metrics in exact.sets.values() for error in metrics["nme"]) < 0.05
    # The jaw's 17 points are 8 pixels aside, so that the mean over 68 is 2.
    root = write_aflw(tmp_path / "beside", (5, -12, 29, -40, 60, 75), 8.0)
    found = aflw2000.evaluate(network(), ask(root), silent)
    assert found.counts == {"0 to 30": 3, "30 to 60": 2, "60 to 90": 1}
    annotation = aflw2000.read_annotation(root / "AFLW2000/image00000.mat")
    box = np.ptp(annotation.landmarks[:, :2], axis=0)
    expected = 100 * 2 / np.sqrt(box.prod())
    for metrics in found.sets.values():
        assert metrics["nme"] == pytest.approx([expected] * len(metrics["nme"]), rel=0.02)
    assert found.pooled == {"mean of the bins": {"nme": pytest.approx(expected, rel=0.02)}}
    text = printed(aflw2000, found)
    assert f"{expected:.2f}" in text and "3.20" in text and "3.43 ± 0.36" in text


def test_the_mouths_error_is_blind_to_the_annotations_frame_and_measures_millimetres() -> None:
    model = load_default()
    corners = model.mean_shape[model.landmark_indices].double()
    flipped = corners.numpy() * [1.0, -1.0, 1.0]
    assert aflw2000.mouth_error(corners, 37 * flipped + [5, 6, 7]) == pytest.approx(0, abs=1e-9)
    moved = corners.clone()
    moved[60:68, 2] += 0.05  # 5 mm of depth
    assert 3 < aflw2000.mouth_error(moved, 37 * flipped) < 5.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "mine.ckpt"
    section = {
        "class_path": "lightning_modules.mgcnet.MGCNet",
        "init_args": {
            "face_model": {
                "class_path": "renderers.face_models.load.load_face_model",
                "init_args": {"spec": "default"},
            },
            "backbone": {"class_path": "lightning_modules.components.backbones.ResNet", "init_args": {"depth": 18}},
            "identity_encoder": {"class_path": "tests.conf.parts.SmallEncoder"},
            "image_size": SIZE,
        },
    }
    contents = {"state_dict": network().state_dict(), CONFIG_KEY: yaml.safe_dump(section)}
    network().on_save_checkpoint(contents)
    torch.save(contents, path)
    return path


def test_the_command_writes_what_it_prints(
    copies: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.__main__ import main

    out = tmp_path / "out"
    arguments = ["--checkpoint", str(checkpoint), "--data", str(copies / "now"), "--out", str(out), "--subjects", "2"]
    arguments += ["--trust-classes", "tests.conf"]
    assert main(["evaluate", "--suite", "now", *arguments]) == 0
    shown = capsys.readouterr().out
    names = {"evaluation.json", "evaluation.csv", "evaluation.png", "subjects.csv", "curve.png", "predictions"}
    assert {path.name for path in out.iterdir()} == names
    record = json.loads((out / "evaluation.json").read_text())
    assert record["truth"] == "scans" and record["subjects"] == 1
    assert set(record["sets"]) == {"multiview neutral", "selfie"}
    rows = list(csv.DictReader((out / "evaluation.csv").open()))
    pooled = {(row["set"], row["metric"]): row["mean"] for row in rows if not row["std"]}
    assert float(pooled["all", "median_mm"]) == record["pooled"]["all"]["median_mm"]
    each = list(csv.DictReader((out / "subjects.csv").open()))
    assert [row["subject"] for row in each if row["metric"] == "mean_mm"] == [
        "P1/multiview_neutral/IMG_1",
        "P1/selfie/IMG_2",
    ]
    with Image.open(out / "curve.png") as picture:
        assert picture.size == (720, 480)
    with Image.open(out / "evaluation.png") as picture:
        assert picture.width >= 3 * 96 and picture.height >= 3 * 96
    assert "NoW, 2 photographs" in shown and "Finegrained, table 4" in shown


def test_errors_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suite in ("aflw2000", "now", "micc", "facescape", "bu3dfe", "frgc", "celeba"):
        arguments = ["evaluate", "--suite", suite, "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
        arguments += ["--trust-classes", "tests.conf"]
        assert "needs --data DIR" in complaint(capsys, arguments)
        assert str(tmp_path) in complaint(capsys, [*arguments, "--data", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
