"""Image colour error and its spread against loops, and over processes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from losses.metrics import ImageColorError, ImageColorSpread


def pictures(seed: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    predicted, true = (1.4 * torch.rand(batch, 3, 5, 4, generator=g) - 0.2 for _ in range(2))
    return predicted, true, torch.rand(batch, 1, 5, 4, generator=g) > 0.4


def distances(predicted: Tensor, true: Tensor, mask: Tensor) -> list[list[float]]:
    """Of the masked pixels of every image, by loops."""
    return [
        [
            math.dist(p[:, i, j].clamp(0, 1).tolist(), t[:, i, j].clamp(0, 1).tolist())
            for i, j in np.ndindex(5, 4)
            if m[0, i, j]
        ]
        for p, t, m in zip(predicted, true, mask, strict=True)
    ]


def test_mean_and_spread_equal_loops_over_batches_of_unlike_size() -> None:
    error, spread, seen = ImageColorError(), ImageColorSpread(), []
    for seed, batch in ((0, 3), (1, 1)):
        arguments = pictures(seed, batch)
        error.update(*arguments)
        spread.update(*arguments)
        seen += distances(*arguments)
    mean = np.mean([np.mean(image) for image in seen])
    assert float(error.compute()) == pytest.approx(mean, rel=1e-5)
    variance = np.mean([np.mean((np.array(image) - mean) ** 2) for image in seen])
    assert float(spread.compute()) == pytest.approx(math.sqrt(variance), rel=1e-4)


def test_black_against_white_and_an_image_without_a_face() -> None:
    black, white, mask = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[1] = False
    error, spread = ImageColorError(), ImageColorSpread()
    for metric in (error, spread):
        metric.update(black, white, mask)
    assert float(error.compute()) == pytest.approx(math.sqrt(3))
    assert float(spread.compute()) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("make", [ImageColorError, ImageColorSpread])
def test_a_nan_shows_inside_the_mask_only(make: Any) -> None:
    predicted, true, mask = pictures(2, 2)
    outside = make()
    outside.update(torch.where(mask, predicted, math.nan), true, mask)
    assert outside.compute().isfinite()
    inside = make()
    inside.update(torch.where(mask, math.nan, predicted), true, mask)
    assert inside.compute().isnan()


def test_spread_adds_over_processes_and_equals_numpys() -> None:
    grays = torch.rand(12, generator=torch.Generator().manual_seed(0))
    even = grays[:, None, None, None].expand(-1, 3, 2, 2)
    halves = [ImageColorSpread(), ImageColorSpread()]
    for half, part in zip(halves, (even[:5], even[5:]), strict=True):
        half.update(part, torch.zeros_like(part), torch.ones(len(part), 1, 2, 2, dtype=torch.bool))
    total = ImageColorSpread()
    for state in ("total", "count", "squares"):
        reduce: Any = total._reductions[state]
        setattr(total, state, reduce(torch.stack([getattr(half, state) for half in halves])))
    total._update_count = 1
    assert float(total.compute()) == pytest.approx(math.sqrt(3) * float(np.std(grays.numpy())), rel=1e-4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_nothing_seen_is_nan_and_reset_forgets() -> None:
    spread = ImageColorSpread()
    assert spread.compute().isnan()
    spread.update(*pictures(0, 2))
    assert spread.compute().isfinite()
    spread.reset()
    assert spread.compute().isnan()
