"""Whether eyes are open where they are open: the lids' correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.metrics import LidCorrelation


def test_it_is_numpys_correlation_over_all_eyes_of_all_batches() -> None:
    predicted, true = torch.rand(2, 7, 68, 3, generator=torch.Generator().manual_seed(0))
    metric = LidCorrelation()
    metric.update(predicted[:3], true[:3])
    metric.update(predicted[3:], true[3:])
    pairs = ((37, 41), (38, 40), (43, 47), (44, 46))
    distances = [
        [np.linalg.norm(face[upper] - face[lower]) for face in points.numpy() for upper, lower in pairs]
        for points in (predicted, true)
    ]
    assert float(metric.compute()) == pytest.approx(np.corrcoef(*distances)[0, 1], abs=1e-5)


def test_size_does_not_matter_but_eyes_that_are_always_half_open_tell_nothing() -> None:
    true = torch.rand(5, 68, 3)
    metric = LidCorrelation()
    metric.update(0.5 * true, true)
    assert float(metric.compute()) == pytest.approx(1, abs=1e-5)
    metric.reset()
    metric.update(torch.zeros_like(true), true)
    assert metric.compute().isnan()
