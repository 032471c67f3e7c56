"""Correlation of highlights against SciPy, angles of light against closed forms."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import pearsonr

from losses.metrics import LightDirectionError, SpecularCorrelation, masked_correlation


def test_correlation_equals_scipys_inside_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.rand(2, 4, 3, 9, 7, generator=generator)
    true = true + 0.7 * predicted
    mask = torch.rand(4, 1, 9, 7, generator=generator) > 0.4
    found = masked_correlation(predicted, true, mask)
    for k in range(4):
        inside = mask[k, 0]
        wanted = pearsonr(predicted[k].mean(dim=0)[inside].numpy(), true[k].mean(dim=0)[inside].numpy()).statistic
        assert found[k] == pytest.approx(wanted, abs=1e-5)
    outside = torch.where(mask, predicted, torch.nan)
    torch.testing.assert_close(masked_correlation(outside, true, mask), found)


def test_even_pictures_and_empty_masks() -> None:
    true = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    everywhere = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    assert masked_correlation(torch.full_like(true, 0.3), true, everywhere).abs().max() < 1e-4
    metric = SpecularCorrelation()
    everywhere[1] = False
    metric.update(true, 2 * true + 1, everywhere)
    assert metric.compute() == pytest.approx(1)  # the second image is left out


def test_median_angle_of_lights_seen_from_the_face() -> None:
    metric = LightDirectionError()
    angles = torch.deg2rad(torch.tensor([0.0, 10, 30, 40, 90]))
    origin = torch.tensor([1.0, 2, 3])
    lights = 7 * torch.stack([angles.sin(), torch.zeros(5), angles.cos()], dim=-1) + origin
    true = torch.tensor([[0.0, 0, 2]]).expand(5, 3)
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update(lights[rows], true[rows], origin.expand(5, 3)[rows], torch.zeros(5, 3)[rows])
    assert metric.compute() == pytest.approx(30, abs=1e-3)
