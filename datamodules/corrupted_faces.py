"""Any data module's faces, with occluded and noisy copies of every picture."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import torch
from lightning import LightningDataModule
from torch import nn

from datamodules.batch import CorruptedBatch, FaceBatch
from datamodules.corruption import DelusionalOcclusion, Noise, RationalOcclusion
from datamodules.wrapped_faces import WrappedFaces

# Rational occlusions are kept for evaluation (ROGUE, section 4.1).
TRAINING: Mapping[str, Callable[[], nn.Module]] = {"delusional": DelusionalOcclusion, "noisy": Noise}
EVALUATION: Mapping[str, Callable[[], nn.Module]] = {"rational": RationalOcclusion, **TRAINING}


@torch.no_grad()
def corrupt(
    batch: FaceBatch, corruptions: Mapping[str, nn.Module], generator: torch.Generator | None = None
) -> CorruptedBatch:
    """The batch with a copy of its images for every corruption, by name.

    Args:
        batch: of clean faces.
        corruptions: modules of `datamodules.corruption`.
        generator: the same state draws the same; torch's own where absent.
    """
    results = {name: module(batch.image, batch.landmarks, generator) for name, module in corruptions.items()}
    clean = {f.name: getattr(batch, f.name) for f in fields(FaceBatch)}
    corrupted = {name: result.image for name, result in results.items()}
    return CorruptedBatch(**clean, corrupted=corrupted, masks={name: result.mask for name, result in results.items()})


class CorruptedFaces(WrappedFaces):
    """Yields `CorruptedBatch`: delusional and noisy copies in training, rational ones too in validation and test.

    Training copies are drawn anew every time, on the batch's device. Those of validation, test and prediction are a
    function of the seed and the faces alone.

    Args:
        data: where the clean faces come from; its batches may be any `FaceBatch`.
        seed: of the corruptions outside training.
        corrupted_training: replace every clean training picture by a delusional or noisy one: the data of the baseline
            without guidance (ROGUE, section 6.3.1).
        robust_start: the training step from which batches have copies; those before it have none. The command line
            sets it to the module's argument of the same name.
    """

    def __init__(
        self, data: LightningDataModule, seed: int = 0, corrupted_training: bool = False, robust_start: int = 0
    ) -> None:
        super().__init__(data)
        self.seed, self.corrupted_training, self.robust_start = seed, corrupted_training, robust_start
        self.train_corruptions = {name: make() for name, make in TRAINING.items()}
        self.evaluation_corruptions = {name: make() for name, make in EVALUATION.items()}

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> CorruptedBatch:
        """Adds the corrupted copies to a batch. They are drawn on the batch's device."""
        clean: FaceBatch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer is None or not self.trainer.training:
            return corrupt(clean, self.evaluation_corruptions, self.generator(clean))
        if not self.corrupted_training:
            started = self.trainer.global_step >= self.robust_start
            return corrupt(clean, self.train_corruptions if started else {})
        corrupted = corrupt(clean, self.train_corruptions)
        even = (torch.arange(len(clean), device=clean.image.device) % 2 == 0).view(-1, 1, 1, 1)
        image = torch.where(even, corrupted.corrupted["delusional"], corrupted.corrupted["noisy"])
        return replace(corrupted, image=image)

    def generator(self, batch: FaceBatch) -> torch.Generator:
        """A stream of the seed and the batch's landmarks: the same faces are corrupted the same way on every device."""
        # 32 bits: torch's generator ignores the rest of a longer seed.
        return torch.Generator().manual_seed(zlib.crc32(batch.landmarks.cpu().numpy().tobytes(), self.seed))
