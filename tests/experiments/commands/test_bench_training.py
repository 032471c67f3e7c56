"""Training steps under the clock: what is counted as a step, as waiting and as the reference; every case runs."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import CorruptedBatch, FaceBatch
from experiments.commands.bench import full_step, step, training
from experiments.commands.bench.meshes import face_like_model
from lightning_modules.components.backbones import ResNet
from losses.encoders import DlibEncoder, DlibLayers

CPU = torch.device("cpu")


class Sleeper(LightningModule):
    """A step of 20 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        time.sleep(0.02)
        return self.weight * batch.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SlowData(Dataset[Tensor]):
    """Three batches an epoch, each after 40 ms."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        time.sleep(0.04)
        return torch.ones(2)


def test_steps_waiting_and_reference_are_told_apart() -> None:
    order: list[str] = []

    def reference(batch: Tensor) -> Any:
        order.append("reference")
        return lambda: time.sleep(0.01)

    timings = training.timed_fit(Sleeper(), DataLoader(SlowData(), batch_size=None), 5, CPU, reference)
    assert [len(part) for part in (timings.step, timings.reference)] == [5, 5]
    assert len(timings.wait) == len(timings.between) == 4, "what passed before the first counted step was warming up"
    assert min(timings.step) >= 0.02 and max(timings.step) < 0.04 + 0.2
    assert min(timings.wait) >= 0.04, "also between two epochs"
    assert all(wait <= between for wait, between in zip(timings.wait, timings.between, strict=True))
    assert min(timings.reference) >= 0.01
    assert len(order) == training.UNCOUNTED + 5
    row = training.step_row("step", "sleeper", CPU, timings, "a nap")
    assert 0.1 < row.ratio < 1


def test_the_same_batch_for_every_step() -> None:
    batch = torch.ones(1)
    loader = training.always(batch, 3)
    assert [item is batch for item in loader] == [True] * (3 + training.UNCOUNTED)


def test_every_image_that_the_backbone_sees() -> None:
    model = face_like_model(200, 2, 2, 2)
    single = full_step.single_faces(model, 2)
    assert type(single) is FaceBatch
    assert training.seen_images(single).shape == (2, 3, full_step.SIZE, full_step.SIZE)
    corrupted = dict.fromkeys(("delusional", "noisy"), single.image)
    batch = CorruptedBatch(
        single.image, single.landmarks, single.skin, single.intrinsics, corrupted=corrupted, masks={}
    )
    assert len(training.seen_images(batch)) == 6


def test_faces_of_a_batch_are_seen_from_several_sides() -> None:
    batch = full_step.views_of_faces(face_like_model(800, 2, 2, 2), 6, views=3)
    assert len(batch) == 6
    target, source = batch.pairs()
    assert target.tolist() == [1, 1, 4, 4]
    assert source.tolist() == [0, 2, 3, 5]
    assert (batch.landmarks[0] - batch.landmarks[2]).abs().max() > 10, "turned"
    assert (batch.skin.flatten(1).mean(dim=1) > 0.1).all()


@pytest.mark.slow
def test_every_paper_takes_its_full_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """In little: the papers' own modules, each with and without its frozen encoders, through the trainer."""

    def little(faces: int, *sizes: int, specular: bool = False) -> Any:
        return face_like_model(300, 4, 3, 2, specular)

    monkeypatch.setattr(full_step, "face_like_model", little)
    for name, value in {"SIZE": 48, "DEPTH": 18}.items():
        monkeypatch.setattr(full_step, name, value)
    monkeypatch.setattr(full_step, "VGG", lambda depth, **_: ResNet(18))
    for encoder in (DlibEncoder, DlibLayers):
        monkeypatch.setattr(full_step, encoder.__name__, partial(encoder, 103))
    monkeypatch.setattr(training, "UNCOUNTED", 0)
    shipped = full_step.cases
    monkeypatch.setattr(full_step, "cases", lambda *given: [replace(case, steps=2) for case in shipped(*given)])
    rows = list(full_step.run(CPU))
    assert len(rows) == 9
    assert all(row.ratio > 0 and row.name == "full_step" for row in rows)
    papers = [row.case.split(":")[0] for row in rows]
    assert papers[:6] == ["MGCNet", "MGCNet", "ROGUE", "ROGUE", "specular", "specular"]
    assert [row.case.rsplit(", ", 1)[1] for row in rows[:2]] == ["without frozen encoders", "with frozen encoders"]
    images = [int(row.case.split(": ")[1].split()[0]) for row in rows]
    assert images == [6] * 8 + [2], "ROGUE's six are two clean ones and the two copies of each"
    in_bfloat16 = replace(shipped(little(300), little(300, specular=True), bfloat16=True)[0], steps=2)
    assert in_bfloat16.make(False).regressor.backbone.mixed_precision
    assert full_step.measured(in_bfloat16, False, CPU, ", bfloat16 backbone").case.endswith("bfloat16 backbone")


@pytest.mark.slow
def test_default_runs_are_built_with_every_term() -> None:
    """From the shipped configurations, drawn at the size at which their data is read."""
    for run in (step.RUNS[1], step.RUNS[4]):
        module, data = step.built(run)
        for name, value in run.model.items():
            assert getattr(module, name) == value
        inner = data.data if hasattr(data, "data") else data
        assert inner.counts["train"] == step.FACES
        assert module.image_size == inner.size


def test_every_paper_has_a_stage_that_is_measured() -> None:
    papers = {path.parent.name for path in Path(step.EXPERIMENTS).glob("*/default.yaml")}
    assert {run.paper for run in step.RUNS} == papers
