"""Reads arrays of numbers from downloaded MATLAB 5, NumPy and torch7 files, without running anything in them."""

from __future__ import annotations

import struct
import tokenize
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from renderers.io.errors import UserError
from renderers.io.matlab_file import CLASSES, MatlabError, matlab_contents, read_matlab

LARGEST = 2**20  # bytes; real annotations have about ten thousand. Unpacked by zlib they grow at most 1032 times.
# torch7's tensor classes: the storage that belongs to each, and its numbers.
TORCH7_TENSORS = {
    "torch.DoubleTensor": ("torch.DoubleStorage", "<f8"),
    "torch.FloatTensor": ("torch.FloatStorage", "<f4"),
    "torch.IntTensor": ("torch.IntStorage", "<i4"),
    "torch.LongTensor": ("torch.LongStorage", "<i8"),
}
NPY_ERRORS = (ValueError, SyntaxError, tokenize.TokenError)
"""Errors that NumPy raises for a damaged .npy header, which it parses as a Python literal."""
TORCH7_OBJECT = 4  # the type tag of a torch object
Shape = tuple[int, ...]


def arrays_of_shape(path: Path, shapes: Collection[Shape]) -> dict[str, Shape]:
    """The arrays of numbers in a MATLAB 5 file that have one of these shapes.

    Raises:
        UserError: no such file, too large, damaged, or not a MATLAB 5 file.
    """
    return {name: shape for name, (shape, kind) in _contents(path).items() if shape in shapes and kind in CLASSES}


def _contents(path: Path) -> dict[str, tuple[Shape, str]]:
    _check_size(path)
    try:
        return matlab_contents(path)
    except MatlabError as error:
        raise UserError(f"{path}: {error}") from None


def read_mat(path: Path, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """The named arrays of a MATLAB 5 file; the file's data alone is parsed, nothing in it is run.

    Args:
        path: the .mat file.
        shapes: the shape that each wanted array must have.

    Returns:
        Each array as float64.

    Raises:
        UserError: no such file, damaged, or an array that is missing, mis-sized, of another type or not finite.
    """
    contents = _contents(path)
    for name, shape in shapes.items():
        if name in contents and contents[name][1] in CLASSES and contents[name][0] != shape:
            raise UserError(f"{path}: {name} has shape {contents[name][0]}, expected {shape}")
    try:
        arrays = read_matlab(path, list(shapes))
    except MatlabError as error:
        raise UserError(f"{path}: {error}") from None
    return {name: values.astype(np.float64) for name, values in arrays.items()}


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file as float64; Python objects in it are refused, not unpickled.

    Raises:
        UserError: no such file, too large, not a .npy file of numbers, damaged, or not finite.
    """
    _check_size(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            header = read_header(file) if read_header else np.lib.format.read_array_header_2_0(file)
            shape, _, dtype = header
            if dtype.kind not in "biuf":
                raise UserError(f"{path}: holds {dtype}, expected numbers (pickled objects are never loaded)")
            if int(np.prod(shape, dtype=object)) * dtype.itemsize > path.stat().st_size - file.tell():
                raise UserError(f"{path}: declares shape {shape}, more than the file holds")
            file.seek(0)
            values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
    except (*NPY_ERRORS, EOFError, OSError, TypeError, MemoryError, OverflowError) as error:
        raise UserError(f"{path}: not a NumPy file, or damaged ({error or type(error).__name__})") from None
    _check_finite(path, "the array", values)
    return values


def read_torch7(path: Path) -> np.ndarray:
    """The one tensor of a binary torch7 file (.t7, little-endian) as float64.

    The file holds type tag, index, version and class name, sizes, strides and offset, then the storage with its
    numbers. Tables, functions and everything else that torch7 can serialize are refused.

    Raises:
        UserError: no such file, too large, of another form, damaged, or not finite.
    """
    _check_size(path)
    try:
        values = _Torch7(path.read_bytes()).tensor()
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not a torch7 file of one tensor, or damaged ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    _check_finite(path, "the tensor", values)
    return values


class _Torch7:
    """Walks over torch7's bytes from front to back."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def _numbers(self, kind: str, count: int = 1) -> list[int]:
        form = f"<{count}{kind}"
        found = struct.unpack_from(form, self.content, self.place)
        self.place += struct.calcsize(form)
        return list(found)

    def _text(self) -> str:
        (length,) = self._numbers("i")
        if not 0 <= length <= 64:
            raise ValueError(f"a name of {length} letters")
        (text,) = struct.unpack_from(f"{length}s", self.content, self.place)
        self.place += length
        return str(text.decode("ascii"))

    def _class_name(self) -> str:
        (tag,) = self._numbers("i")
        if tag != TORCH7_OBJECT:
            raise ValueError(f"type tag {tag} where a tensor belongs")
        self._numbers("i")
        version = self._text()
        return self._text() if version.startswith("V ") else version

    def tensor(self) -> np.ndarray:
        name = self._class_name()
        if name not in TORCH7_TENSORS:
            raise ValueError(f"it holds a {name[:40]!r}")
        storage, dtype = TORCH7_TENSORS[name]
        (dimensions,) = self._numbers("i")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"{dimensions} dimensions")
        sizes, strides = self._numbers("q", dimensions), self._numbers("q", dimensions)
        (first,) = self._numbers("q")
        if self._class_name() != storage:
            raise ValueError("its storage is of another type")
        (length,) = self._numbers("q")
        width = np.dtype(dtype).itemsize
        if not 0 < length <= (len(self.content) - self.place) // width:
            raise ValueError(f"{length} numbers declared, fewer there")
        values = np.frombuffer(self.content, dtype, length, self.place)
        last = first - 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        held = min(sizes) > 0 and min(strides) >= 0 and first >= 1 and last < length
        if not held or int(np.prod(sizes, dtype=object)) > length:
            raise ValueError(f"sizes {sizes} do not fit its {length} numbers")
        steps = [stride * width for stride in strides]
        return np.lib.stride_tricks.as_strided(values[first - 1 :], sizes, steps).astype(np.float64)


def read_number_rows(path: Path, columns: int) -> np.ndarray:
    """(N, columns) float64 of a text file with that many numbers a line, separated by blanks, commas or tabs.

    Raises:
        UserError: no such file, too large, not text, a line of another form, or numbers that are not finite.
    """
    _check_size(path)
    rows: list[list[float]] = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.replace(",", " ").split()
            if not words:
                continue
            if len(words) != columns:
                raise UserError(f"{path}, line {number}: expected {columns} numbers, found {len(words)} words")
            rows.append([float(word) for word in words])
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}") from None
    values = np.array(rows, dtype=np.float64).reshape(-1, columns)
    _check_finite(path, "a line", values)
    return values


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: no such file, too large, or not JSON.
    """
    import json

    _check_size(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file, or damaged ({type(error).__name__})") from None


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: {path.stat().st_size} bytes, an annotation has at most {LARGEST}")


def _check_finite(path: Path, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {name} holds numbers that are not finite")
