"""Pickles of arrays: written by NumPy and SciPy, by hand as chumpy writes them, and by people who mean harm."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from renderers.io.array_pickle import ArrayPickleError, read_array_pickle

ARRAYS = {
    "double": np.arange(24.0).reshape(2, 3, 4),
    "single": np.linspace(0, 1, 5, dtype=np.float32),
    "indices": np.array([[1, 2], [3, 4]], dtype=np.uint32),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">f8"),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back(tmp_path: Path, protocol: int) -> None:
    matrix = sparse.random(4, 7, 0.4, random_state=0)
    held = {
        **ARRAYS,
        "csc": matrix.tocsc(),
        "csr": matrix.tocsr(),
        "number": 3,
        "text": "lbs",
        "scalar": np.float64(2.5),
    }
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(held, protocol))
    found = read_array_pickle(tmp_path / "model.pkl", [*held, "absent"])
    assert set(found) == set(held) - {"text"}
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["csc"], matrix.toarray())
    np.testing.assert_array_equal(found["csr"], matrix.toarray())
    assert found["number"] == 3 and found["scalar"] == 2.5


def test_a_dictionary_in_an_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "embedding.npy", {"lmk_face_idx": np.arange(17)}, allow_pickle=True)  # type: ignore[arg-type]
    found = read_array_pickle(tmp_path / "embedding.npy", ["lmk_face_idx"])
    np.testing.assert_array_equal(found["lmk_face_idx"], np.arange(17))


def python_2(array: np.ndarray, wrapped: bool) -> bytes:
    """A dictionary {"v_template": array} as Python 2 pickles it, opcode by opcode; `wrapped`: in chumpy's class."""
    raw = array.astype("<f8").tobytes()
    shape = b"".join(b"K" + bytes([size]) for size in array.shape)
    ndarray = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01(" + shape + b"tcnumpy\ndtype\n(U\x02f8K\x00K\x01tR"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )  # fmt: skip
    if wrapped:
        ndarray = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR}U\x01x" + ndarray + b"sb"
    return b"\x80\x02}U\nv_template" + ndarray + b"s."


@pytest.mark.parametrize("wrapped", [False, True])
def test_python_2_and_chumpy(tmp_path: Path, wrapped: bool) -> None:
    array = np.array([[0.1, -2.0, 255.0], [1e-9, 3.5, 128.0]])
    (tmp_path / "model.pkl").write_bytes(python_2(array, wrapped))
    if not wrapped:
        reference = pickle.loads(python_2(array, wrapped), encoding="latin1")  # the bytes are what they claim to be
        np.testing.assert_array_equal(reference["v_template"], array)
    assert "chumpy" not in sys.modules
    np.testing.assert_array_equal(read_array_pickle(tmp_path / "model.pkl", ["v_template"])["v_template"], array)


class Reducing:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


HOSTILE = {
    "a command": lambda place: Reducing(__import__("os").system, f"touch {place}"),
    "eval": lambda place: Reducing(eval, f"open({str(place)!r}, 'w')"),
    "a file": lambda place: Reducing(open, str(place), "w"),
    "getattr": lambda place: Reducing(getattr, Path(str(place)), "touch"),
    "a class of its own": lambda place: types.SimpleNamespace(place=str(place)),
    "a class of collections": lambda place: OrderedDict(a=1),
    "numpy's own evaluation": lambda place: Reducing(np.load, str(place), None, True),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_runs(tmp_path: Path, kind: str, depth: int) -> None:
    place = tmp_path / "touched"
    bait = HOSTILE[kind](place)
    held = {"v_template": np.zeros(3), "x": [bait] if depth else bait}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(held, 2))
    with pytest.raises(ArrayPickleError, match="it names"):
        read_array_pickle(tmp_path / "model.pkl", ["v_template"])
    assert not place.exists()


def test_shapes_are_held_against_the_bytes(tmp_path: Path) -> None:
    forged = python_2(np.zeros((2, 3)), False).replace(b"(K\x02K\x03t", b"(J\xff\xff\xff\x7fK\x03t")
    (tmp_path / "model.pkl").write_bytes(forged)
    with pytest.raises(ArrayPickleError, match="declares shape"):
        read_array_pickle(tmp_path / "model.pkl", ["v_template"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(python_2(np.arange(6.0).reshape(2, 3), data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "model.pkl").write_bytes(bytes(content))
    try:
        found = read_array_pickle(tmp_path / "model.pkl", ["v_template"])
    except ArrayPickleError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())
