"""Two processes train what one does, count what one counts, and share the data without overlap or loss.

Each process has batch statistics of its own in batch norms, and its own random draws. So these tests train a network
without batch norm, on corruptions that are no matter of chance: then both trainings are the same, up to rounding.
"""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batch import MultiViewBatch
from datamodules.wrapped_faces import WrappedFaces
from lightning_modules.mgcnet import MGCNetWeights
from tests.conf.tiny_papers import PAPERS, STEPS, Processes, little, write_configuration


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


class SomeGroups(WrappedFaces):
    """Of every second face, or so, the target view alone, and the epipolar term in some of the other groups: processes
    have unequal numbers of images, of groups and of groups that count."""

    def on_after_batch_transfer(self, batch: MultiViewBatch, dataloader_idx: int) -> MultiViewBatch:
        assert batch.views is not None and batch.truth is not None
        whole = batch.truth.coefficients[batch.views[:, 1], 0] > 0
        rows = [group if keeps else group[1:2] for group, keeps in zip(batch.views, whole, strict=True)]
        starts = np.cumsum([0, *map(len, rows)])
        views = [torch.arange(3) + int(start) for start, group in zip(starts, rows, strict=False) if len(group) == 3]
        kept = torch.cat(rows)
        truth = replace(batch.truth, coefficients=batch.truth.coefficients[kept], depth=batch.truth.depth[kept])
        held = {name: getattr(batch, name)[kept] for name in ("image", "landmarks", "skin", "intrinsics")}
        counts = batch.truth.coefficients[batch.views[:, 1], 1] > 0
        groups = torch.stack(views) if views else torch.zeros(0, 3).long()
        return MultiViewBatch(**held, truth=truth, views=groups, epipolar=counts[whole])


def train(
    processes: Processes, folder: Path, paper: str, world: int, at_once: bool, some_groups: bool = False
) -> list[dict[str, Any]]:
    """What the `StepRecord` of every process holds after `STEPS` steps of 4 faces."""
    folder.mkdir()
    contents = little(paper, 4)
    if some_groups:
        contents["data"] = {"class_path": f"{__name__}.SomeGroups", "init_args": {"data": contents["data"]}}
    if at_once:
        given = contents["model"]["init_args"]
        starts = [name for name in given if name.endswith(("_start", "coarse_steps"))]
        given |= dict.fromkeys(starts, 0)
    config = write_configuration(folder / "config.yaml", contents)
    arguments = [
        "fit", "--config", config, "--run_id=a", f"--trainer.devices={world}",
        "--trainer.callbacks+=tests.conf.tiny_papers.StepRecord", f"--trainer.callbacks.folder={folder}",
    ]  # fmt: skip
    codes = processes.run(folder, arguments, world, MONOFACE_CACHE=str(folder.parent / "cache"))
    assert codes == [0] * world, "\n".join((folder / f"log{rank}").read_text() for rank in range(world))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("at_once", [False, True], ids=["staged", "everything at once"])
@pytest.mark.parametrize("paper", PAPERS)
def test_two_processes_equal_one(tmp_path: Path, processes: Processes, paper: str, at_once: bool) -> None:
    (one,) = train(processes, tmp_path / "one", paper, 1, at_once)
    pair = train(processes, tmp_path / "two", paper, 2, at_once)
    assert_same_training(one, pair, paper)
    assert_same_metrics(tmp_path / "one", tmp_path / "two", paper)


def test_two_processes_with_unequal_groups_equal_one(tmp_path: Path, processes: Processes) -> None:
    (one,) = train(processes, tmp_path / "one", "mgcnet", 1, True, some_groups=True)
    pair = train(processes, tmp_path / "two", "mgcnet", 2, True, some_groups=True)
    assert len(pair[0]["seen"][0]) != len(pair[1]["seen"][0])
    assert_same_training(one, pair, "mgcnet")


def assert_same_training(one: dict[str, Any], pair: list[dict[str, Any]], paper: str) -> None:
    """The data that they saw, the gradients of the first step, and the weights after the last one."""
    assert one["world"] == 1 and [part["world"] for part in pair] == [2, 2]
    assert pair[0]["strategy"] == "DDPStrategy"
    # Every step shows both together what it shows one, and neither what it shows the other.
    for step in range(STEPS):
        shown = [part["seen"][step] for part in pair]
        assert sorted(shown[0] + shown[1]) == sorted(one["seen"][step])
        assert not set(shown[0]) & set(shown[1])
    for rank in (0, 1):
        # Of the first step: later ones also differ by the pixels that rounding moves across an edge.
        mine, its = one["gradients"][0], pair[rank]["gradients"][0]
        assert mine.keys() <= its.keys()
        largest = max(float(value.abs().max()) for value in mine.values())
        for name, value in mine.items():
            assert (its[name] - value).abs().max() <= 1e-5 * largest, (paper, rank, name)
        for name, value in one["weights"].items():
            torch.testing.assert_close(pair[rank]["weights"][name], value, rtol=1e-4, atol=1e-4, msg=name)
    assert max(float((one["weights"][name] - value).abs().max()) for name, value in one["start"].items()) > 1e-2
    # What is drawn for one process's samples is not drawn for the other's.
    assert pair[0]["drawn"] != pair[1]["drawn"]


def assert_same_metrics(one: Path, two: Path, paper: str) -> None:
    """Six validation faces, four of them on one process and two on the other: each counts once."""
    alone, together = (
        json.loads((folder / "runs" / paper / "a" / "metrics.json").read_text()) for folder in (one, two)
    )
    assert alone["initial"].keys() == together["initial"].keys()
    assert {"val/nme", "val/psnr", "val/loss", "val/vertex_rmse_mm"} <= alone["initial"].keys()
    for name, value in alone["initial"].items():
        assert together["initial"][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert alone["final"]["val/loss"] != alone["initial"]["val/loss"]
    for name in ("val/nme", "val/psnr", "val/loss"):
        assert together["final"][name] == pytest.approx(alone["final"][name], rel=1e-3), name


@pytest.fixture(scope="module")
def five_faces(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """What one and two processes say of five validation faces."""
    told = []
    for world in (1, 2):
        folder = tmp_path_factory.mktemp(f"five{world}")
        config = little("mgcnet", 2)
        config["data"]["init_args"]["val_faces"] = 5
        path = write_configuration(folder / "config.yaml", config)
        arguments = ["validate", "--config", path, "--run_id=a", f"--trainer.devices={world}"]
        assert processes.run(folder, arguments, world, MONOFACE_CACHE=str(folder / "cache")) == [0] * world
        told.append(json.loads((folder / "runs/mgcnet/a/metrics.json").read_text())["validate"])
    return told


TERMS = {f"val/{name}" for name in ("loss", *MGCNetWeights().terms())}


def test_metrics_count_an_odd_number_of_faces_once(five_faces: list[dict[str, float]]) -> None:
    one, two = five_faces
    assert one.keys() == two.keys() and len(one.keys() - TERMS) >= 8
    for name in one.keys() - TERMS:
        assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name


def test_terms_count_an_odd_number_of_faces_once(five_faces: list[dict[str, float]]) -> None:
    one, two = five_faces
    for name in one.keys() & TERMS:
        assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name


def test_predictions_are_made_by_one_process(tmp_path: Path, processes: Processes) -> None:
    config = write_configuration(tmp_path / "config.yaml", little("mgcnet", 2))
    arguments = ["predict", "--config", config, "--trainer.devices=2"]
    assert processes.run(tmp_path, arguments, 2, MONOFACE_CACHE=str(tmp_path / "cache")) == [2, 2]
    assert "predict writes one file, from one process" in (tmp_path / "log0").read_text()


def test_a_killed_run_goes_on_on_two_processes(tmp_path: Path, processes: Processes) -> None:
    """In the middle of an epoch, each process with its own random state, to the weights of a run without a break."""
    ends = []
    for name, lives in (("whole", [0]), ("broken", [4, 0])):
        folder = tmp_path / name
        folder.mkdir()
        config = little("rogue", 2, fixed=False)
        config["checkpoint_every"] = 1
        path = write_configuration(folder / "config.yaml", config)
        for life in lives:
            arguments = [
                "fit", "--config", path, "--run_id=a", "--resume=auto", "--trainer.devices=2",
                "--trainer.callbacks+=tests.conf.tiny_papers.LossRecord",
                f"--trainer.callbacks.path={folder / 'curve'}", f"--trainer.callbacks.lives={life}",
            ]  # fmt: skip
            codes = processes.run(folder, arguments, 2, MONOFACE_CACHE=str(tmp_path / "cache"))
            expected = -signal.SIGKILL if life else 0
            assert codes == [expected] * 2, (folder / "log0").read_text() + (folder / "log1").read_text()
        ends.append(torch.load(folder / "runs/rogue/a/checkpoints/last.ckpt", weights_only=True))
    assert "going on from runs/rogue/a/checkpoints/last.ckpt" in (tmp_path / "broken" / "log0").read_text()
    assert [end["global_step"] for end in ends] == [STEPS, STEPS]
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(ends[1]["state_dict"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    states = [[state["torch"] for state in end["monoface_random"]] for end in ends]
    assert [torch.equal(*pair) for pair in zip(*states, strict=True)] == [True, True]
    assert not torch.equal(states[0][0], states[0][1])
