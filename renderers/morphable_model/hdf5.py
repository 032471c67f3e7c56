"""Arrays of numbers out of an HDF5 file by name, following nothing that leads out of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 2**31  # bytes of one array; the full head of BFM 2019 takes 280 MB
DEFLATE_RATIO = 1040  # zlib packs at most 1032 bytes into one
FILTERS = (1, 2, 3)  # deflate, shuffle, Fletcher's checksum: every other one may be a plug-in


class Hdf5Error(ValueError):
    """Why a file cannot be read, as a clause without the file's name."""


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
    import h5py

    size = path.stat().st_size
    path.open("rb").close()  # what h5py tells of a file that may not be read is no message for people
    if not h5py.is_hdf5(path):
        raise Hdf5Error("it is no HDF5 file, or its beginning is damaged")
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {name: _read(_find(file, name), name, size) for name in names}
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
            raise Hdf5Error(f"no {way} in it, expected {name}; found {held or 'nothing'}")
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
    properties = dataset.id.get_create_plist()
    if properties.get_external_count() or dataset.is_virtual:
        raise Hdf5Error(f"{name} keeps its numbers in another file, which is not followed")
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
