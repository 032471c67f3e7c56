"""BFM 2009's raw files against the front model composed of them by hand, and against files that are not they."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from renderers.face_models.bfm2009 import RAW_FILES, load_bfm2009, load_bfm2009_folder
from renderers.face_models.load import load_face_model
from renderers.io.errors import UserError
from tests.conf.fake_bfm_raw import EXPRESSION, TRIMMED, WHOLE, compose_front_model, write_fake_bfm_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_bfm_raw(tmp_path_factory.mktemp("bfm") / "raw", seed=2)


@pytest.fixture
def copy(raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(raw, tmp_path / "raw"))


def message(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_bfm2009_folder(folder)
    text = str(raised.value)
    assert "\n" not in text and str(folder) in text
    return text


def changed(folder: Path, file: str, **values: np.ndarray | None) -> None:
    """Replaces variables of a .mat file, or drops them where None."""
    held = {key: value for key, value in scipy.io.loadmat(folder / file).items() if not key.startswith("__")}
    scipy.io.savemat(folder / file, {key: value for key, value in {**held, **values}.items() if value is not None})


def test_equals_the_known_composition_to_the_bit(raw: Path, tmp_path: Path) -> None:
    composed = load_bfm2009(compose_front_model(raw, tmp_path / "BFM_model_front.mat"))
    model = load_face_model(str(raw))
    assert model.layout().length == 257 and model.name == "bfm2009"
    others = dict(composed.named_buffers())
    for name, values in model.named_buffers():
        assert torch.equal(values, others[name]), name
    for name, members in model.regions.items():
        assert torch.equal(members, composed.regions[name]), name


def test_the_trimmed_mesh_with_29_expressions_makes_222_numbers(raw: Path) -> None:
    """80 identity, 29 expression, 80 albedo, 6 pose and 27 illumination numbers; what the front shares is the same."""
    front, model = load_face_model(str(raw)), load_face_model(str(raw), expressions=29, mesh="trimmed")
    assert model.layout().length == 222 == 80 + 29 + 80 + 6 + 27
    assert model.vertex_count == TRIMMED
    kept = torch.as_tensor(scipy.io.loadmat(raw / "BFM_front_idx.mat")["idx"][:, 0].astype(np.int64) - 1)
    assert torch.equal(model.landmark_indices, kept[front.landmark_indices])
    coefficients = [torch.randn(2, count) for count in (80, 29, 80)]
    whole = model.shape(*coefficients[:2])
    torch.testing.assert_close(
        whole[:, kept], front.shape(coefficients[0], torch.nn.functional.pad(coefficients[1], (0, 35)))
    )
    torch.testing.assert_close(model.albedo(coefficients[2])[:, kept], front.albedo(coefficients[2]))
    for name, members in front.regions.items():
        assert set(model.regions[name].tolist()) == set(kept[members].tolist())
    # Vertices beside the front, by the formats' own words.
    trimmed = scipy.io.loadmat(raw / "BFM_exp_idx.mat")["trimIndex"][:, 0] - 1
    raw_mean = scipy.io.loadmat(raw / "01_MorphableModel.mat")["shapeMU"].reshape(-1, 3)[trimmed] / 1e5
    moved = torch.as_tensor(raw_mean) - torch.as_tensor(raw_mean)[kept].mean(dim=0)
    torch.testing.assert_close(model.mean_shape, moved, atol=1e-5, rtol=0)

    def corners(faces: torch.Tensor, names: torch.Tensor) -> set[frozenset[int]]:
        return {frozenset(names[face].tolist()) for face in faces}

    assert corners(model.faces, torch.arange(TRIMMED)) == corners(front.faces, kept)


def test_expressions_and_meshes_that_are_not_there(raw: Path, copy: Path, tmp_path: Path) -> None:
    composed = compose_front_model(raw, tmp_path / "BFM_model_front.mat")
    few = load_face_model(str(composed), expressions=29)
    assert torch.equal(few.expression_basis, load_bfm2009(composed).expression_basis[..., :29])
    for spec, arguments, expected in (
        (composed, {"expressions": 65}, "expressions=65, the file holds 1 to 64"),
        (composed, {"mesh": "trimmed"}, "mesh=trimmed goes with the folder of BFM 2009's raw files alone"),
        (raw, {"expressions": 80}, "expected 80 modes or more"),
        (raw, {"expressions": 0}, "expressions=0, at least 1"),
        ("default", {"expressions": 29}, "expressions=29 goes with BFM 2009 alone"),
    ):
        with pytest.raises(UserError, match=expected):
            load_face_model(str(spec), **arguments)  # type: ignore[arg-type]
    changed(copy, "01_MorphableModel.mat", tl=None)
    with pytest.raises(UserError, match="no tl in it"):
        load_face_model(str(copy), mesh="trimmed")
    assert load_face_model(str(copy)).vertex_count == 800
    changed(copy, "01_MorphableModel.mat", tl=np.array([[1, 2, WHOLE + 1]]))
    with pytest.raises(UserError, match=f"expected whole numbers from 1 to {WHOLE}"):
        load_face_model(str(copy), mesh="trimmed")


@pytest.mark.parametrize("name", RAW_FILES)
def test_an_absent_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    text = message(copy)
    assert f"no {name} in it; BFM 2009 is made of 01_MorphableModel.mat, Exp_Pca.bin" in text


@pytest.mark.parametrize("name", RAW_FILES)
def test_a_file_cut_short_is_named(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    for share in (0.0, 0.3, 0.98):
        (copy / name).write_bytes(whole[: int(share * len(whole))])
        assert name in message(copy)


@pytest.mark.parametrize(
    ("file", "values", "expected"),
    [
        ("01_MorphableModel.mat", {"shapeMU": None}, "no shapeMU in it, expected shapeMU, shapePC"),
        (
            "01_MorphableModel.mat",
            {"shapePC": np.ones((3 * WHOLE, 40))},
            "shapeEV has shape (199, 1), expected (1, 40)",
        ),
        (
            "01_MorphableModel.mat",
            {"texPC": np.ones((7, 199))},
            f"texPC has shape (7, 199), expected ({3 * WHOLE}, any)",
        ),
        ("01_MorphableModel.mat", {"texMU": np.ones((3, 1))}, "texMU has shape (3, 1)"),
        ("01_MorphableModel.mat", {"shapeEV": np.full((199, 1), -1.0)}, "shapeEV holds -1; a deviation is not below 0"),
        ("01_MorphableModel.mat", {"shapeEV": np.full((199, 1), np.inf)}, "shapeEV holds values that are not finite"),
        ("01_MorphableModel.mat", {"shapeMU": np.ones((3 * WHOLE, 1))}, "mean face is 0 high, expected 80 to 600"),
        (
            "BFM_exp_idx.mat",
            {"trimIndex": np.array([[0], [1]])},
            "trimIndex holds 0 to 1, expected whole numbers from 1",
        ),
        ("BFM_exp_idx.mat", {"trimIndex": np.ones((5, 5))}, "trimIndex has shape (5, 5)"),
        ("BFM_front_idx.mat", {"idx": np.array([[TRIMMED + 1]])}, f"expected whole numbers from 1 to {TRIMMED}"),
        ("BFM_front_idx.mat", {"idx": np.empty((0, 0))}, "idx has shape (0, 0)"),
        ("facemodel_info.mat", {"keypoints": None}, "no keypoints in it"),
        (
            "facemodel_info.mat",
            {"tri": np.full((4, 3), 900)},
            "tri holds 900 to 900, expected whole numbers from 1 to 800",
        ),
    ],
)
def test_wrong_contents_are_named(copy: Path, file: str, values: dict[str, np.ndarray | None], expected: str) -> None:
    changed(copy, file, **values)
    assert expected in message(copy)


def test_fewer_modes_than_the_front_model_has(copy: Path) -> None:
    for part in ("shapePC", "shapeEV"):
        held = scipy.io.loadmat(copy / "01_MorphableModel.mat")[part]
        changed(copy, "01_MorphableModel.mat", **{part: held[:, :79] if part == "shapePC" else held[:79]})
    assert "shapePC has 79 modes, expected 80 at least" in message(copy)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("Exp_Pca.bin", lambda held: held + b"\0\0\0\0", f"bytes that declare {EXPRESSION} modes"),
        ("Exp_Pca.bin", lambda held: b"\xff\xff\xff\x7f" + held[4:], "declare 2147483647 modes"),
        ("Exp_Pca.bin", lambda held: b"\xff\xff\xff\xff" + held[4:], "declare -1 modes"),
        ("Exp_Pca.bin", lambda held: held[:-4] + b"\0\0\xc0\x7f", None),  # behind the modes that are read
        ("Exp_Pca.bin", lambda held: held[: 4 + 12 * TRIMMED] + b"\0\0\xc0\x7f" * ((len(held) - 4) // 4 - 3 * TRIMMED),
         "Exp_Pca.bin: not a BFM 2009 model: it holds values that are not finite"),
        ("std_exp.txt", lambda held: held + b"1.0\n", f"it holds {EXPRESSION + 1} values, expected {EXPRESSION}"),
        ("std_exp.txt", lambda held: held.replace(held.split()[3], b"nan"), "expected 79 of 0 or more"),
        ("std_exp.txt", lambda held: b"one two", "it is no list of numbers"),
        ("std_exp.txt", lambda held: b"\xff\xfe" + held, "it is no list of numbers"),
    ],
)  # fmt: skip
def test_wrong_expression_files_are_named(
    copy: Path, file: str, change: Callable[[bytes], bytes], expected: str | None
) -> None:
    (copy / file).write_bytes(change((copy / file).read_bytes()))
    if expected is None:
        assert load_bfm2009_folder(copy).expression_size == 64
    else:
        assert expected in message(copy)


def test_the_raw_model_alone_points_to_its_folder(raw: Path) -> None:
    with pytest.raises(UserError, match=r"found shapeMU, .*give the folder that holds 01_MorphableModel\.mat"):
        load_face_model(str(raw / "01_MorphableModel.mat"))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="no face model in this folder; expected"):
        load_face_model(str(tmp_path))
