"""The HDF5 reader against what the library wrote and a file of MATLAB's; links, lies and damage are refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from renderers.io.hdf5_file import LARGEST_TEXT, Hdf5Error, read_hdf5, read_hdf5_text
from tests.conf.write_hdf5 import write_hdf5

MATLAB = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data" / "testhdf5_7.4_GLNX86.mat"
DTYPES = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")]


def message(path: Path, name: str = "a/b") -> str:
    with pytest.raises(Hdf5Error) as raised:
        read_hdf5(path, [name])
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.skipif(not MATLAB.is_file(), reason="this SciPy comes without its test data")
def test_reads_what_matlab_wrote() -> None:
    found = read_hdf5(MATLAB, ["testdouble"])["testdouble"]
    np.testing.assert_allclose(found.ravel(), np.pi / 4 * np.arange(9), rtol=1e-15)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), packed=st.booleans())
def test_returns_any_array_of_numbers(tmp_path: Path, data: st.DataObject, packed: bool) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    values = data.draw(arrays.arrays(dtype, data.draw(arrays.array_shapes(max_dims=3, max_side=9))))
    path = write_hdf5(tmp_path / "any.h5", {"x": np.zeros(2), "group/y": values}, packed)
    found = read_hdf5(path, ["group/y", "x"])["group/y"]
    assert found.dtype == dtype.newbyteorder("=") and found.flags.writeable
    np.testing.assert_array_equal(found, values)


def test_a_missing_name_says_what_is_there(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "file.h5", {"shape/model/mean": np.zeros(3), "color": np.zeros(3)})
    assert message(path, "shape/points") == "no shape/points in it, expected shape/points; found model"
    assert message(path, "gone/model/mean") == "no gone in it, expected gone/model/mean; found color, shape"
    assert "no color/model in it" in message(path, "color/model")
    assert message(path, "shape/model") == "shape/model is no array"


def test_nothing_leads_out_of_the_file(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "other.h5", {"x": np.zeros(3)})
    np.zeros(4).tofile(tmp_path / "raw")
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["a/real"] = np.zeros(3)
        file["a/b"] = h5py.SoftLink("/a/real")
        file["a/out"] = h5py.ExternalLink("other.h5", "/x")
        file["way"] = h5py.ExternalLink("other.h5", "/")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file.create_dataset("raw", shape=(4,), dtype="f8", external=[(str(tmp_path / "raw"), 0, 32)])
        layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3,))
        file.create_virtual_dataset("virtual", layout)
    for name in ("a/b", "a/out", "way/x", "dangling"):
        assert "is a link, which is not followed" in message(tmp_path / "file.h5", name)
    for name in ("raw", "virtual"):
        assert "in another file, which is not followed" in message(tmp_path / "file.h5", name)


def test_what_is_no_plain_array_of_numbers_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["text"] = "a line"
        file["pairs"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])
        file["reference"] = file.ref
        file.create_dataset("lzf", data=np.zeros((9, 9)), compression="lzf")
    for name in ("text", "pairs", "reference"):
        assert "not numbers" in message(tmp_path / "file.h5", name)
    assert "packed with filter 32000" in message(tmp_path / "file.h5", "lzf")


def test_reads_a_text_however_it_is_stored(tmp_path: Path) -> None:
    text = '[{"id": "center.nose.tip", "é": 1}]'
    content = text.encode()
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["a/variable"] = text
        file["a/fixed"] = np.bytes_(content)
        file["a/one"] = np.array([content])
        file["a/list"] = np.array([text], dtype=h5py.string_dtype())
        file["a/padded"] = np.frombuffer(content + b"\0", np.uint8)
        file["a/signed"] = np.frombuffer(content, np.int8)
        file["two"] = np.array([content, content])
        file["numbers"] = np.zeros(3)
        file["latin"] = np.bytes_(b"\xe9")
        file["long"] = np.bytes_(b" " * (LARGEST_TEXT + 1))
        file["link"] = h5py.SoftLink("/a/fixed")
        file["out"] = h5py.ExternalLink("other.h5", "/x")
    for name in ("variable", "fixed", "one", "list", "padded", "signed"):
        assert read_hdf5_text(tmp_path / "file.h5", f"a/{name}") == text
    assert read_hdf5_text(tmp_path / "file.h5", "a/gone") is None
    assert read_hdf5_text(tmp_path / "file.h5", "gone/json") is None
    wrong = {"two": "one text", "numbers": "one text", "long": "one text", "latin": "damaged", "a": "no array"}
    for name, said in {**wrong, "link": "is a link", "out": "is a link"}.items():
        with pytest.raises(Hdf5Error, match=said):
            read_hdf5_text(tmp_path / "file.h5", name)


def test_more_is_declared_than_the_file_holds(tmp_path: Path) -> None:
    """Datasets that were never written to, which the library would fill with zeros: of any size."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("a/b", shape=(2**20, 2**20), dtype="f8", chunks=(16, 16), compression="gzip")
        file.create_dataset("bare", shape=(5,), dtype="f8", chunks=(5,))
        file.create_dataset("large", shape=(2**40,), dtype="u1", chunks=(16,))
    assert "more than a file of" in message(tmp_path / "file.h5")
    assert "more than a file of" in message(tmp_path / "file.h5", "large")
    assert message(tmp_path / "file.h5", "bare") == "bare declares shape (5,), 40 bytes, and keeps 0"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_short_is_refused_wherever_it_ends(tmp_path: Path, packed: bool) -> None:
    whole = write_hdf5(tmp_path / "whole.h5", {"a/b": np.arange(600.0).reshape(60, 10)}, packed).read_bytes()
    cut = tmp_path / "cut.h5"
    for end in range(0, len(whole), 97):
        cut.write_bytes(whole[:end])
        message(cut)


def test_a_file_that_is_not_there_or_not_hdf5(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hdf5(tmp_path / "none.h5", ["x"])
    for content in (b"", b"\x89PNG", bytes(range(256)) * 8):
        (tmp_path / "other.h5").write_bytes(content)
        assert "no HDF5 file" in message(tmp_path / "other.h5")
