"""The default model's fingerprint: the same on every machine, another for another model."""

from __future__ import annotations

import numpy as np
import pytest

from renderers.face_models.default import model as default
from renderers.face_models.default.reference import COMPARED, known_as

VERSION = default.DERIVATION_VERSION


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return default.derive(default.load_base(), 0)


@pytest.mark.parametrize("subdivide", [0, 1])
def test_this_machine_derives_the_reference(subdivide: int) -> None:
    model = default.load_default(subdivide)
    assert model.known_as is not None and model.fingerprint() == model.known_as


def test_the_last_digits_do_not_count(arrays: dict[str, np.ndarray]) -> None:
    chance = np.random.default_rng(0)
    other = {name: chance.random(arrays[name].shape) < 0.01 for name in COMPARED}  # a hundred times as many as seen
    rounded = {name: arrays[name] + 1e-6 * other[name] for name in COMPARED}
    assert known_as({**arrays, **rounded}, VERSION, 0) == known_as(arrays, VERSION, 0) is not None


@pytest.mark.parametrize("name", COMPARED)
def test_any_other_change_does(arrays: dict[str, np.ndarray], name: str) -> None:
    changed = arrays[name].copy()
    changed[..., 0] *= -1  # the first mode, or the first coordinate
    assert known_as({**arrays, name: changed}, VERSION, 0) is None


def test_other_triangles_versions_and_levels_do(arrays: dict[str, np.ndarray]) -> None:
    assert known_as({**arrays, "faces": arrays["faces"][:, ::-1][:-1]}, VERSION, 0) is None
    assert known_as(arrays, VERSION + 1, 0) is None
    assert known_as(arrays, VERSION, 7) is None
