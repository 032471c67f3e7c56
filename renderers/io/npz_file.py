"""Reads arrays from an `.npz` file without unpickling, after checking their declared sizes against the bytes."""

from __future__ import annotations

import io
import zipfile
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

LARGEST = 2**32  # bytes of all arrays
MOST_ARRAYS = 1000


class NpzError(ValueError):
    """Why a file cannot be read, as a clause without the file's name."""


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an uncompressed `.npz` file, as `numpy.savez` writes it.

    Raises:
        NpzError: no such file, cut short or damaged (each array has a checksum), compressed, or an array that is not of
            numbers or text: pickled objects are refused unread.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return _read(file, path.stat().st_size)


def _read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS or sum(member.file_size for member in members) > min(LARGEST, size):
                raise NpzError("it declares more than it holds, or is compressed; numpy.savez writes what is read here")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except NpzError:
        raise
    except Exception as error:  # zipfile stumbles over foreign bytes in many ways, OSError among them
        raise NpzError(f"it is no .npz file, or damaged or cut short ({type(error).__name__})") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = member.filename.removesuffix(".npy")
    content = archive.read(member)
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise NpzError(f"{name} is of version {version}, which is not read")
    if dtype.kind not in "biufU":
        raise NpzError(f"{name} holds {dtype}, not numbers or text; pickled objects are never read")
    held = len(content) - file.tell()
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != held:
        raise NpzError(f"{name} declares shape {shape} of {dtype}, and holds {held} bytes")
    values = np.frombuffer(content, dtype, offset=file.tell()) if held else np.empty(0, dtype)
    return values.reshape(shape, order="F" if fortran else "C").copy()
