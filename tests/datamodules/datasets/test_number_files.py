"""Files of numbers from strangers: every one is either read as what it says or refused, and none is executed."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datamodules.datasets import number_files
from datamodules.datasets.number_files import read_json, read_mat, read_npy, read_number_rows, read_torch7
from renderers.io.errors import UserError
from tests.conf.fake_datasets import save_torch7

POINTS = np.arange(136.0).reshape(68, 2)


def mat_bytes(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"points": POINTS, "other": np.zeros((2, 3))}, do_compression=compressed)
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, POINTS)
    return buffer.getvalue()


def torch7_bytes(folder: Path) -> bytes:
    return save_torch7(folder / "points.t7", POINTS).read_bytes()


def read_points(path: Path) -> np.ndarray:
    return read_mat(path, {"points": (68, 2)})["points"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbers")


READERS: dict[str, tuple[Callable[[Path], np.ndarray], Callable[[Path], bytes]]] = {
    "plain.mat": (read_points, lambda folder: mat_bytes(False)),
    "packed.mat": (read_points, lambda folder: mat_bytes(True)),
    "array.npy": (read_npy, lambda folder: npy_bytes()),
    "tensor.t7": (read_torch7, torch7_bytes),
}


@pytest.mark.parametrize("name", READERS)
def test_numbers_come_back(files: Path, name: str) -> None:
    read, content = READERS[name]
    (files / name).write_bytes(content(files))
    values = read(files / name)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, POINTS)


def read_or_refused(read: Callable[[Path], np.ndarray], path: Path) -> None:
    try:
        values = read(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert values.dtype == np.float64 and np.isfinite(values).all() and values.nbytes <= 64 * 2**20


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.floats(0, 1), st.binary(min_size=1, max_size=12), st.booleans())
@example("array.npy", 0.046875, bytes(5), False)  # zeros in the header
def test_damaged_files_are_refused_by_name(files: Path, name: str, where: float, damage: bytes, cut: bool) -> None:
    read, make = READERS[name]
    content = make(files)
    place = int(where * (len(content) - 1))
    path = files / f"damaged-{name}"
    path.write_bytes(content[:place] if cut else content[:place] + damage + content[place + len(damage) :])
    read_or_refused(read, path)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.binary(max_size=400))
def test_random_bytes_are_refused_by_name(files: Path, name: str, content: bytes) -> None:
    path = files / f"random-{name}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=path.name):
        READERS[name][0](path)


@pytest.mark.parametrize("name", READERS)
def test_missing_and_huge_files_are_refused(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such file"):
        READERS[name][0](files / "missing" / name)
    path = files / f"large-{name}"
    path.write_bytes(READERS[name][1](files))
    monkeypatch.setattr(number_files, "LARGEST", 100)
    with pytest.raises(UserError, match="an annotation has at most 100"):
        READERS[name][0](path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("packed", [False, True])
def test_pickled_numpy_files_are_refused_unread(tmp_path: Path, packed: bool) -> None:
    trap = np.array([Trap(str(tmp_path / "sprung"))], dtype=object)
    path = tmp_path / "points.npy"
    with path.open("wb") as file:
        if packed:
            np.savez(file, trap)
        else:
            np.save(file, trap, allow_pickle=True)
    with pytest.raises(UserError, match=r"points\.npy"):
        read_npy(path)
    assert not (tmp_path / "sprung").exists()


def test_npy_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)}
    with (tmp_path / "bomb.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UserError, match="more than the file holds"):
        read_npy(tmp_path / "bomb.npy")


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, struct.pack("<i", 3), "type tag 3"),  # a table
        (0, struct.pack("<i", 8), "type tag 8"),  # a function
        (8, struct.pack("<i", 2**30), "a name of"),
        (19, b"torch.CudaTensor!", "it holds a"),
        (36, struct.pack("<i", 90), "90 dimensions"),
        (40, struct.pack("<q", 10**12), "do not fit"),
        (56, struct.pack("<q", -1), "do not fit"),
        (72, struct.pack("<q", 10**6), "do not fit"),
    ],
)
def test_torch7_of_another_form_is_refused(tmp_path: Path, place: int, value: bytes, told: str) -> None:
    content = bytearray(torch7_bytes(tmp_path))
    content[place : place + len(value)] = value
    (tmp_path / "points.t7").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_torch7(tmp_path / "points.t7")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bad = POINTS.copy()
    bad[3, 1] = np.inf
    np.save(tmp_path / "a.npy", bad)
    save_torch7(tmp_path / "a.t7", bad)
    scipy.io.savemat(tmp_path / "a.mat", {"points": bad})
    for read, name in ((read_npy, "a.npy"), (read_torch7, "a.t7"), (read_points, "a.mat")):
        with pytest.raises(UserError, match="not finite"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "told"),
    [("1 2\n", "line 1: expected 3 numbers"), ("1 2 x\n", "line 1: could not"), ("1 2 nan\n", "not finite")],
)
def test_rows_of_another_form_are_refused(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "rows.txt").write_text(content)
    with pytest.raises(UserError, match=told):
        read_number_rows(tmp_path / "rows.txt", 3)
    (tmp_path / "rows.txt").write_text("1,2 3\n\n4\t5 6e-1\n")
    np.testing.assert_array_equal(read_number_rows(tmp_path / "rows.txt", 3), [[1, 2, 3], [4, 5, 0.6]])


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match="not a JSON file"):
            read_json(tmp_path / "a.json")
