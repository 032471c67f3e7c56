"""Prepared face models: back to the bit; a damaged, foreign or hostile .npz is refused and nothing in it runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.face_models.load import load_face_model
from renderers.face_models.prepared import load_prepared, save_prepared
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz
from tests.conf.scenes import small_face_model

LAX = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "model.npz"
    save_prepared(small_face_model(), path)
    return path


@pytest.fixture(scope="module")
def arrays(prepared: Path) -> dict[str, np.ndarray]:
    with np.load(prepared, allow_pickle=False) as stored:
        return dict(stored)


def message(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_prepared(path)
    text = str(raised.value)
    assert "\n" not in text and str(path) in text
    return text


@pytest.mark.parametrize("make", [small_face_model, load_default])
def test_comes_back_to_the_bit(tmp_path: Path, make: Any) -> None:
    model: MorphableModel = make()
    save_prepared(model, tmp_path / "new" / "model.npz")
    again = load_face_model(str(tmp_path / "new" / "model.npz"))
    buffers, regions = dict(model.named_buffers()), model.regions
    assert [name for name, _ in again.named_buffers()] == list(buffers)
    assert all(torch.equal(values, buffers[name]) for name, values in again.named_buffers())
    assert list(again.regions) == list(regions)
    assert all(torch.equal(members, regions[name]) for name, members in again.regions.items())
    for field in ("name", "expression_names", "linear_albedo", "has_specular", "identity_size", "expression_size"):
        assert getattr(again, field) == getattr(model, field), field
    assert again.contents() == model.contents()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.npz"]


def test_arguments_of_other_kinds_are_refused(prepared: Path) -> None:
    with pytest.raises(UserError, match="subdivide=1 is for the default"):
        load_face_model(str(prepared), subdivide=1)
    with pytest.raises(UserError, match=r"albedo=x goes with a BFM 2017 or 2019 \.h5 alone"):
        load_face_model(str(prepared), albedo="x")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.npz").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        save_prepared(small_face_model(), tmp_path / "model.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mean_shape", None, "no mean_shape in it"),
        ("fingerprint", None, "no fingerprint in it"),
        ("format", np.array(2), "it is of version 2, this program reads 1"),
        ("format", np.array([1, 1]), "it is of version"),
        ("mean_shape", np.zeros((5, 3), np.float32), "uv has shape (800, 2), expected (5, 2)"),
        ("mean_shape", np.float32(1), "mean_shape holds float32 of shape ()"),
        ("mean_shape", np.zeros((800, 3), np.int32), "mean_shape holds int32"),
        ("mean_albedo", np.full((800, 3), np.nan, np.float32), "values that are not finite"),
        ("faces", np.full((4, 3), 10**6), "faces names a vertex outside 0..799"),
        ("faces", np.zeros((4, 3), np.float32), "faces holds float32"),
        ("landmark_indices", np.zeros(5, np.int64), "landmark_indices has shape (5,), expected (68,)"),
        ("region_skin", None, "it names no `skin` region"),
        ("region_skin", np.array([-1]), "skin names a vertex outside"),
        ("name", np.array(7), "name holds int64"),
        ("expression_names", np.array("a"), "expression_names holds <U1 of shape ()"),
        ("linear_albedo", np.array(1), "linear_albedo holds int64"),
        ("linear_albedo", np.array(True), "its contents are not what was written"),
    ],
)
def test_wrong_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], name: str, value: np.ndarray | None, expected: str
) -> None:
    held: dict[str, Any] = {key: array for key, array in {**arrays, name: value}.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **held)
    text = message(tmp_path / "bad.npz")
    assert expected in text and "prepare it again" in text


def test_one_changed_number_is_noticed(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    moved = arrays["identity_basis"].copy()
    moved[3, 1, 4] += 1e-6
    held: dict[str, Any] = {**arrays, "identity_basis": moved}
    np.savez(tmp_path / "bad.npz", **held)
    assert "its contents are not what was written" in message(tmp_path / "bad.npz")


class Bomb:
    """Pickled code that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trace,)


def test_pickled_arrays_are_refused_unread(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    trace = tmp_path / "trace"
    bomb = np.array([Bomb(trace)], dtype=object)
    held: dict[str, Any] = {**arrays, "extra": bomb}
    np.savez(tmp_path / "bomb.npz", **held)
    assert "pickled objects are never read" in message(tmp_path / "bomb.npz")
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb(trace)))
    assert "it is no .npz file" in message(tmp_path / "plain.npz")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, bomb)
    assert "it is no .npz file" in message(tmp_path / "one.npz")
    assert not trace.exists()


def test_more_is_declared_than_the_file_holds(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", x=np.zeros(10**7))
    assert "it declares more than it holds, or is compressed" in message(tmp_path / "packed.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**20)})
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    assert "declares shape (1099511627776, 1048576) of float64, and holds 0 bytes" in message(tmp_path / "large.npz")


def test_a_place_before_the_files_beginning_is_damage(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", x=np.arange(4.0))
    content = bytearray((tmp_path / "file.npz").read_bytes())
    end = content.rindex(b"PK\x05\x06")  # the end of the directory: its offset is 16 bytes on
    content[end + 16 : end + 20] = (2**31).to_bytes(4, "little")
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(NpzError, match="damaged or cut short"):
        read_npz(tmp_path / "file.npz")


@LAX
@given(data=st.data())
def test_a_damaged_file_is_read_right_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path, wanted = tmp_path / "file.npz", {"x": np.arange(12.0).reshape(3, 4), "name": np.array("face")}
    np.savez(path, **wanted)  # type: ignore[arg-type]
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found = read_npz(path)
    except NpzError as error:
        assert "\n" not in str(error)
    else:  # a checksum covers every array: what changed can only be what is not read
        for name, values in found.items():
            if name in wanted:
                np.testing.assert_array_equal(values, wanted[name])


def test_other_files_are_refused(tmp_path: Path, prepared: Path) -> None:
    assert "no such file" in message(tmp_path / "none.npz")
    whole = prepared.read_bytes()
    for share in (0.0, 0.2, 0.9, 0.9999):
        (tmp_path / "cut.npz").write_bytes(whole[: int(share * len(whole))])
        assert "it is no .npz file, or damaged or cut short" in message(tmp_path / "cut.npz")
