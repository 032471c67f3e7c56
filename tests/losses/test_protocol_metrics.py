"""Metrics of the benchmarks' protocols: closed forms, NumPy, and two processes against one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torchmetrics import Metric

from losses.metrics import LandmarkNME, PointToPlaneError, PooledDistances, YawBinnedNME, landmark_nme
from losses.metrics.landmark import yaw_bin
from tests.losses.test_registration import relief


def faces(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and true points, and yaw angles."""
    generator = torch.Generator().manual_seed(seed)
    true = 200 * torch.rand(count, 68, 2, generator=generator)
    predicted = true + 3 * torch.randn(true.shape, generator=generator)
    return predicted, true, torch.linspace(-95, 95, count)


def test_nme_is_of_the_true_points_box() -> None:
    true = torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    true[0], true[1] = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    true = true[None] * torch.tensor([40.0, 90.0])  # a box of 40 x 90, and sqrt(40 * 90) = 60
    predicted = true + torch.tensor([0.36, -0.48])  # 0.6 pixels away, every one
    assert float(landmark_nme(predicted, true)) == pytest.approx(1.0, rel=1e-5)
    assert float(landmark_nme(7 * predicted + 3, 7 * true + 3)) == pytest.approx(1.0, rel=1e-4)
    order = torch.randperm(68, generator=torch.Generator().manual_seed(1))
    assert float(landmark_nme(predicted[:, order], true[:, order])) == pytest.approx(1.0, rel=1e-5)


def test_bins_of_yaw() -> None:
    yaw = torch.tensor([0.0, 30.0, -30.0, 30.5, -60.0, 60.5, 90.0, -98.0])
    assert yaw_bin(yaw).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_the_mean_weighs_bins_and_not_faces() -> None:
    predicted, true, _ = faces(6)
    yaw = torch.tensor([1.0, -2.0, 3.0, 40.0, -50.0, 80.0])
    metric = YawBinnedNME()
    metric.update(predicted[:4], true[:4], yaw[:4])
    metric.update(predicted[4:], true[4:], yaw[4:])
    each = landmark_nme(predicted, true)
    bins = torch.stack([each[:3].mean(), each[3:5].mean(), each[5]])
    torch.testing.assert_close(metric.compute().float(), torch.cat([bins, bins.mean()[None]]))
    empty = YawBinnedNME()
    empty.update(predicted[:2], true[:2], yaw[:2])
    values = empty.compute()
    assert values[1:3].isnan().all() and float(values[3]) == pytest.approx(float(each[:2].mean()))
    # A face without extent is left out, as `LandmarkNME` leaves it out.
    empty.update(predicted[:1], torch.zeros(1, 68, 2), torch.zeros(1))
    torch.testing.assert_close(empty.compute(), values, equal_nan=True)


def test_pooled_figures_are_numpys() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.gamma(2, 0.8, size) for size in (1000, 1, 4321)]
    metric = PooledDistances()
    for part in parts:
        metric.update(torch.from_numpy(part))
    pooled = np.concatenate(parts)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["mean"] == pytest.approx(pooled.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(pooled.std(), rel=1e-9)
    assert found["median"] == pytest.approx(np.median(pooled), abs=1e-3)
    places, share = metric.cumulative(7.0)
    assert (float(places[0]), float(places[-1]), len(places)) == (0.0, pytest.approx(7.0), 7001)
    for row in (0, 500, 1190, 7000):
        assert float(share[row]) == pytest.approx((pooled < float(places[row])).mean(), abs=1e-9)
    assert (share.diff() >= 0).all()


def test_pooled_limits() -> None:
    metric = PooledDistances()
    metric.update(torch.zeros(3))
    assert {name: float(value) for name, value in metric.compute().items()} == {
        "median": pytest.approx(0, abs=1e-3), "mean": 0.0, "std": 0.0,
    }  # fmt: skip
    metric.update(torch.tensor([1000.0]))  # beyond the histogram: counted, and mean and deviation exact
    assert float(metric.compute()["mean"]) == 250.0
    assert float(metric.cumulative(7.0)[1][-1]) == 0.75
    metric.update(torch.tensor([torch.nan]))
    assert all(value.isnan() for value in metric.compute().values())


def fed(metric: Metric, part: slice) -> Metric:
    """The metric after it has seen a part of 40 faces."""
    predicted, true, yaw = (tensor[part] for tensor in faces(40))
    if isinstance(metric, YawBinnedNME):
        metric.update(predicted, true, yaw)
    elif isinstance(metric, LandmarkNME):
        metric.update(predicted, true)
    elif isinstance(metric, PooledDistances):
        metric.update((predicted - true).norm(dim=-1).flatten())
    else:
        points, normals = (torch.from_numpy(array)[None] for array in relief(12))
        rough = points + 0.02 * (predicted - true)[:4].flatten()[:432].view(1, -1, 3)
        metric.update(rough, points, normals)
    return metric


METRICS = (YawBinnedNME, LandmarkNME, PooledDistances, PointToPlaneError)
PARTS = (slice(0, 11), slice(11, 40))  # unequal, as the last batches of a run are


def figures(metric: Metric) -> list[float]:
    value = metric.compute()
    values = value.values() if isinstance(value, dict) else value.reshape(-1)
    return [float(figure) for figure in values]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = [figures(fed(metric(), PARTS[rank])) for metric in METRICS]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    mp.spawn(process, args=(str(tmp_path),), nprocs=2)
    alone = []
    for metric in METRICS:
        whole = metric()
        for part in PARTS:
            fed(whole, part)
        alone.append(figures(whole))
    for rank in range(2):
        for name, mine, together in zip(METRICS, alone, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert mine == pytest.approx(together, rel=1e-5), name
