"""The prior on the coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.synthesis.scenes import SceneSettings, _sample_light
from losses.regularization import USUAL_LIGHT, coefficient_regularization, light_regularization
from renderers.coefficients import CoefficientLayout

LAYOUT = CoefficientLayout(identity=4, expression=3, albedo=2)


def test_each_group_has_the_papers_weight() -> None:
    vector = torch.zeros(4, LAYOUT.length)
    vector[0, 0:4] = torch.tensor([1.0, -2.0, 0.0, 2.0])  # identity: squares sum to 9
    vector[1, 4:7] = torch.tensor([1.0, 1.0, -1.0])  # expression: 3
    vector[2, 7:9] = torch.tensor([10.0, -20.0])  # albedo: 500
    vector[3, 9:] = 5.0  # pose and light: free
    loss = coefficient_regularization(LAYOUT.split(vector))
    assert loss.tolist() == pytest.approx([9.0, 0.8 * 3, 3e-3 * 500, 0.0])


def test_weights_can_be_chosen() -> None:
    vector = torch.ones(1, LAYOUT.length)
    loss = coefficient_regularization(LAYOUT.split(vector), identity=2.0, expression=3.0, albedo=5.0)
    assert loss.tolist() == pytest.approx([2 * 4 + 3 * 3 + 5 * 2])


def test_a_deviation_of_the_distance_counts_as_one_of_the_identity() -> None:
    vector = torch.zeros(2, LAYOUT.length)
    vector[0, -1] = -0.35  # decimetres of t_z
    vector[1, 0] = 1.0
    assert coefficient_regularization(LAYOUT.split(vector), distance=1.0).tolist() == pytest.approx([1.0, 1.0])
    assert coefficient_regularization(LAYOUT.split(vector)).tolist() == pytest.approx([0.0, 1.0])


def test_blend_weights_outside_their_range_cost_what_they_are_beyond_it() -> None:
    vector = torch.zeros(3, LAYOUT.length)
    vector[0, 4:7] = torch.tensor([0.0, 1.0, 0.5])
    vector[1, 4:7] = torch.tensor([-0.2, 1.3, 0.5])
    vector[2, :4] = 4.0
    found = coefficient_regularization(LAYOUT.split(vector), 0.0, 0.0, 0.0, outside=2.0)
    assert found.tolist() == pytest.approx([0.0, 2 * (0.2**2 + 0.3**2), 0.0])


def test_gradcheck() -> None:
    vector = torch.randn(2, LAYOUT.length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: coefficient_regularization(LAYOUT.split(v)), (vector,))


def test_the_light_should_be_white_and_near_the_ambient() -> None:
    coefficients = LAYOUT.split(torch.zeros(4, LAYOUT.length))
    light = coefficients.illumination.view(4, 3, 9)
    light[1, :, 0] = 2.0  # white: strength alone, 4
    light[2, 0, 3], light[2, 1, 3], light[2, 2, 3] = 3.0, 0.0, -3.0  # no strength on average: tint alone, 9 + 9
    light[3, :, 1], light[3, 2, 1] = 1.0, 4.0  # mean 2, deviations -1, -1, 2
    loss = light_regularization(coefficients, tint=10.0, strength=1.0)
    assert loss.tolist() == pytest.approx([0.0, 4.0, 180.0, 60.0 + 4.0])


def test_the_usual_light_is_the_mean_of_the_synthetic_data() -> None:
    generators = [np.random.default_rng(index) for index in range(4000)]
    drawn = np.stack([_sample_light(SceneSettings(), generator).mean(axis=0) for generator in generators])
    np.testing.assert_allclose(USUAL_LIGHT[0], drawn[:, 0].mean(), atol=0.02)
    np.testing.assert_allclose(USUAL_LIGHT[2], drawn[:, 2].mean(), atol=0.02)
    coefficients = LAYOUT.split(torch.zeros(2, LAYOUT.length))
    light = coefficients.illumination.view(2, 3, 9)
    light[1] = torch.tensor(USUAL_LIGHT)
    light[1, :, 0] += torch.tensor([1.0, 2.0, 6.0])  # 3 more than usual on average
    loss = coefficient_regularization(coefficients, usual_light=2.0)
    assert loss.tolist() == pytest.approx([2 * sum(u * u for u in USUAL_LIGHT), 18.0], rel=1e-5)
