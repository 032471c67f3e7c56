"""Reads numeric arrays from a MATLAB 5 file by name, after checking their declared sizes against the file's."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

LARGEST = 2**31  # bytes of one array; shapePC of BFM 2009 takes 255 MB in double precision
DEFLATE_RATIO = 1040  # zlib packs at most 1032 bytes into one
WIDEST = 8  # bytes of a number
HDF5_VERSION = 2  # as `matfile_version` counts
HEADER = 128  # bytes, of which the last two tell the byte order
START = 2**16  # bytes of an array, in which its name ends and its numbers begin
COMPRESSED = 15
STORED = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}  # as what numbers are stored: 1 is int8, 9 double, 13 uint64
BYTES = {"int8": 1, "uint8": 1, "logical": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4}
CLASSES = {*BYTES, "int64", "uint64", "double"}


class MatlabError(ValueError):
    """Why a file cannot be read, as a clause without the file's name."""


def matlab_contents(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and MATLAB class of every variable in a MATLAB 5 file; `CLASSES` are those that hold numbers.

    Raises:
        MatlabError: not a MATLAB 5 file, cut short or damaged.
    """
    import scipy.io

    try:
        version, _ = scipy.io.matlab.matfile_version(path, appendmat=False)
    except Exception as error:
        raise _refusal(error) from error
    if version == HDF5_VERSION:
        raise MatlabError("it is a MATLAB 7.3 (HDF5) file; save it again from MATLAB with -v7")
    try:
        told = scipy.io.whosmat(path)
        held: dict[str, tuple[tuple[int, ...], str]] = {name: (tuple(shape), kind) for name, shape, kind in told}
        _check_end(path)
    except Exception as error:  # the parser trips over foreign or truncated bytes in many ways
        raise _refusal(error) from error
    if len(held) < len(told):
        raise MatlabError("two of its variables have one name")
    return held


def read_matlab(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a MATLAB file.

    The file's data alone is parsed: SciPy's reader never unpickles or runs anything it finds, and only variables whose
    class is numeric reach it.

    Args:
        path: the .mat file (MATLAB 5 format, not 7.3).
        names: the variables.

    Returns:
        Each name's array of finite real numbers in its stored shape and precision.

    Raises:
        MatlabError: not a MATLAB 5 file, cut short or damaged, a name that is absent or no array of finite real
            numbers, or one that declares more than the file can hold.
    """
    import scipy.io

    held = matlab_contents(path)
    missing = [name for name in names if name not in held]
    if missing:
        found = ", ".join(held) or "nothing"
        raise MatlabError(f"no {', '.join(missing)} in it, expected {', '.join(names)}; found {found[:300]}")
    size = path.stat().st_size
    for name in names:
        shape, kind = held[name]
        if kind not in CLASSES:
            raise MatlabError(f"{name} holds {kind}, expected numbers")
        wanted = prod(shape) * BYTES.get(kind, WIDEST)
        # MATLAB stores whole numbers of any class in a byte each where they fit.
        if min(shape) < 0 or wanted > min(LARGEST, WIDEST * DEFLATE_RATIO * size):
            raise MatlabError(f"{name} declares shape {shape}, more than a file of {size} bytes may hold")
    for name, stored in _stored_kinds(path):
        if name in names and stored not in STORED:
            raise MatlabError(f"{name} holds numbers of kind {stored}, which MATLAB does not have: the file is damaged")
    try:
        found_arrays = scipy.io.loadmat(path, variable_names=list(names))
    except Exception as error:  # as above
        raise _refusal(error) from error
    return {name: _numbers(name, found_arrays.get(name)) for name in names}


def _check_end(path: Path) -> None:
    """Raises EOFError where the file's last element does not end with the file; SciPy ignores that."""
    for _ in _elements(path):
        pass


def _stored_kinds(path: Path) -> Iterator[tuple[str, int]]:
    """The name of every array, and as what numbers it is stored (MAT-File Format, "Data Types").

    SciPy takes them for granted: of a kind that is undefined it reads from nowhere, and the process dies.
    """
    for order, kind, start in _elements(path):
        try:
            if kind == COMPRESSED:
                start = zlib.decompressobj().decompress(start, START)[8:]
            place = 0
            for _ in range(2):  # flags and dimensions
                _, place, _ = _element(start, place, order)
            _, after, name = _element(start, place, order)
            yield name.decode("latin-1"), _element(start, after, order)[0]
        except (struct.error, zlib.error) as error:
            raise _refusal(error) from error


def _elements(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Of every element of a file: the byte order, its kind, and its first `START` bytes.

    Raises:
        EOFError: an element does not end within the file.
    """
    whole = path.stat().st_size
    with path.open("rb") as file:
        order = {b"IM": "<", b"MI": ">"}[file.read(HEADER)[-2:]]
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}II", tag)
            end = file.tell() + size
            if end > whole:
                raise EOFError
            yield order, kind, file.read(min(size, START))
            file.seek(end)


def _element(content: bytes, place: int, order: str) -> tuple[int, int, bytes]:
    """Of the element at a place: its kind, where the next one begins, and its bytes."""
    kind, size = struct.unpack_from(f"{order}II", content, place)
    if kind >> 16:  # up to four bytes stand in the tag itself
        return kind & 0xFFFF, place + 8, content[place + 4 : place + 4 + (kind >> 16)]
    return kind, place + 8 + -(-size // 8) * 8, content[place + 8 : place + 8 + size]


def _refusal(error: Exception) -> MatlabError:
    return MatlabError(f"not a MATLAB file, or cut short or damaged ({type(error).__name__})")


def _numbers(name: str, array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise MatlabError(f"{name} holds {getattr(array, 'dtype', type(array).__name__)}, expected numbers")
    if not np.isfinite(array).all():
        raise MatlabError(f"{name} holds values that are not finite")
    return array
