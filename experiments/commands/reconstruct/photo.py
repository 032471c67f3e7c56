"""The photograph that is reconstructed. It does not import torch, so that an unreadable file is reported at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.preparation.file_names import printable
from datamodules.preparation.photo_file import read_photo

DEFAULT_PHOTO = "astronaut"


@dataclass(frozen=True)
class Photo:
    """A photograph as it is meant to be seen: see `read_photo`.

    Attributes:
        name: what its results are called.
        source: where it came from.
        pixels: (H, W, 3) uint8 sRGB.
    """

    name: str
    source: str
    pixels: np.ndarray


def open_photo(path: Path) -> Photo:
    """Read a photograph file.

    Raises:
        UserError: no such file, not an image, a damaged one, or one too large to open safely.
    """
    return Photo(printable(path.stem), printable(str(path)), read_photo(path))


def default_photo() -> Photo:
    """The photograph that is reconstructed when none is given: scikit-image's astronaut (public domain)."""
    from skimage import data

    return Photo(DEFAULT_PHOTO, "skimage.data.astronaut()", data.astronaut())
