"""Reads numeric arrays and texts from an HDF5 file by name; links that lead out of the file are not followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 2**31  # bytes of one array; the full head of BFM 2019 takes 280 MB
LARGEST_TEXT = 2**20  # bytes; the landmarks of BFM 2017 take some ten thousand
DEFLATE_RATIO = 1040  # zlib packs at most 1032 bytes into one
FILTERS = (1, 2, 3)  # deflate, shuffle, Fletcher's checksum: every other one may be a plug-in


class Hdf5Error(ValueError):
    """Why a file cannot be read, as a clause without the file's name."""


class Hdf5MissingError(Hdf5Error):
    """There is nothing of that name in it."""


def read_hdf5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an HDF5 file.

    Args:
        path: the file.
        names: paths inside the file, for example `shape/model/mean`.

    Returns:
        Each name's array in its stored shape and precision, in this machine's byte order.

    Raises:
        Hdf5Error: not an HDF5 file, cut short or damaged, a name that is absent, a link or no array of numbers, or one
            that declares more than the file can hold.
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    with _opened(path) as file:
        return {name: _read(_find(file, name), name, size) for name in names}


def read_hdf5_text(path: Path, name: str) -> str | None:
    """The text of that name, stored as a string or as its bytes; None where there is nothing of that name.

    Raises:
        Hdf5Error: as `read_hdf5`, or what is there is no text in UTF-8.
        OSError: the file cannot be opened.
    """
    with _opened(path) as file:
        try:
            dataset = _find(file, name)
        except Hdf5MissingError:
            return None
        if dataset.dtype.kind in "iu" and dataset.dtype.itemsize == 1:
            content = _read(dataset, name, LARGEST_TEXT).tobytes()
        else:
            if dataset.size != 1 or dataset.dtype.kind not in "OS" or dataset.dtype.itemsize > LARGEST_TEXT:
                raise Hdf5Error(f"{name} has shape {dataset.shape} of {dataset.dtype}, expected one text")
            _check_place(dataset, name)
            content = np.asarray(dataset[()]).ravel()[0]
        if not isinstance(content, bytes) or len(content) > LARGEST_TEXT:
            raise Hdf5Error(f"{name} is no text, or has more than {LARGEST_TEXT} bytes")
        return content.rstrip(b"\0").decode("utf-8")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file; whatever h5py trips over becomes an `Hdf5Error`."""
    import h5py

    path.open("rb").close()  # h5py's own message for an unreadable file is unclear
    if not h5py.is_hdf5(path):
        raise Hdf5Error("it is no HDF5 file, or its beginning is damaged")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, Hdf5Error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise Hdf5Error(f"it is damaged or cut short ({reason})") from error


def _find(file: Any, name: str) -> Any:
    """The dataset of that name, reached by hard links alone."""
    import h5py

    found, way = file, ""
    for part in name.split("/"):
        way = f"{way}/{part}".lstrip("/")
        if not isinstance(found, h5py.Group) or part not in found.keys():  # noqa: SIM118  (`in` would follow links)
            held = ", ".join(sorted(found)[:8]) if isinstance(found, h5py.Group) else ""
            raise Hdf5MissingError(f"no {way} in it, expected {name}; found {held or 'nothing'}")
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise Hdf5Error(f"{way} is a link, which is not followed")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise Hdf5Error(f"{name} is no array")
    return found


def _read(dataset: Any, name: str, size: int) -> np.ndarray:
    """The dataset's numbers, after its declared size was held against the file's `size` in bytes."""
    if dataset.dtype.kind not in "iuf":
        raise Hdf5Error(f"{name} holds {dataset.dtype}, not numbers")
    _check_place(dataset, name)
    properties = dataset.id.get_create_plist()
    foreign = [code for k in range(properties.get_nfilters()) if (code := properties.get_filter(k)[0]) not in FILTERS]
    if foreign:
        raise Hdf5Error(f"{name} is packed with filter {foreign[0]}; only deflate and shuffle are read")
    wanted = dataset.dtype.itemsize * int(np.prod(dataset.shape, dtype=object))
    if wanted > min(LARGEST, DEFLATE_RATIO * size):
        raise Hdf5Error(
            f"{name} declares shape {dataset.shape}, {wanted} bytes, more than a file of {size} bytes may hold"
        )
    if not properties.get_nfilters() and dataset.id.get_storage_size() < wanted:
        raise Hdf5Error(
            f"{name} declares shape {dataset.shape}, {wanted} bytes, and keeps {dataset.id.get_storage_size()}"
        )
    values = np.asarray(dataset[()])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _check_place(dataset: Any, name: str) -> None:
    if dataset.id.get_create_plist().get_external_count() or dataset.is_virtual:
        raise Hdf5Error(f"{name} keeps its numbers in another file, which is not followed")
