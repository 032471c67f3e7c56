"""Metrics against brute-force NumPy, closed forms, and a reduction over two processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from losses.metrics import (
    DepthError,
    IdentitySimilarity,
    LandmarkNME,
    MaskedPSNR,
    PoseError,
    TextureRMSE,
    VertexRMSE,
    centred_vertex_rmse,
    shape_errors,
    texture_rmse,
    vertex_rmse,
)
from losses.metrics.mean_metric import MeanMetric
from losses.metrics.similarity import umeyama

Make = Callable[[], MeanMetric]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _inputs(seed: int, batch: int = 3) -> dict[str, tuple[Make, tuple[Tensor, ...]]]:
    """Every metric with random arguments for one update."""
    g = _generator(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=g)

    depth_a, depth_b = ((9 + rand(1, 7, 5)) * (rand(1, 7, 5) > 0.3) for _ in range(2))
    return {
        "nme": (LandmarkNME, (rand(68, 2) * 64, rand(68, 2) * 64)),
        "vertex": (VertexRMSE, (rand(40, 3), rand(40, 3))),
        "texture": (TextureRMSE, (rand(40, 3), rand(40, 3))),
        "depth": (DepthError, (depth_a, depth_b)),
        "depth absolute": (lambda: DepthError(up_to_scale=False), (depth_a, depth_b)),
        "pose": (lambda: PoseError("yaw"), (rand(3) * 6 - 3, rand(3) * 6 - 3)),
        "psnr": (MaskedPSNR, (rand(3, 6, 4), rand(3, 6, 4), rand(1, 6, 4) > 0.5)),
        "identity": (IdentitySimilarity, (rand(16) - 0.5, rand(16) - 0.5)),
    }


def _brute_force(name: str, arguments: tuple[Tensor, ...]) -> list[float]:
    """One value per face, by loops over points and pixels."""
    values = []
    for sample in zip(*(a.double().numpy() for a in arguments), strict=True):
        a, b = sample[0], sample[1]
        if name == "nme":
            width, height = b.max(axis=0) - b.min(axis=0)
            distances = [math.dist(p, q) for p, q in zip(a, b, strict=True)]
            values.append(100 * sum(distances) / 68 / math.sqrt(width * height))
        elif name == "vertex":
            values.append(100 * math.sqrt(sum(math.dist(p, q) ** 2 for p, q in zip(a, b, strict=True)) / len(a)))
        elif name == "texture":
            squares = [(a[v, c] - b[v, c]) ** 2 for v, c in np.ndindex(*a.shape)]
            values.append(math.sqrt(sum(squares) / len(squares)))
        elif name.startswith("depth"):
            pairs = [(p, q) for p, q in zip(a.ravel(), b.ravel(), strict=True) if p > 0 and q > 0]
            ratio = sum(q for _, q in pairs) / sum(p for p, _ in pairs) if name == "depth" else 1.0
            values.append(100 * sum(abs(ratio * p - q) for p, q in pairs) / len(pairs))
        elif name == "pose":
            difference = abs(a[1] - b[1])
            values.append(math.degrees(min(difference, 2 * math.pi - difference)))
        elif name == "psnr":
            squares = [(a[c, i, j] - b[c, i, j]) ** 2 for c, i, j in np.ndindex(*a.shape) if sample[2][0, i, j] > 0]
            values.append(-10 * math.log10(sum(squares) / len(squares)))
        else:
            values.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return values


@pytest.mark.parametrize("name", _inputs(0))
def test_equals_brute_force_over_batches_of_unlike_size(name: str) -> None:
    metric = _inputs(0)[name][0]()
    expected: list[float] = []
    for seed, batch in ((1, 3), (2, 1), (3, 0)):
        arguments = _inputs(seed, batch)[name][1]
        metric.update(*arguments)
        expected += _brute_force(name, arguments)
    assert float(metric.compute()) == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("name", _inputs(0))
def test_a_nan_prediction_shows(name: str) -> None:
    make, arguments = _inputs(0)[name]
    metric = make()
    predicted = arguments[0].clone()
    if name == "psnr":
        predicted[1][:, arguments[2][1, 0]] = math.nan
    else:
        predicted[1] = math.nan
    metric.update(predicted, *arguments[1:])
    assert metric.compute().isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("name", _inputs(0))
def test_nothing_seen_is_nan_and_reset_forgets(name: str) -> None:
    make, arguments = _inputs(0)[name]
    metric = make()
    assert metric.compute().isnan()
    metric.update(*arguments)
    assert metric.compute().isfinite()
    metric.reset()
    assert metric.compute().isnan()


@pytest.mark.parametrize("name", _inputs(0))
def test_states_add_over_processes(name: str) -> None:
    """Two halves, gathered and reduced as torchmetrics does under DDP, equal one run over everything."""
    make, _ = _inputs(0)[name]
    whole, halves = make(), [make(), make()]
    for half, (seed, batch) in zip(halves, ((1, 3), (2, 1)), strict=True):
        arguments = _inputs(seed, batch)[name][1]
        whole.update(*arguments)
        half.update(*arguments)
    total = make()
    for state in ("total", "count"):
        reduce: Any = total._reductions[state]
        setattr(total, state, reduce(torch.stack([getattr(half, state) for half in halves])))
    total._update_count = 1
    torch.testing.assert_close(total.compute(), whole.compute())


def test_faces_without_overlap_are_left_out() -> None:
    g = _generator(4)
    true_points = torch.rand(2, 68, 2, generator=g) * 50
    true_points[1] = 3.0  # a box without area
    nme = LandmarkNME()
    nme.update(true_points + 1, true_points)
    alone = LandmarkNME()
    alone.update(true_points[:1] + 1, true_points[:1])
    torch.testing.assert_close(nme.compute(), alone.compute())

    predicted, true = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    predicted[0, 0, 0], true[0, 0, 0] = 9.0, 9.5
    predicted[1, 0, 0], true[1, 0, 1] = 9.0, 9.0  # covered, nowhere by both
    depth = DepthError(up_to_scale=False)
    depth.update(predicted, true)
    assert float(depth.compute()) == pytest.approx(50.0)

    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1, 1] = True
    psnr = MaskedPSNR()
    psnr.update(torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), 0.5), mask)
    assert float(psnr.compute()) == pytest.approx(20.0, abs=1e-4)


def test_depth_error_is_blind_to_scale_only_when_asked() -> None:
    g = _generator(5)
    true = 9 + torch.rand(2, 1, 8, 8, generator=g)
    scaled, absolute = DepthError(), DepthError(up_to_scale=False)
    scaled.update(1.1 * true, true)
    absolute.update(1.1 * true, true)
    assert float(scaled.compute()) == pytest.approx(0.0, abs=1e-3)
    assert float(absolute.compute()) == pytest.approx(10 * float(true.mean()), rel=1e-4)


@pytest.mark.parametrize(("axis", "expected"), [("pitch", 20.0), ("yaw", 30.0), ("roll", 2.0)])
def test_pose_error_by_axis_goes_the_short_way_round(axis: Any, expected: float) -> None:
    metric = PoseError(axis)
    predicted, true = torch.tensor([[10.0, -20.0, 179.0]]), torch.tensor([[-10.0, 10.0, -179.0]])
    metric.update(predicted.deg2rad(), true.deg2rad())
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-3)


def test_psnr_clamps_ignores_what_is_outside_and_is_bounded() -> None:
    true = torch.ones(1, 3, 4, 4)
    predicted = torch.full((1, 3, 4, 4), 7.0)  # clamps to 1
    predicted[0, :, 0] = math.nan
    mask = torch.ones(1, 1, 4, 4)
    mask[0, 0, 0] = 0
    metric = MaskedPSNR()
    metric.update(predicted, true, mask)
    assert float(metric.compute()) == pytest.approx(100.0)


def test_psnr_weighs_by_a_soft_mask() -> None:
    true, predicted = torch.zeros(1, 3, 1, 2), torch.tensor([0.1, 0.5]).expand(1, 3, 1, 2)
    metric = MaskedPSNR()
    metric.update(predicted, true, torch.tensor([1.0, 0.25]).expand(1, 1, 1, 2))
    assert float(metric.compute()) == pytest.approx(-10 * math.log10((0.01 + 0.25 * 0.25) / 1.25), rel=1e-5)


def test_vertex_errors_are_in_their_units_face_by_face() -> None:
    true = torch.rand(2, 5, 3, generator=_generator(6))
    moved = true + torch.tensor([[[0.03, 0.0, 0.04]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(vertex_rmse(moved, true), torch.tensor([5.0, 0.0]), atol=1e-4, rtol=1e-5)
    black, white = torch.zeros(2, 5, 3), torch.ones(2, 5, 3)
    torch.testing.assert_close(texture_rmse(black, white), torch.ones(2))
    torch.testing.assert_close(texture_rmse(white, white), torch.zeros(2))


def test_shape_is_what_a_similarity_leaves_and_size_is_apart() -> None:
    g = _generator(8)
    true = torch.randn(3, 40, 3, generator=g)
    turn = torch.from_numpy(Rotation.random(3, rng=3).as_matrix()).float()
    moved = 1.2 * true @ turn.transpose(1, 2) + torch.tensor([5.0, -2.0, 1.0])
    shape, size = shape_errors(moved, true)
    torch.testing.assert_close(shape, torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(size, torch.full((3,), 20.0), atol=1e-3, rtol=0)
    # Against the numpy alignment, a mirrored face included, which no similarity makes right.
    other = torch.stack(
        [true[0] + 0.1 * torch.randn(40, 3, generator=g), true[1] * torch.tensor([-1.0, 1.0, 1.0]), true[0]]
    )
    for face, value in enumerate(shape_errors(other, true)[0]):
        points, targets = other[face].double().numpy(), true[face].double().numpy()
        left = umeyama(points, targets).apply(points) - targets
        assert float(value) == pytest.approx(100 * np.sqrt((left**2).sum(axis=1).mean()), rel=1e-4)
    unknown = true.clone()
    unknown[1, 3, 0] = torch.nan
    assert torch.stack(shape_errors(unknown, true)).isnan().tolist() == [[False, True, False]] * 2


def test_a_centred_error_is_the_least_over_all_translations() -> None:
    from scipy.optimize import minimize

    g = _generator(7)
    predicted, true = torch.rand(2, 30, 3, generator=g).double(), torch.rand(2, 30, 3, generator=g).double()
    centred = centred_vertex_rmse(predicted, true)
    torch.testing.assert_close(centred_vertex_rmse(predicted + 3, true), centred)
    for face in range(2):

        def error(shift: np.ndarray, face: int = face) -> float:
            moved = predicted[face] + torch.from_numpy(shift)
            return float(vertex_rmse(moved[None], true[face][None]))

        assert float(centred[face]) == pytest.approx(minimize(error, np.zeros(3)).fun, rel=1e-6)
