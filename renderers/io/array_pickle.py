"""Reads arrays from a pickle without running anything in it.

Face models of the FLAME family are published as pickles of NumPy, SciPy and chumpy objects. Here every class and
function that such a file may name is a stand-in that only keeps its arguments. The arrays are built afterwards, from
bytes whose number is checked.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from renderers.io.errors import UserError

LARGEST = 2**29  # bytes of a file; FLAME's take some 50 to 110 MB
KINDS = {"b": "?", "i": "i", "u": "u", "f": "f"}  # letters of a dtype that arrays of numbers may have


class ArrayPickleError(ValueError):
    """Why a pickle cannot be read, as a clause without the file's name."""


class _Kept:
    """A stand-in for any object: keeps what it was made of and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Kept):
    """Of `numpy.ndarray`: its state is (version, shape, dtype, Fortran order, bytes or a list of objects)."""


class _Type(_Kept):
    """Of `numpy.dtype`: made of its letters, its state begins with (version, byte order)."""


class _Scalar(_Kept):
    """Of NumPy's scalar: made of its dtype and bytes."""


class _Buffer(_Kept):
    """Of an array in protocol 5: made of its bytes, dtype, shape and order."""


class _Columns(_Kept):
    """Of SciPy's matrices that are compressed by column: its state is its attributes."""


class _Rows(_Columns):
    """The same, compressed by row."""


class _Chumpy(_Kept):
    """Of anything of chumpy's: `x` in its state is the array that it wraps."""


def _reconstructor(kept: type, base: Any, state: Any) -> _Kept:
    """Of `copyreg._reconstructor`, by which old pickles make objects."""
    return kept() if isinstance(kept, type) and issubclass(kept, _Kept) else _Kept()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Of `codecs.encode`, by which newer pickles of an old protocol hold bytes."""
    return text.encode("latin1") if isinstance(text, str) else b""


KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): lambda *_: b"",  # how old protocols write the bytes of an empty array
    ("__builtin__", "bytes"): lambda *_: b"",
    ("builtins", "bytearray"): lambda content=b"", *_: content,
    ("builtins", "object"): _Kept,
    ("__builtin__", "object"): _Kept,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.multiarray", name): kept
        for core in ("core", "_core")
        for name, kept in (("_reconstruct", lambda *_: _Array()), ("scalar", _Scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    **{
        (f"scipy.sparse.{module}", f"{form}_{kind}"): kept
        for form, kept in (("csc", _Columns), ("csr", _Rows))
        for kind in ("matrix", "array")
        for module in (form, f"_{form}")
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module.partition(".")[0] == "chumpy":
            return _Chumpy
        raise ArrayPickleError(f"it names {module}.{name}, and only NumPy's, SciPy's and chumpy's arrays are read")

    def persistent_load(self, pid: Any) -> Any:
        raise ArrayPickleError("it refers to objects outside the file")


def read_array_pickle(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Named arrays of a pickled dictionary, or of an `.npy` file that holds one. Sparse matrices come out dense.

    Args:
        path: of a pickle of any protocol, written by Python 2 or 3.
        names: the entries to read; those that are absent, or no numbers, are left out.

    Raises:
        ArrayPickleError: not such a pickle, damaged, or it names a class that is not on the list.
        UserError: the file cannot be opened, or is larger than any face model.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: more than {LARGEST // 2**20} MB, which no face model has")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    file = io.BytesIO(content)
    try:
        if content.startswith(b"\x93NUMPY"):
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read(file)
        found = _Unpickler(file, encoding="latin1").load()
        if isinstance(found, _Array):  # of one object, the dictionary
            held = _state(found, 5)[4]
            found = held[0] if isinstance(held, list) and len(held) == 1 else None
        if not isinstance(found, dict):
            raise ArrayPickleError("it holds no dictionary")
        arrays = {name: _to_array(found[name]) for name in names if name in found}
    except ArrayPickleError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ArrayPickleError(f"it is no pickle of arrays, or damaged ({type(error).__name__})") from error
    return {name: array for name, array in arrays.items() if array is not None}


def _state(kept: _Kept, length: int) -> tuple[Any, ...]:
    if not isinstance(kept.state, tuple) or len(kept.state) < length:
        raise ArrayPickleError("an array in it is damaged")
    return kept.state


def _to_array(value: Any) -> np.ndarray | None:
    """The array that a stand-in stands for; None for anything else than numbers."""
    if isinstance(value, _Chumpy):
        value = value.state.get("x") if isinstance(value.state, dict) else None
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    if isinstance(value, _Scalar):
        return _numbers(value.arguments[0], value.arguments[1], (), False)
    if isinstance(value, _Array):
        _, shape, kind, fortran, content = _state(value, 5)[:5]
        return None if isinstance(content, list) else _numbers(kind, content, shape, bool(fortran))
    if isinstance(value, _Buffer):
        content, kind, shape, order = value.arguments[:4]
        return _numbers(kind, bytes(content), shape, order == "F")
    if isinstance(value, _Columns):
        return _dense(value)
    return None


def _numbers(kind: Any, content: Any, shape: Any, fortran: bool) -> np.ndarray | None:
    if not isinstance(kind, _Type):
        raise ArrayPickleError("an array in it has no type")
    letters, order = str(kind.arguments[0]), str(_state(kind, 2)[1])
    if letters[:1] not in KINDS or not letters[1:].isdigit():
        return None
    dtype = np.dtype(letters).newbyteorder(">" if order == ">" else "<" if order == "<" else "=")
    content = content.encode("latin1") if isinstance(content, str) else content
    sizes = tuple(int(size) for size in shape)
    if not isinstance(content, bytes) or min(sizes, default=0) < 0:
        raise ArrayPickleError("an array in it is damaged")
    wanted = dtype.itemsize
    for size in sizes:
        wanted *= size
    if wanted != len(content):
        raise ArrayPickleError(f"an array in it declares shape {sizes} of {dtype} and holds {len(content)} bytes")
    values = np.frombuffer(content, dtype) if content else np.empty(0, dtype)
    return values.reshape(sizes, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


def _dense(value: _Columns) -> np.ndarray:
    """A compressed sparse matrix, written out."""
    from scipy import sparse

    state: dict[str, Any] = value.state if isinstance(value.state, dict) else {}
    parts = [_to_array(state.get(name)) for name in ("data", "indices", "indptr")]
    shape = tuple(int(size) for size in state.get("_shape", state.get("shape", ())))
    if len(shape) != 2 or any(part is None or part.ndim != 1 for part in parts):
        raise ArrayPickleError("a sparse matrix in it is damaged")
    if min(shape) < 0 or shape[0] * shape[1] * 8 > LARGEST:
        raise ArrayPickleError(f"a sparse matrix in it declares shape {shape}")
    form = sparse.csr_matrix if isinstance(value, _Rows) else sparse.csc_matrix
    matrix: Any = form(tuple(parts), shape=shape)  # type: ignore[arg-type]
    matrix.check_format(full_check=True)
    return np.asarray(matrix.toarray())
