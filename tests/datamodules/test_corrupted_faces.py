"""Corrupted copies of any data module's pictures: new in training, the same every time elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.batch import CorruptedBatch, FaceBatch, MultiViewBatch
from datamodules.corrupted_faces import CorruptedFaces
from tests.conf.scenes import exact_batch, small_face_model


class Brightened(LightningDataModule):
    """A few exact faces, brightened after they reached the device, to show that this still happens."""

    def __init__(self) -> None:
        super().__init__()
        self.batch, _ = exact_batch(small_face_model(), faces=3, size=48, views=1)
        self.asked: list[str] = []

    def prepare_data(self) -> None:
        self.asked.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.asked.append(f"setup {stage}")

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batch], batch_size=None)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader

    def on_after_batch_transfer(self, batch: MultiViewBatch, dataloader_idx: int) -> MultiViewBatch:
        batch.image = (batch.image + 0.1).clamp(0, 1)
        return batch


def corrupted(training: bool, step: int = 0, **arguments: object) -> tuple[CorruptedBatch, FaceBatch]:
    data = CorruptedFaces(Brightened(), **arguments)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(training=training, global_step=step)
    data.trainer = trainer
    loader = data.train_dataloader() if training else data.val_dataloader()
    (batch,) = list(loader)
    clean = (batch.image + 0.1).clamp(0, 1)
    return data.on_after_batch_transfer(batch, 0), FaceBatch(clean, batch.landmarks, batch.skin, batch.intrinsics)


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exact_and_the_clean_picture_stays(training: bool) -> None:
    batch, clean = corrupted(training)
    assert torch.equal(batch.image, clean.image)
    assert set(batch.corrupted) == {"delusional", "noisy"} | (set() if training else {"rational"})
    for name, image in batch.corrupted.items():
        changed = (image != clean.image).any(dim=1, keepdim=True)
        assert changed.any(dim=(1, 2, 3)).all(), name
        assert not (changed & ~batch.masks[name]).any(), name
        assert image.min() >= 0 and image.max() <= 1


def test_new_every_time_in_training_and_never_elsewhere() -> None:
    first, second = (corrupted(training=True)[0] for _ in range(2))
    assert not torch.equal(first.corrupted["delusional"], second.corrupted["delusional"])
    first, second = (corrupted(training=False)[0] for _ in range(2))
    other = corrupted(training=False, seed=1)[0]
    for name, image in first.corrupted.items():
        assert torch.equal(image, second.corrupted[name])
        assert not torch.equal(image, other.corrupted[name])


def test_copies_are_drawn_from_the_step_that_is_given() -> None:
    assert not corrupted(training=True, robust_start=5, step=4)[0].corrupted
    assert set(corrupted(training=True, robust_start=5, step=5)[0].corrupted) == {"delusional", "noisy"}
    assert corrupted(training=False, robust_start=5)[0].corrupted
    assert corrupted(training=True, robust_start=5, corrupted_training=True)[0].corrupted


def test_a_baseline_is_shown_corrupted_pictures_in_training_alone() -> None:
    batch, clean = corrupted(training=True, corrupted_training=True)
    assert torch.equal(batch.image[0::2], batch.corrupted["delusional"][0::2])
    assert torch.equal(batch.image[1::2], batch.corrupted["noisy"][1::2])
    assert torch.equal(batch.landmarks, clean.landmarks)
    assert torch.equal(corrupted(training=False, corrupted_training=True)[0].image, clean.image)


def test_the_wrapped_data_module_prepares_itself() -> None:
    inner = Brightened()
    data = CorruptedFaces(inner)
    data.prepare_data()
    data.setup("fit")
    assert inner.asked == ["prepare_data", "setup fit"]
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        assert len(loader) == 1


def test_a_batch_moves_as_a_whole() -> None:
    batch, _ = corrupted(training=False)
    moved = batch.to(torch.float64)
    assert isinstance(moved, CorruptedBatch)
    assert {image.dtype for image in (moved.image, *moved.corrupted.values())} == {torch.float64}
