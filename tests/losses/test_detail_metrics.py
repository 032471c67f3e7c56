"""Metrics of fine detail against scikit-image, SciPy rotations, loops and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity
from torch import Tensor

from losses.metrics import HiddenVertexColorRMSE, MaskedRMSE, MaskedSSIM, NormalAngularError, angle_between
from losses.metrics.mean_metric import MeanMetric

Make = Callable[[], MeanMetric]


def arguments(make: Make, seed: int, batch: int) -> tuple[Tensor, ...]:
    """Random arguments for one update."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=g)

    if make is NormalAngularError:
        return (rand(3, 6, 5) - 0.5) * (rand(1, 6, 5) > 0.3), (rand(3, 6, 5) - 0.5) * (rand(1, 6, 5) > 0.3)
    if make is HiddenVertexColorRMSE:
        return rand(9, 3), rand(9, 3), rand(9) > 0.5
    # Five pixels in from the border, where scikit-image and torchmetrics repeat the picture differently.
    mask = torch.nn.functional.pad(rand(1, 12, 10) > 0.4, (5, 5, 5, 5))
    return 1.4 * rand(3, 22, 20) - 0.2, 1.4 * rand(3, 22, 20) - 0.2, mask


def by_loops(make: Make, *given: Tensor) -> list[float]:
    """One value a face, pixel by pixel or vertex by vertex."""
    values: list[float] = []
    for sample in zip(*(tensor.double().numpy() for tensor in given), strict=True):
        a, b = sample[0], sample[1]
        if make is NormalAngularError:
            pairs = [(a[:, i, j], b[:, i, j]) for i, j in np.ndindex(6, 5) if a[:, i, j].any() and b[:, i, j].any()]
            cosines = [p @ q / np.linalg.norm(p) / np.linalg.norm(q) for p, q in pairs]
            values.append(float(np.mean([math.degrees(math.acos(c)) for c in cosines])))
        elif make is HiddenVertexColorRMSE:
            squares = [(a[v, c] - b[v, c]) ** 2 for v, c in np.ndindex(9, 3) if sample[2][v]]
            values.append(math.sqrt(sum(squares) / len(squares)))
        else:
            a, b, mask = a.clip(0, 1), b.clip(0, 1), sample[2][0] > 0
            if make is MaskedRMSE:
                squares = [(255 * a[c, i, j] - 255 * b[c, i, j]) ** 2 for c, i, j in np.ndindex(*a.shape) if mask[i, j]]
                values.append(math.sqrt(sum(squares) / len(squares)))
            else:
                shown = np.where(mask, a, b)
                options: dict[str, Any] = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5}
                _, full = structural_similarity(shown, b, data_range=1, channel_axis=0, full=True, **options)
                values.append(float(full.mean(axis=0)[mask].mean()))
    return values


METRICS: list[Any] = [NormalAngularError, HiddenVertexColorRMSE, MaskedRMSE, MaskedSSIM]


@pytest.mark.parametrize("make", METRICS)
def test_equals_loops_and_libraries_over_batches_of_unlike_size(make: Make) -> None:
    metric, expected = make(), []
    for seed, batch in ((1, 3), (2, 1), (3, 0)):
        given = arguments(make, seed, batch)
        metric.update(*given)
        expected += by_loops(make, *given)
    assert float(metric.compute()) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("make", METRICS)
def test_states_add_over_processes(make: Make) -> None:
    whole, halves = make(), [make(), make()]
    for half, (seed, batch) in zip(halves, ((1, 3), (2, 1)), strict=True):
        given = arguments(make, seed, batch)
        whole.update(*given)
        half.update(*given)
    total = make()
    for state in ("total", "count"):
        reduce: Any = total._reductions[state]
        setattr(total, state, reduce(torch.stack([getattr(half, state) for half in halves])))
    total._update_count = 1
    torch.testing.assert_close(total.compute(), whole.compute())


@pytest.mark.parametrize("make", METRICS)
def test_a_nan_prediction_shows(make: Make) -> None:
    predicted, *others = arguments(make, 4, 2)
    predicted = torch.full_like(predicted, math.nan)
    metric = make()
    metric.update(predicted, *others)
    assert metric.compute().isnan()


@pytest.mark.parametrize("make", METRICS)
def test_a_face_of_which_nothing_counts_is_left_out(make: Make) -> None:
    both, alone = make(), make()
    given = arguments(make, 5, 2)
    given[-1][1] = 0
    both.update(*given)
    alone.update(*(tensor[:1] for tensor in given))
    torch.testing.assert_close(both.compute(), alone.compute())


@pytest.mark.parametrize("make", [MaskedRMSE, MaskedSSIM])
def test_what_is_outside_the_mask_does_not_count(make: Make) -> None:
    predicted, true, mask = arguments(make, 6, 2)
    clean, spoilt = make(), make()
    clean.update(predicted, true, mask)
    spoilt.update(torch.where(mask, predicted, math.nan), true, mask)
    torch.testing.assert_close(clean.compute(), spoilt.compute())


def test_equal_pictures_and_black_against_white() -> None:
    black, white, mask = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.ones(1, 1, 16, 16) > 0
    for make, same, opposite in ((MaskedRMSE, 0.0, 255.0), (MaskedSSIM, 1.0, 0.0)):
        found = []
        for predicted in (white, black):
            metric: MeanMetric = make()
            metric.update(predicted, white, mask)
            found.append(float(metric.compute()))
        assert found == pytest.approx([same, opposite], abs=1e-3)


@pytest.mark.parametrize("degrees", [0.0, 0.02, 1.0, 33.0, 90.0, 179.0])
def test_angles_are_those_of_rotations(degrees: float) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(50, 3))
    axes = np.cross(vectors, generator.normal(size=(50, 3)))
    axes *= math.radians(degrees) / np.linalg.norm(axes, axis=1, keepdims=True)
    turned = Rotation.from_rotvec(axes).apply(vectors) * generator.uniform(0.5, 2, size=(50, 1))
    found = angle_between(torch.from_numpy(vectors).float(), torch.from_numpy(turned).float())
    np.testing.assert_allclose(found.numpy(), degrees, atol=2e-3)


def test_normals_are_compared_only_where_both_are_drawn() -> None:
    up, aside = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.6, 0.8])
    predicted, true = torch.zeros(1, 3, 1, 4), torch.zeros(1, 3, 1, 4)
    predicted[0, :, 0, :3] = up[:, None]
    true[0, :, 0, 2:] = aside[:, None]
    metric = NormalAngularError()
    metric.update(predicted, true)
    assert float(metric.compute()) == pytest.approx(math.degrees(math.asin(0.6)), abs=1e-4)
