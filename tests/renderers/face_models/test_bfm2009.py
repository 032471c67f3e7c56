"""BFM 2009 against what was written into a file of the same layout, and against files that are not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from renderers.face_models.bfm2009 import KEYS, load_bfm2009
from renderers.face_models.load import load_face_model
from renderers.face_models.open_face import cylindrical_uv
from renderers.io.errors import UserError
from tests.conf.fake_bfm import fake_bfm, write_fake_bfm

VERTICES = 800


@pytest.fixture(scope="module")
def content() -> dict[str, np.ndarray]:
    return fake_bfm(seed=3)


def saved(path: Path, content: dict[str, np.ndarray], **changes: object) -> Path:
    scipy.io.savemat(path, {key: value for key, value in {**content, **changes}.items() if value is not None})
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_bfm2009(path)
    text = str(raised.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_decodes_as_the_files_own_arithmetic(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    model = load_bfm2009(saved(tmp_path / "bfm.mat", content))
    rng = np.random.default_rng(0)
    identity, expression, texture = rng.normal(size=(2, 80)), rng.normal(size=(2, 64)), rng.normal(size=(2, 80))
    mean = content["meanshape"].reshape(-1, 3).astype(np.float64)
    offsets = identity @ content["idBase"].T + expression @ content["exBase"].T
    shape = (mean - mean.mean(axis=0)) + offsets.reshape(2, -1, 3)
    albedo = (content["meantex"] + texture @ content["texBase"].T).reshape(2, -1, 3) / 255
    decoded = model.shape(torch.tensor(identity).float(), torch.tensor(expression).float())
    np.testing.assert_allclose(decoded.numpy(), shape, atol=2e-6)
    np.testing.assert_allclose(model.albedo(torch.tensor(texture).float()).numpy(), albedo, atol=2e-6)
    assert model.mean_shape.mean(dim=0).abs().max() < 1e-6
    assert model.layout().length == 257
    assert model.name == "bfm2009"


def test_indices_count_from_zero(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    model = load_bfm2009(saved(tmp_path / "bfm.mat", content))
    assert (model.faces.numpy() == content["tri"] - 1).all()
    assert (model.landmark_indices.numpy() == content["keypoints"][0] - 1).all()
    assert (model.regions["skin"].numpy() == np.flatnonzero(content["skinmask"])).all()
    assert (model.regions["front"].numpy() == content["frontmask2_idx"][:, 0] - 1).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_faces_are_turned_towards_the_viewer(tmp_path: Path, content: dict[str, np.ndarray], reverse: bool) -> None:
    faces = content["tri"][:, ::-1] if reverse else content["tri"]
    model = load_bfm2009(saved(tmp_path / "bfm.mat", content, tri=faces))
    assert (model.normals(model.mean_shape[None])[..., 2] > 0).all()


def test_columns_are_read_as_rows(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    columns = {key: content[key].T for key in ("meanshape", "meantex", "keypoints", "skinmask", "frontmask2_idx")}
    one = load_bfm2009(saved(tmp_path / "rows.mat", content))
    other = load_bfm2009(saved(tmp_path / "columns.mat", {**content, **columns}))
    assert one.fingerprint() == other.fingerprint()
    assert torch.equal(one.landmark_indices, other.landmark_indices)


def test_full_size_has_the_licensed_files_counts(tmp_path: Path) -> None:
    model = load_face_model(str(write_fake_bfm(tmp_path / "BFM_model_front.mat", full_size=True)))
    assert model.vertex_count == 35_709
    assert model.faces.shape == (70_789, 3)
    assert len(model.regions["front"]) == 27_660
    assert len(set(model.landmark_indices.tolist())) == 68
    assert model.shape(torch.zeros(2, 80), torch.zeros(2, 64)).shape == (2, 35_709, 3)


def test_unwrap_of_a_cylinder_round_its_axis_is_a_regular_grid() -> None:
    # Of a cylinder of radius 2 whose front spans +-45 degrees, the axis is half the width behind the rearmost vertex.
    angle, height = np.meshgrid(np.linspace(-np.pi / 4, np.pi / 4, 9), np.linspace(-1, 1, 5))
    cylinder = np.stack([2 * np.sin(angle), height, 2 * np.cos(angle)], axis=-1).reshape(-1, 3)
    expected = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 5)), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(cylindrical_uv(cylinder + np.array([0.5, 3, -7])), expected, atol=1e-12)


def test_uv_folds_no_face_over(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    model = load_bfm2009(saved(tmp_path / "bfm.mat", content))
    a, b, c = (model.uv[model.faces[:, corner]] for corner in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).all()
    assert model.uv.min() == 0
    assert model.uv.max() == 1


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(tmp_path: Path, content: dict[str, np.ndarray], key: str) -> None:
    text = message(saved(tmp_path / "bfm.mat", content, **{key: None}))
    assert f"no {key} in it" in text
    assert "found" in text
    assert "tri_mask2" in text


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        ("meanshape", (1, 3 * VERTICES - 1), "(1, 3V)"),
        ("meanshape", (3, VERTICES), "(1, any)"),
        ("idBase", (3 * VERTICES - 3, 80), f"({3 * VERTICES}, any)"),
        ("exBase", (64, 3 * VERTICES), f"({3 * VERTICES}, any)"),
        ("exBase", (3 * VERTICES, 0), f"({3 * VERTICES}, any)"),
        ("meantex", (1, 3 * VERTICES + 3), f"(1, {3 * VERTICES})"),
        ("texBase", (VERTICES, 80), f"({3 * VERTICES}, any)"),
        ("tri", (12, 4), "(any, 3)"),
        ("keypoints", (1, 51), "(1, 68)"),
        ("skinmask", (1, VERTICES - 1), f"(1, {VERTICES})"),
        ("frontmask2_idx", (4, 4), "(1, any)"),
    ],
)
def test_a_wrong_size_is_named_with_both_shapes(
    tmp_path: Path, content: dict[str, np.ndarray], key: str, shape: tuple[int, int], expected: str
) -> None:
    text = message(saved(tmp_path / "bfm.mat", content, **{key: np.ones(shape)}))
    assert f"{key} has shape {shape}, expected {expected}" in text


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tri", np.array([[0, 1, 2]]), "tri holds 0 to 2, expected whole numbers from 1 to 800"),
        ("tri", np.array([[1, 2, VERTICES + 1]]), "tri holds 1 to 801"),
        ("keypoints", np.full((1, 68), 1.5), "keypoints holds 1.5 to 1.5, expected whole numbers"),
        ("skinmask", np.zeros((1, VERTICES)), "skinmask marks no vertex"),
        ("meanshape", np.ones((1, 3 * VERTICES)), "its mean face is 0 high, expected 80 to 600 millimetres"),
        ("meantex", np.full((1, 3 * VERTICES), np.nan), "meantex holds values that are not finite"),
        ("idBase", "a text", "idBase holds char, expected numbers"),
        ("texBase", np.array([[1, "cell"]], dtype=object), "texBase holds cell, expected numbers"),
    ],
)
def test_wrong_values_are_named(
    tmp_path: Path, content: dict[str, np.ndarray], key: str, value: object, expected: str
) -> None:
    assert expected in message(saved(tmp_path / "bfm.mat", content, **{key: value}))


def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    whole = saved(tmp_path / "whole.mat", content).read_bytes()
    cut = tmp_path / "cut.mat"
    for share in (0.0, 1e-5, 1e-4, 0.01, 0.3, 0.6, 0.9, 0.999):
        cut.write_bytes(whole[: int(share * len(whole))])
        assert "not a BFM 2009 model" in message(cut)


def test_other_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "bfm.mat"
    foreign.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    assert "not a MATLAB file" in message(foreign)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    foreign.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n".ljust(512, b"\0"))
    assert "MATLAB 7.3 (HDF5)" in message(foreign)
    assert "no such file" in message(tmp_path / "none.mat")
    assert "no such file" in message(tmp_path)


class TestLoadFaceModel:
    def test_reads_a_mat_file(self, tmp_path: Path) -> None:
        assert load_face_model(str(write_fake_bfm(tmp_path / "BFM.MAT"))).name == "bfm2009"

    def test_says_what_is_accepted(self, tmp_path: Path) -> None:
        mesh = tmp_path / "face.obj"
        mesh.touch()
        for spec in (str(mesh), str(tmp_path), "defualt"):
            with pytest.raises(UserError, match=r'expected "default" .* BFM_model_front\.mat .* 2019 \.h5') as raised:
                load_face_model(spec)
            assert spec in str(raised.value)

    def test_refuses_to_subdivide_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="subdivide=1 is for the default"):
            load_face_model(str(write_fake_bfm(tmp_path / "bfm.mat")), subdivide=1)

    def test_default_is_the_embedded_model(self) -> None:
        from renderers.face_models.default.model import load_default

        assert load_face_model("default").fingerprint() == load_default(0).fingerprint()
