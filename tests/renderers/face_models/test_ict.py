"""ICT-FaceKit's folder against what was written into one of its layout, and against folders that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renderers.face_models.base import MorphableModel
from renderers.face_models.ict import load_ict
from renderers.face_models.load import load_face_model
from renderers.face_models.open_face import cylindrical_uv
from renderers.io.errors import UserError
from tests.conf.fake_ict import EXPRESSIONS, FACE, IDENTITIES, FakeICT, fake_ict, rows, write_fake_ict

NEUTRAL = "generic_neutral_mesh.obj"


@pytest.fixture(scope="module")
def fake() -> FakeICT:
    return fake_ict(seed=1)


@pytest.fixture(scope="module")
def folder(fake: FakeICT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_ict(tmp_path_factory.mktemp("ict") / "FaceXModel", fake)


@pytest.fixture(scope="module")
def model(folder: Path) -> MorphableModel:
    return load_face_model(str(folder))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "FaceXModel"))


def message(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_ict(folder)
    text = str(raised.value)
    assert "\n" not in text and str(folder) in text
    return text


def test_decodes_as_the_files_own_arithmetic(model: MorphableModel, fake: FakeICT) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, IDENTITIES + len(EXPRESSIONS)))
    neutral = fake.vertices[:FACE]
    offsets = sum(weights[:, k, None, None] * mode[:FACE] for k, mode in enumerate(fake.modes.values()))
    identity, expression = torch.tensor(weights).float().split([IDENTITIES, len(EXPRESSIONS)], dim=1)
    decoded = 10 * model.shape(identity, expression).numpy()
    np.testing.assert_allclose(decoded, neutral - neutral.mean(axis=0) + offsets, atol=1e-4)
    assert model.name == "ict-facekit" and model.vertex_count == FACE
    assert model.expression_names == ("browDownLeft", "jawOpen", "mouthSmileRight")


def test_keeps_the_face_area_its_landmarks_and_its_chart(model: MorphableModel, fake: FakeICT) -> None:
    inside = fake.faces[(fake.faces < FACE).all(axis=1)]
    canonical = {tuple(np.roll(face, -face.argmin())) for face in model.faces.numpy()}
    assert canonical == {tuple(np.roll(face, -face.argmin())) for face in inside}
    assert model.landmark_indices.tolist() == fake.landmarks.tolist()
    used = np.unique(inside)
    assert len(used) > 0.98 * FACE
    np.testing.assert_allclose(model.uv.numpy()[used], fake.uv[used], atol=1e-6)


def test_colours_and_regions_come_from_the_default(model: MorphableModel, fake: FakeICT) -> None:
    own = fake.default.mean_albedo.numpy()[fake.order[:FACE]]
    difference = np.abs(model.mean_albedo.numpy() - own).mean()
    assert difference < 0.015 < 0.3 * np.abs(own - own.mean(axis=0)).mean()
    lips = set(model.regions["lips"].tolist())
    rank = np.argsort(fake.order)
    true = {int(vertex) for vertex in rank[fake.default.regions["lips"].numpy()] if vertex < FACE}
    assert len(lips & true) > 0.8 * len(lips | true)
    assert model.has_specular and model.albedo_size == fake.default.albedo_size


def test_a_chart_that_is_cut_gives_way_to_a_cylindrical_one(copy: Path, fake: FakeICT) -> None:
    text = (copy / NEUTRAL).read_text()
    first = text[text.index("f ") :].splitlines()[0]
    vertex = first.split()[1].split("/")[0]
    (copy / NEUTRAL).write_text(text.replace(first, first.replace(f" {vertex}/{vertex} ", f" {vertex}/77 "), 1))
    points = fake.vertices[:FACE]
    np.testing.assert_allclose(load_ict(copy).uv.numpy(), cylindrical_uv(points), atol=1e-5)


def test_an_absent_file_is_named(copy: Path) -> None:
    for name in ("jawOpen.obj", "identity000.obj", NEUTRAL, "vertex_indices.json"):
        (copy / name).rename(copy / "away")
        assert name in message(copy)
        (copy / "away").rename(copy / name)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("expressions", None, "expressions is no list of names"),
        ("expressions", ["../../secret"], "expressions is no list of names made of letters, digits and _"),
        ("expressions", ["/etc/passwd"], "expressions is no list of names"),
        ("expressions", ["jawOpen", 7], "expressions is no list of names"),
        ("expressions", [], "expressions has 0 names"),
        ("expressions", ["jawOpen", "jawOpen"], "expressions has 2 names, expected 1 to 500, each once"),
        ("idx_to_landmark_verts", [1, 2, 3], "does not hold 68 whole numbers from 0 to 9408"),
        ("idx_to_landmark_verts", [9409] * 68, "does not hold 68 whole numbers"),
        ("idx_to_landmark_verts", [True] * 68, "does not hold 68 whole numbers"),
        ("idx_to_landmark_verts", [1.0] * 68, "does not hold 68 whole numbers"),
        ("idx_to_landmark_verts", "text", "does not hold 68 whole numbers"),
    ],
)
def test_wrong_indices_are_named(copy: Path, key: str, value: Any, expected: str) -> None:
    path = copy / "vertex_indices.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert expected in message(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"[" * 10**5, b"null"])
def test_what_is_no_json_object_is_refused(copy: Path, content: bytes) -> None:
    (copy / "vertex_indices.json").write_bytes(content)
    assert "vertex_indices.json: not of ICT-FaceKit" in message(copy)


class TestNeutralMesh:
    def write(self, folder: Path, fake: FakeICT, scale: float = 1.0, count: int | None = None, faces: str = "") -> str:
        polygons = faces or "f 1 2 3\n"
        (folder / NEUTRAL).write_text(rows("v", scale * fake.vertices[:count]) + polygons)
        return message(folder)

    def test_of_fewer_vertices_than_the_face_area(self, copy: Path, fake: FakeICT) -> None:
        assert "it has 9408 vertices, expected 9409 or more" in self.write(copy, fake, count=FACE - 1)

    def test_in_other_units(self, copy: Path, fake: FakeICT) -> None:
        assert "high, expected 80 to 600 millimetres" in self.write(copy, fake, scale=10.0)

    def test_without_a_face_in_the_face_area(self, copy: Path, fake: FakeICT) -> None:
        assert "its face area has no polygon" in self.write(copy, fake, faces=f"f {FACE + 1} {FACE + 2} {FACE + 3}\n")

    def test_that_is_not_manifold(self, copy: Path, fake: FakeICT) -> None:
        fan = "f 1 2 3\nf 2 1 4\nf 1 2 5\n"
        assert "more than two polygons meet along vertices 0 and 1" in self.write(copy, fake, faces=fan)
        assert "do not turn the same way" in self.write(copy, fake, faces="f 1 2 3\nf 1 2 4\n")
        assert "names a vertex twice" in self.write(copy, fake, faces="f 1 2 2\n")

    def test_that_is_malformed(self, copy: Path, fake: FakeICT) -> None:
        assert "a polygon names '99999'" in self.write(copy, fake, faces="f 1 2 99999\n")


def test_a_shape_of_another_mesh_is_named(copy: Path, fake: FakeICT) -> None:
    (copy / "jawOpen.obj").write_text(rows("v", fake.vertices[:-1]))
    count = len(fake.vertices)
    assert f"jawOpen.obj: not of ICT-FaceKit: it has {count - 1} vertices, {NEUTRAL} has {count}" in message(copy)


def test_identities_are_numbered_without_a_gap(copy: Path) -> None:
    (copy / "identity001.obj").rename(copy / "identity002.obj")
    assert "no identity001.obj in it; ICT-FaceKit's are numbered without a gap" in message(copy)
