"""MATLAB files: any array of numbers comes back; everything else is refused in one clause."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from renderers.io.matlab_file import MatlabError, read_matlab

LAX = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def message(path: Path, *names: str) -> str:
    with pytest.raises(MatlabError) as raised:
        read_matlab(path, names)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600
    return str(raised.value)


@LAX
@given(data=st.data(), packed=st.booleans())
def test_returns_any_array_of_numbers(tmp_path: Path, data: st.DataObject, packed: bool) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["f8", "f4", "i4", "u1", "i2", "?"])))
    elements: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=3, max_side=9))
    values = data.draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **elements)))
    scipy.io.savemat(tmp_path / "any.mat", {"x": values, "y": np.zeros(3)}, do_compression=packed)
    np.testing.assert_array_equal(read_matlab(tmp_path / "any.mat", ["x"])["x"], values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a text", "x holds char, expected numbers"),
        (np.array([[1, "cell"]], dtype=object), "x holds cell, expected numbers"),
        ({"field": 1}, "x holds struct, expected numbers"),
        (np.array([[1 + 1j]]), "x holds complex128, expected numbers"),
        (np.array([[np.nan]]), "x holds values that are not finite"),
        (np.array([[np.inf, 1]]), "x holds values that are not finite"),
    ],
)
def test_what_is_no_array_of_finite_numbers(tmp_path: Path, value: object, expected: str) -> None:
    scipy.io.savemat(tmp_path / "file.mat", {"x": value})
    assert expected in message(tmp_path / "file.mat", "x")


def test_missing_names_say_what_is_there(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "file.mat", {"a": np.ones(3), "b": np.ones(3)})
    assert message(tmp_path / "file.mat", "a", "c", "d") == "no c, d in it, expected a, c, d; found a, b"


def declared(rows: int, columns: int, payload: bytes, kind: int = 9, packed: bool = True) -> bytes:
    """A double array that declares a shape and holds a payload, of numbers of a kind of the format's description."""
    flags = struct.pack("<IIII", 6, 8, 6, 0)
    header = flags + struct.pack("<IIii", 5, 8, rows, columns) + struct.pack("<II", 1, 1) + b"x".ljust(8, b"\0")
    body = header + struct.pack("<II", kind, len(payload)) + payload
    element = struct.pack("<II", 14, len(body)) + body
    if packed:
        deflated = zlib.compress(element)
        element = struct.pack("<II", 15, len(deflated)) + deflated
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_no_kind_are_refused(tmp_path: Path, packed: bool) -> None:
    """SciPy's reader ends the process for most of them."""
    path = tmp_path / "file.mat"
    for kind in (0, 8, 10, 11, 14, 15, 19, 20, 21, 255, 65535):
        path.write_bytes(declared(2, 1, np.array([3.0, 4.0]).tobytes(), kind, packed))
        assert f"numbers of kind {kind}, which MATLAB does not have" in message(path, "x")


def test_more_is_declared_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "file.mat"
    path.write_bytes(declared(2, 1, np.array([3.0, 4.0]).tobytes()))
    assert read_matlab(path, ["x"])["x"].tolist() == [[3.0], [4.0]]
    path.write_bytes(declared(2**31 - 1, 2**31 - 1, b""))
    assert "x declares shape (2147483647, 2147483647), more than a file of" in message(path, "x")
    path.write_bytes(declared(-5, 4, b""))
    message(path, "x")
    path.write_bytes(declared(2, 2, np.array([3.0, 4.0]).tobytes()))
    message(path, "x")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "file.mat"
    scipy.io.savemat(path, {"x": np.arange(60.0), "y": np.ones((9, 9))}, do_compression=packed)
    whole = path.read_bytes()
    # Between the two variables the file is whole, and y is missing.
    for end in range(0, len(whole), 3):
        path.write_bytes(whole[:end])
        message(path, "x", "y")
    path.write_bytes(whole[:-1])
    assert "cut short" in message(path, "x")


def test_an_older_format_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "file.mat", {"x": np.ones((2, 2))}, format="4")
    assert "not a MATLAB file" in message(tmp_path / "file.mat", "x")


@LAX
@given(data=st.data(), packed=st.booleans())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject, packed: bool) -> None:
    path = tmp_path / "file.mat"
    scipy.io.savemat(path, {"x": np.arange(60.0).reshape(6, 10), "y": np.ones((2, 2), "u1")}, do_compression=packed)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        found = read_matlab(path, ["x", "y"])
    except MatlabError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.isfinite(values).all() for values in found.values())


def test_two_variables_of_one_name_are_refused(tmp_path: Path) -> None:
    """The first was held against the file's size, and the second read."""
    for name, values in (("a", np.zeros(3)), ("b", np.zeros(5))):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"x": values})
    both = (tmp_path / "a.mat").read_bytes() + (tmp_path / "b.mat").read_bytes()[128:]
    (tmp_path / "both.mat").write_bytes(both)
    assert message(tmp_path / "both.mat", "x") == "two of its variables have one name"
