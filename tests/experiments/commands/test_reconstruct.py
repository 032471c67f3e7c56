"""`reconstruct`: what it writes, that it writes whole results or none, and that what it writes agrees with itself.

The face model is a file of random numbers and the photograph scikit-image's astronaut, so the faces are no likenesses.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation
from skimage import data

from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.reconstruct import command, results
from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.output import check_replaceable, marker_text, replacing, write_marker
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.texture import TEXTURE_SIZE, PhotoView, bake_texture
from experiments.fitting.photometric_fitting import FitSettings
from lightning_modules.base import FaceModule
from lightning_modules.finegrained import Finegrained
from lightning_modules.mgcnet import MGCNet
from lightning_modules.specular import Specular
from renderers.camera import euler_to_rotation
from renderers.face_models.base import MorphableModel
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.default.model import load_default
from renderers.face_models.symmetry import mirror_vertices
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.io.errors import UserError
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.parts import SmallEncoder, Told
from tests.conf.shiny import small_shiny_model
from tests.conf.tiny_papers import SmallBackbone

FACE_FILES = {"mesh.obj", "mesh.mtl", "mesh.png", "mesh.ply", "mesh.glb"}
FILES = {*FACE_FILES, "overlay.png", "thumbnail.jpg", "report.html", "reconstruction.json"}
QUICK = FitSettings(photometric_iterations=3, landmark_rounds=3)


def telling(module: FaceModule, value: float = 0.0) -> FaceModule:
    """The module with a regressor that always answers with the mean face, or with one value everywhere."""
    layout = module.regressor.layout
    module.regressor = Told(layout.split(torch.full((1, layout.length), value)))  # type: ignore[assignment]
    return module


def plain(face_model: MorphableModel, value: float = 0.0) -> FaceModule:
    return telling(MGCNet(face_model, SmallBackbone(), SmallEncoder(), 48), value)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_bfm(Path(tmp_path_factory.mktemp("bfm")) / "BFM_model_front.mat")


@pytest.fixture(scope="module")
def face_model(model_file: Path) -> MorphableModel:
    return load_bfm2009(model_file)


@pytest.fixture(scope="module")
def pipeline(face_model: MorphableModel) -> ReconstructionPipeline:
    return ReconstructionPipeline(face_model, detector="dlib", settings=QUICK)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


@pytest.fixture(scope="module")
def single(
    tmp_path_factory: pytest.TempPathFactory, pipeline: ReconstructionPipeline, portrait: np.ndarray
) -> Iterator[Path]:
    out = Path(tmp_path_factory.mktemp("single")) / "out"
    results.reconstruct_photo(Photo("a </script> & co", "portrait.png", portrait), out, pipeline)
    yield out


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_result_is_complete(single: Path, face_model: MorphableModel) -> None:
    assert {entry.name for entry in single.iterdir()} == FILES
    assert list(single.parent.iterdir()) == [single]
    record = read_json(single / "reconstruction.json")
    assert record["face_model"] == {"name": "bfm2009", "fingerprint": face_model.fingerprint()}
    assert record["checkpoint"] is None and record["version"] and record["detector"] == "dlib"
    (face,) = record["faces"]
    sizes = {name: len(values) for name, values in face["coefficients"].items()}
    assert sizes == face_model.layout().sizes
    assert set(face["pose_degrees"]) == {"pitch", "yaw", "roll"}
    assert {"detect", "align", "pose", "landmarks", "photometric", "texture"} <= set(face["seconds"])
    detected, projected = np.array(face["landmarks_detected"]), np.array(face["landmarks_projected"])
    assert detected.shape == projected.shape == (68, 2)
    width, height = np.ptp(detected, axis=0)
    nme = 100 * np.linalg.norm(detected - projected, axis=1).mean() / np.sqrt(width * height)
    assert face["landmark_nme"] == pytest.approx(nme, abs=1e-2)
    assert nme < 5
    left, top, right, bottom = face["box"]
    inside = (detected > [left - 20, top - 20]).all(1) & (detected < [right + 20, bottom + 20]).all(1)
    assert inside.mean() > 0.9


def test_the_camera_alone_projects_the_mesh_onto_the_landmarks(single: Path, portrait: np.ndarray) -> None:
    """As a program would that knows no more than the JSON and the OBJ; and OpenCV from the camera's parts."""
    record = read_json(single / "reconstruction.json")
    (face,) = record["faces"]
    lines = (single / "mesh.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], np.float64)
    points = vertices[face["landmark_vertices"]]
    camera = {name: np.array(value) for name, value in face["camera"].items()}
    seen = np.column_stack([points, np.ones(68)]) @ camera["projection"].T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], face["landmarks_projected"], atol=0.01)
    turn, _ = cv2.Rodrigues(camera["rotation"])
    again, _ = cv2.projectPoints(points, turn, camera["translation"], camera["intrinsics"], None)
    np.testing.assert_allclose(again[:, 0], face["landmarks_projected"], atol=0.01)
    assert camera["focal_length"] == camera["intrinsics"][0, 0] and (seen[:, 2] > 500).all()
    pitch, yaw, roll = face["pose_degrees"].values()
    turned = Rotation.from_euler("xyz", [pitch, yaw, roll], degrees=True).as_matrix()
    np.testing.assert_allclose(camera["rotation"], np.diag([1, -1, -1]) @ turned, atol=1e-4)
    assert "Rz(roll) Ry(yaw) Rx(pitch)" in record["conventions"]["rotation"]
    assert record["smallest_face"] == 40 and record["photo_size"] == [*portrait.shape[1::-1]]


def test_the_camera_in_opengl_and_pytorch3d(single: Path, portrait: np.ndarray) -> None:
    cameras = pytest.importorskip("pytorch3d.renderer.cameras")
    (face,) = read_json(single / "reconstruction.json")["faces"]
    mesh = trimesh.load(single / "mesh.obj", process=False)
    points, target = mesh.vertices[face["landmark_vertices"]], np.array(face["landmarks_projected"])
    height, width = portrait.shape[:2]
    opengl = face["camera"]["opengl"]
    seen = np.column_stack([points, np.ones(68)]) @ np.array(opengl["view"]).T
    assert (seen[:, 2] < -500).all()  # the camera looks along -z
    clip = seen @ np.array(opengl["projection"]).T
    device = clip[:, :3] / clip[:, 3:]
    np.testing.assert_allclose((device[:, 0] + 1) / 2 * width, target[:, 0], atol=0.01)
    np.testing.assert_allclose((1 - device[:, 1]) / 2 * height, target[:, 1], atol=0.01)
    assert (np.abs(device[:, 2]) < 1).all()
    given = {
        name: value if name == "in_ndc" else torch.tensor([value])
        for name, value in face["camera"]["pytorch3d"].items()
    }
    camera = cameras.PerspectiveCameras(**given)
    screen = camera.transform_points_screen(torch.from_numpy(np.asarray(points)).float())
    np.testing.assert_allclose(screen[0, :, :2] if screen.ndim == 3 else screen[:, :2], target, atol=0.02)
    opencv = np.column_stack([points, np.ones(68)]) @ np.array(face["camera"]["opencv"]["extrinsics"])[:3].T
    np.testing.assert_allclose(opencv * [1, -1, -1], seen[:, :3], atol=1e-6)


def test_meshes_are_textured_the_obj_in_millimetres_the_glb_in_metres(single: Path, face_model: MorphableModel) -> None:
    (face,) = read_json(single / "reconstruction.json")["faces"]
    weights = {name: torch.tensor([values]) for name, values in face["coefficients"].items()}
    expected = 100 * face_model.shape(weights["identity"], weights["expression"])[0].numpy()
    assert 100 < np.ptp(expected[:, 1]) < 400
    scene = trimesh.load(single / "mesh.glb")
    (glb,) = scene.geometry.values()
    obj, ply = (trimesh.load(single / f"mesh.{kind}", process=False) for kind in ("obj", "ply"))
    assert 0.1 < scene.extents[1] < 0.4  # glTF's unit is the metre
    neutral = 100 * face_model.shape(weights["identity"], 0 * weights["expression"])[0].numpy()
    for mesh, shape, millimetre in ((glb, neutral, 1e-3), (obj, expected, 1), (ply, expected, 1)):
        np.testing.assert_allclose(mesh.vertices, shape * millimetre, atol=0.05 * millimetre)
        np.testing.assert_array_equal(mesh.faces, face_model.faces.numpy())
    for mesh in (glb, obj):
        np.testing.assert_allclose(mesh.visual.uv, face_model.uv.numpy(), atol=1e-5)
    assert ply.visual.vertex_colors[:, :3].std() > 10
    texture = np.asarray(Image.open(single / "mesh.png"))
    assert texture.shape == (512, 512, 3) and texture.std() > 10
    np.testing.assert_array_equal(np.asarray(glb.visual.material.baseColorTexture.convert("RGB")), texture)
    units = read_json(single / "reconstruction.json")["mesh_units"]
    assert units == {"mesh.glb": "metre", "mesh.obj": "millimetre", "mesh.ply": "millimetre"}


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk, as glTF 2.0 lays them out (section 4.4)."""
    content = path.read_bytes()
    magic, version, length, json_length, json_kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, json_kind) == (b"glTF", 2, len(content), b"JSON")
    binary_length, binary_kind = struct.unpack_from("<I4s", content, 20 + json_length)
    assert binary_kind == b"BIN\0"
    return json.loads(content[20 : 20 + json_length]), content[28 + json_length :][:binary_length]


def test_expressions_are_named_morph_targets(single: Path, face_model: MorphableModel) -> None:
    """Neutral vertices and weighted targets, decoded from the standard's description, are the fitted face."""
    tree, binary = read_glb(single / "mesh.glb")
    accessors, views = tree["accessors"], tree["bufferViews"]

    def view(index: int, kind: str) -> np.ndarray:
        found = views[index]
        return np.frombuffer(binary[found.get("byteOffset", 0) :][: found["byteLength"]], kind)

    def rows(index: int) -> np.ndarray:
        accessor = accessors[index]
        if "bufferView" in accessor:
            return view(accessor["bufferView"], "<f4").reshape(-1, 3)[: accessor["count"]].astype(float)
        values, sparse = np.zeros((accessor["count"], 3)), accessor["sparse"]
        moved = view(sparse["indices"]["bufferView"], "<u4")[: sparse["count"]]
        assert (np.diff(moved.astype(int)) > 0).all()
        values[moved] = view(sparse["values"]["bufferView"], "<f4").reshape(-1, 3)[: sparse["count"]]
        np.testing.assert_allclose(values.min(axis=0), accessor["min"], atol=1e-7)
        np.testing.assert_allclose(values.max(axis=0), accessor["max"], atol=1e-7)
        return values

    (shape,) = tree["meshes"]
    (primitive,) = shape["primitives"]
    (face,) = read_json(single / "reconstruction.json")["faces"]
    count = len(face["coefficients"]["expression"])
    assert shape["extras"]["targetNames"] == [f"expression_{number}" for number in range(1, count + 1)]
    np.testing.assert_allclose(shape["weights"], face["coefficients"]["expression"], atol=1e-6)
    assert np.abs(shape["weights"]).max() > 0.05
    moved = sum(w * rows(target["POSITION"]) for w, target in zip(shape["weights"], primitive["targets"], strict=True))
    posed = rows(primitive["attributes"]["POSITION"]) + moved
    obj = trimesh.load(single / "mesh.obj", process=False)
    np.testing.assert_allclose(1000 * posed, obj.vertices, atol=0.05)
    turned = rows(primitive["attributes"]["NORMAL"]) + rows(primitive["targets"][0]["NORMAL"])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1, atol=1e-3)


def test_overlay_changes_the_face_alone(single: Path, portrait: np.ndarray) -> None:
    overlay = np.asarray(Image.open(single / "overlay.png")).astype(int)
    height, width = portrait.shape[:2]
    assert overlay.shape[0] == height and overlay.shape[1] > 2 * width
    np.testing.assert_array_equal(overlay[:, :width], portrait)
    changed = np.abs(overlay[:, -width:] - portrait).max(axis=2) > 0
    left, top, right, bottom = map(int, read_json(single / "reconstruction.json")["faces"][0]["box"])
    centre = changed[(2 * top + bottom) // 3 : bottom, (3 * left + right) // 4 : (left + 3 * right) // 4]
    assert centre.mean() > 0.95
    assert changed.mean() < 0.5


def test_report_is_self_contained(single: Path) -> None:
    page = (single / "report.html").read_text()
    addresses = set(re.findall(r"https?://[^\s\"'<>`)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page and "{{" not in page.split("<script")[0]
    assert "a &lt;/script&gt; &amp; co" in page and page.count("</script>") == 3
    content = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    (face,) = content["faces"]
    assert set(face["pictures"]) == {"crop", "render", "shape", "albedo"}
    assert all(picture.startswith("data:image/") for picture in face["pictures"].values())
    assert all(face["mesh"][name] for name in ("positions", "uv", "indices", "texture"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_report_runs_in_a_browser(single: Path, tmp_path: Path) -> None:
    flags = "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-sync"
    flags += (
        " --disable-component-update --use-angle=swiftshader --enable-unsafe-swiftshader --virtual-time-budget=3000"
    )
    page = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path}", "--dump-dom", (single / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert re.search(r'<p id="viewer-message"></p>', page)
    assert re.search(r'<canvas id="viewer"[^>]* width="\d{3,}"', page), "the viewer drew nothing"
    assert "Landmark NME" in page and page.count('class="bars"') == 4


def test_all_faces_of_a_photograph(tmp_path: Path, pipeline: ReconstructionPipeline, portrait: np.ndarray) -> None:
    out = tmp_path / "two"
    results.reconstruct_photo(Photo("two", "two.png", np.hstack([portrait, portrait])), out, pipeline)
    assert {e.name for e in out.iterdir()} == {"face_1", "face_2", *(FILES - FACE_FILES)}
    record = read_json(out / "reconstruction.json")
    faces = record["faces"]
    assert [face["number"] for face in faces] == [1, 2] and record["face_count"] == 2
    first, second = (np.mean(face["landmarks_projected"], axis=0)[0] for face in faces)
    assert second - first == pytest.approx(portrait.shape[1], abs=8)
    for number in (1, 2):
        assert {e.name for e in (out / f"face_{number}").iterdir()} == FACE_FILES
    # Ours, folders included: it may be replaced.
    check_replaceable(out)


def test_roll_is_that_of_the_photograph(pipeline: ReconstructionPipeline, portrait: np.ndarray) -> None:
    turned = np.asarray(Image.fromarray(portrait).rotate(20, Image.Resampling.BICUBIC))
    (upright,) = pipeline.reconstruct(Photo("a", "a", portrait))
    (rolled,) = pipeline.reconstruct(Photo("b", "b", turned))
    assert rolled.pose_degrees["roll"] - upright.pose_degrees["roll"] == pytest.approx(20, abs=4)
    assert rolled.pose_degrees["yaw"] == pytest.approx(upright.pose_degrees["yaw"], abs=6)


def test_a_head_that_lies_is_drawn_lying(pipeline: ReconstructionPipeline, portrait: np.ndarray) -> None:
    (upright,) = pipeline.reconstruct(Photo("a", "a", portrait))
    (lying,) = pipeline.reconstruct(Photo("b", "b", np.ascontiguousarray(np.rot90(portrait))))
    assert lying.pose_degrees["roll"] - upright.pose_degrees["roll"] == pytest.approx(90, abs=2)
    back = np.column_stack([portrait.shape[1] - lying.landmarks[:, 1], lying.landmarks[:, 0]])
    np.testing.assert_allclose(back, upright.landmarks, atol=3)
    assert lying.record()["confidence"] == upright.record()["confidence"] == "sure"


def test_doubtful_landmarks_are_told_everywhere(
    tmp_path: Path,
    pipeline: ReconstructionPipeline,
    portrait: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faces = pipeline.detector.detect(portrait)

    class Doubting:
        name, contour = "dlib", True

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            return [replace(face, spread=2.7) for face in faces]

        def smallest_face(self, height: int, width: int) -> float:
            return 40.0

    monkeypatch.setattr(pipeline, "detector", Doubting())
    out = tmp_path / "out"
    results.reconstruct_photo(Photo("a", "a.png", portrait), out, pipeline)
    (record,) = read_json(out / "reconstruction.json")["faces"]
    assert (record["confidence"], record["landmark_spread"]) == ("doubtful", 2.7)
    assert 0 < record["landmark_disagreement"] < 3  # her landmarks themselves are right
    printed = capsys.readouterr().out
    assert "% (doubtful)" in printed and "face 1: its landmarks move by 2.7 %" in printed
    page = (out / "report.html").read_text()
    assert "<b>doubtful</b> landmarks" in page and "its landmarks move by 2.7 %" in page


def test_a_regressors_answer_is_taken_as_it_is(face_model: MorphableModel, portrait: np.ndarray) -> None:
    (face,) = ReconstructionPipeline(face_model, plain(face_model), "dlib", refine=False).reconstruct(
        Photo("a", "a", portrait)
    )
    assert all((value == 0).all() for value in face.coefficients.named().values())
    assert "regress" in face.seconds and "landmarks" not in face.seconds and not face.history
    with pytest.raises(UserError, match="--checkpoint"):
        ReconstructionPipeline(face_model, None, "dlib", refine=False)
    broken = ReconstructionPipeline(face_model, plain(face_model, torch.nan), "dlib", refine=False)
    with pytest.raises(UserError, match="not finite"):
        broken.reconstruct(Photo("a", "a", portrait))


def shiny(zoom: float) -> FaceModule:
    """A module of the specular paper that answers with the mean face, seen with another focal length."""
    module = telling(Specular(small_shiny_model(), SmallBackbone(), SmallEncoder(), 48))
    module.regressor.answer.extra["scale"][:] = math.log(zoom)  # type: ignore[union-attr]
    return module


def test_a_regressed_focal_length_is_kept(portrait: np.ndarray) -> None:
    """Twice the focal length draws the face twice as large about the crop's centre."""

    def points(module: FaceModule) -> tuple[np.ndarray, np.ndarray]:
        pipeline = ReconstructionPipeline(module.face_model, module, "dlib", refine=False)
        pipeline.settings = replace(pipeline.settings, moving_contour=False)
        (face,) = pipeline.reconstruct(Photo("a", "a", portrait))
        return face.alignment.to_crop(face.landmarks), face.rendering.landmarks[0].numpy()

    (plain, drawn), (large, drawn_large) = points(shiny(1.0)), points(shiny(2.0))
    for one, two in ((plain, large), (drawn, drawn_large)):
        assert np.allclose(two - TEXTURE_SIZE / 2, 2 * (one - TEXTURE_SIZE / 2), atol=1e-2)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("kind", ["none", "orthographic", "zoomed"])
def test_landmarks_overlay_and_matrix_are_those_of_one_camera(
    face_model: MorphableModel, portrait: np.ndarray, kind: str, refine: bool
) -> None:
    module = None
    if kind == "orthographic":
        module = telling(
            Finegrained(face_model, SmallBackbone(), SmallEncoder(), 48, chart_size=32, channels=(4, 6, 8))
        )
    elif kind == "zoomed":
        module = shiny(1.3)
    elif not refine:
        pytest.skip("nothing would be left to reconstruct with")
    model = face_model if module is None else module.face_model
    settings = replace(QUICK, moving_contour=False)
    (face,) = ReconstructionPipeline(model, module, "dlib", refine, settings=settings).reconstruct(
        Photo("a", "a", portrait)
    )
    drawn = face.alignment.to_photo(face.rendering.landmarks[0].double().numpy())
    np.testing.assert_allclose(face.landmarks, drawn, atol=2e-3)
    points = model.shape(face.coefficients.identity, face.coefficients.expression)[0, model.landmark_indices].double()
    projected = np.column_stack([points.numpy(), np.ones(68)]) @ face.projection.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], face.landmarks, atol=2e-3)
    if refine:
        assert face.landmark_nme < 5


def _ours(folder: Path, text: str) -> None:
    with replacing(folder) as staging:
        (staging / "mesh.obj").write_text(text)
        write_marker(staging, {})


def test_our_own_result_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    _ours(out, "old")
    _ours(out, "new")
    assert (out / "mesh.obj").read_text() == "new"
    assert list(out.parent.iterdir()) == [out]
    umask = os.umask(0)
    os.umask(umask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_failure_leaves_the_old_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _ours(out, "old")
    for error, expected in ((OSError(errno.ENOSPC, "No space left on device"), UserError), (KeyboardInterrupt(),) * 2):
        kind = expected if isinstance(expected, type) else type(expected)
        with pytest.raises(kind), replacing(out) as staging:
            (staging / "mesh.obj").write_text("half")
            raise error
        assert (out / "mesh.obj").read_text() == "old"
        assert list(tmp_path.iterdir()) == [out]


def _fill_foreign(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def _fill_foreign_marker(out: Path) -> None:
    out.mkdir()
    (out / "index.json").write_text('["some other program"]')


def _fill_added(out: Path) -> None:
    _ours(out, "old")
    (out / "notes.txt").write_text("mine")


def _fill_added_deep(out: Path) -> None:
    _ours(out, "old")
    (out / "face_1" / "mine").mkdir(parents=True)


def _fill_link_inside(out: Path) -> None:
    _ours(out, "old")
    out.with_name("elsewhere").mkdir()
    (out / "face_1").symlink_to(out.with_name("elsewhere"))


def _fill_results_of_a_folder(out: Path) -> None:
    out.mkdir()
    (out / "index.json").write_bytes(marker_text({"photos": {}}))


def _fill_file(out: Path) -> None:
    out.write_text("a file")


def _fill_link(out: Path) -> None:
    out.with_name("elsewhere").mkdir()
    out.symlink_to(out.with_name("elsewhere"))


@pytest.mark.parametrize(
    "fill",
    [
        _fill_foreign, _fill_foreign_marker, _fill_added, _fill_added_deep, _fill_link_inside,
        _fill_results_of_a_folder, _fill_file, _fill_link,
    ],
)  # fmt: skip
def test_what_is_not_ours_is_never_touched(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    fill(out)
    before = sorted((path, path.read_bytes() if path.is_file() else b"") for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="choose another OUT"):
        _ours(out, "new")
    assert before == sorted((path, path.read_bytes() if path.is_file() else b"") for path in tmp_path.rglob("*"))


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        _ours(tmp_path / "file" / "out", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_bad_input_is_one_clear_line(tmp_path: Path, model_file: Path) -> None:
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(noise)
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    out = tmp_path / "out"
    model = ["--face-model", str(model_file), "--out", str(out)]
    for words, expected in (
        ([str(tmp_path / "absent.jpg"), *model], "no such file"),
        ([str(text), *model], "not an image"),
        ([str(noise), *model], "no face found"),
        ([str(noise), *model, "--no-fit"], "--checkpoint"),
        ([str(noise), *model, "--detector", "eyes"], "no landmark detector"),
        ([str(noise), *model, "--checkpoint", str(text)], "checkpoint"),
        ([str(noise), "--out", str(out), "--face-model", str(text)], "face model"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            command.run(_arguments(*words))
        assert "\n" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["noise.png", "text.jpg"]


def test_the_input_is_never_replaced(tmp_path: Path, portrait: np.ndarray, model_file: Path) -> None:
    out = tmp_path / "out"
    with replacing(out) as staging:
        Image.fromarray(portrait).save(staging / "photo.png")
        write_marker(staging, {})
    with pytest.raises(UserError, match="would replace the input"):
        command.run(_arguments(str(out / "photo.png"), "--out", str(out), "--face-model", str(model_file)))
    assert (out / "photo.png").is_file()


def test_the_detectors_usual_error_turns_with_the_head(face_model: MorphableModel, portrait: np.ndarray) -> None:
    pipeline = ReconstructionPipeline(load_default(), None, "dlib", settings=QUICK)
    (face,) = pipeline.reconstruct(Photo("a", "a", portrait))
    assert face.usual_error is not None and np.linalg.norm(face.usual_error, axis=1).mean() > 0.5
    placed: Any = SimpleNamespace(detected=face.detected, aligned=SimpleNamespace(detected=True))
    still = pipeline._usual_error(placed, {"yaw": 30.0, "roll": 0.0})
    turned = pipeline._usual_error(placed, {"yaw": 30.0, "roll": 25.0})
    assert still is not None and turned is not None
    # An offset in the picture, y down, is fixed to a head, y up, which the roll turns.
    roll = euler_to_rotation(torch.tensor([[0.0, 0.0, math.radians(25.0)]]))[0].double().numpy()
    on_head = np.column_stack([still * [1, -1], np.zeros(68)]) @ roll.T
    np.testing.assert_allclose(turned, on_head[:, :2] * [1, -1], atol=1e-3)
    other: Any = SimpleNamespace(detected=face.detected, aligned=SimpleNamespace(detected=False))
    assert pipeline._usual_error(other, face.pose_degrees) is None  # the network's own landmarks
    assert pipeline._usual_error(placed, {"yaw": -55.0, "roll": 0.0}) is None  # nobody measured such heads
    bfm = ReconstructionPipeline(face_model, None, "dlib", settings=QUICK)
    assert bfm._usual_error(placed, face.pose_degrees) is None
    assert face.record()["adapted_landmark_nme"] == pytest.approx(face.adapted_landmark_nme, abs=1e-3)
    assert replace(face, usual_error=None).record()["adapted_landmark_nme"] is None
    # The definition of what is left: a face that is off by just that has no error.
    moved = replace(face, landmarks=face.detected.landmarks - face.usual_error)
    assert moved.adapted_landmark_nme == pytest.approx(0, abs=1e-6)
    assert moved.landmark_nme == pytest.approx(_mean_length(face), rel=1e-6)


def _mean_length(face: ReconstructedFace) -> float:
    """Of the usual error, percent of the box."""
    assert face.usual_error is not None
    return 100 * np.hypot(*face.usual_error.T).mean() / np.sqrt(np.prod(np.ptp(face.detected.landmarks, axis=0)))


def test_the_command_from_end_to_end(
    tmp_path: Path, model_file: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait).save("me.png")
    assert command.run(_arguments("me.png", "--face-model", str(model_file), "--detector", "dlib")) == 0
    out = tmp_path / "runs" / "reconstruct" / "me"
    assert {entry.name for entry in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    assert (
        "landmark NME" in printed
        and "1; none smaller than 40 px" in printed
        and "runs/reconstruct/me/report.html" in printed
    )
    assert read_json(out / "reconstruction.json")["faces"][0]["landmark_nme"] < 3.5


def test_texture_shows_the_photograph_where_it_is_visible(face_model: MorphableModel) -> None:
    size = 128
    coefficients = mean_coefficients(face_model, 1)
    coefficients.angles[0, 1] = 0.5
    rendering = FaceRenderer(face_model, size)(coefficients)
    photo = torch.zeros(3, size, size)
    photo[0], photo[1] = 0.8, torch.linspace(0.1, 0.9, size)
    view = PhotoView(rendering, photo, torch.ones(size, size), torch.ones(8, 8))
    texture = bake_texture(face_model, [view], 256).astype(float) / 255
    places = (face_model.uv.numpy() * [1, -1] + [0, 1]) * 255
    rows, columns = places[:, 1].round().astype(int), places[:, 0].round().astype(int)
    facing = rendering.vertex_normals[0, :, 2].numpy()
    front = facing > 0.8
    expected = 0.1 + 0.8 * rendering.vertices_image[0, :, 0].numpy() / size
    assert np.abs(texture[rows, columns, 1] - expected)[front].mean() < 0.02
    assert np.abs(texture[rows, columns, 0] - 0.8)[front].mean() < 0.02
    # The side that turns away takes the model's colours, shifted to the photograph's: red, and no blue.
    hidden = facing < 0
    assert hidden.sum() > 10
    assert (texture[rows, columns, 0] > texture[rows, columns, 2])[hidden].mean() > 0.9


def test_mirror_vertices_are_nearest_to_the_mirror_image(face_model: MorphableModel) -> None:
    mirror = mirror_vertices(face_model)
    points = face_model.mean_shape * torch.tensor([-1.0, 1.0, 1.0])
    distance = torch.cdist(points, face_model.mean_shape)
    torch.testing.assert_close(distance.gather(1, mirror[:, None])[:, 0], distance.amin(dim=1), atol=1e-4, rtol=0)


def test_a_photograph_file_keeps_its_name(tmp_path: Path, portrait: np.ndarray) -> None:
    Image.fromarray(portrait).save(tmp_path / "me.at.home.png")
    photo = open_photo(tmp_path / "me.at.home.png")
    assert photo.name == "me.at.home"
    np.testing.assert_array_equal(photo.pixels, portrait)
