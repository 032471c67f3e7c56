"""Angles between rotations, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from losses.rotation import geodesic_distance


def test_the_angle_is_scipys() -> None:
    first, second = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)
    expected = (first.inv() * second).magnitude()
    found = geodesic_distance(torch.tensor(first.as_matrix()), torch.tensor(second.as_matrix()))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-4, np.pi])
def test_the_slope_is_finite_where_the_angle_is_extreme(angle: float) -> None:
    first = torch.eye(3, dtype=torch.float64, requires_grad=True)
    distance = geodesic_distance(first, torch.tensor(Rotation.from_rotvec([0, angle, 0]).as_matrix()))
    distance.backward()
    np.testing.assert_allclose(distance.item(), angle, atol=5e-6)
    assert first.grad is not None and first.grad.isfinite().all()
