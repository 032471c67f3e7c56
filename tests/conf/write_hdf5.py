"""HDF5 files of a few arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np


def write_hdf5(path: Path, arrays: Mapping[str, np.ndarray | str | bytes], packed: bool = False) -> Path:
    """Writes arrays and texts by their names, `packed` in chunks with shuffle and deflate; returns the path."""
    options = {"compression": "gzip", "shuffle": True, "chunks": True} if packed else {}
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            # A text is one value, which cannot be packed.
            file.create_dataset(name, data=values, **({} if isinstance(values, str | bytes) else options))
    return path
