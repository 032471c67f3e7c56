"""`prepare` without the default face model: its template as five fixed points, and one dlib detector for all tests."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from datamodules.preparation.landmarks import DlibDetector

TEMPLATE = np.array([[80, 92], [144, 92], [112, 128], [86, 160], [138, 160]], float)
"""Eyes, nose and corners of the mouth in a crop of 224 pixels."""

dlib_detector = functools.cache(DlibDetector)  # its model file is large


def prepare_quickly(patch: pytest.MonkeyPatch) -> None:
    """Deriving the default face model is tested elsewhere."""
    patch.setattr("experiments.commands.prepare.photos.default_template", lambda size: TEMPLATE * (size / 224))
    patch.setattr("experiments.commands.prepare.photos.best_detector", lambda name: dlib_detector())
