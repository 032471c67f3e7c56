"""Whole training steps as the trainer runs them, timed beside the bare backbone."""

from __future__ import annotations

import copy
import gc
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datamodules.batch import CorruptedBatch, FaceBatch
from experiments.commands.bench.measure import Row, Stopwatch, compare, peak_mib, reset_peak, summary
from experiments.commands.bench.render import forward_and_backward
from lightning_modules.base import FaceModule

UNCOUNTED = 1  # steps that warm up


@dataclass
class Timings:
    """Seconds of each counted step of a run.

    Attributes:
        step: from the batch to the moved weights.
        wait: for the loader's next batch.
        between: from the end of a step to the begin of the next: waiting, making the batch ready on its device
            (corruptions, skin by colour, augmentation), and the trainer's own loop.
        reference: what was run before each step, if anything.
        peak: MiB, the most of all steps.
    """

    step: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    peak: float | None = None


class StepTimer(Callback):
    """Runs the reference before every step, and keeps what both took.

    Args:
        reference: from a batch to a function that is timed; None times the steps alone.
    """

    def __init__(self, reference: Callable[[Any], Callable[[], object]] | None) -> None:
        self.reference, self.timings, self.steps = reference, Timings(), 0
        self.begun = self.ended = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The reference, and the clock's start."""
        now = _now(module.device)
        if self.steps > UNCOUNTED:
            self.timings.between.append(now - self.ended)
        if self.reference is not None:
            watch = Stopwatch(self.reference(batch), module.device)
            watch.run()
            if self.steps >= UNCOUNTED:
                self.timings.reference += watch.seconds
        reset_peak(module.device)
        self.begun = _now(module.device)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The clock's end."""
        self.ended = _now(module.device)
        if self.steps >= UNCOUNTED:
            self.timings.step.append(self.ended - self.begun)
            peak = peak_mib(module.device)
            if peak is not None:
                self.timings.peak = max(peak, self.timings.peak or 0.0)
        self.steps += 1


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Repeated(IterableDataset):
    """One batch again and again.

    Args:
        batch: any.
        count: how often.
    """

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


def always(batch: Any, steps: int) -> DataLoader[Any]:
    """A loader of the same batch for every counted and uncounted step."""
    return DataLoader(Repeated(batch, UNCOUNTED + steps), batch_size=None)


def timed_fit(
    module: LightningModule,
    data: Any,
    steps: int,
    device: torch.device,
    reference: Callable[[Any], Callable[[], object]] | None = None,
) -> Timings:
    """Trains for a few steps, and says what they took; nothing is written.

    Args:
        module: of a paper.
        data: a loader or a data module.
        steps: how many are counted.
        device: where.
        reference: see `StepTimer`.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gc.collect()  # A trainer and its module hold each other: the last run's would stay beside this one's.
    timer, profiler = StepTimer(reference), SimpleProfiler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and loggers.
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_steps=UNCOUNTED + steps,
            logger=False,
            callbacks=[timer],
            profiler=profiler,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, data)
    reads = profiler.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]
    timer.timings.wait = reads[UNCOUNTED + 1 : UNCOUNTED + steps]
    return timer.timings


def seen_images(batch: FaceBatch) -> Tensor:
    """(B, 3, H, W) every image that a paper's backbone is shown of a batch."""
    corrupted: Iterable[Tensor] = batch.corrupted.values() if isinstance(batch, CorruptedBatch) else ()
    return torch.cat([batch.image, *corrupted])


def backbone_alone(module: FaceModule) -> Callable[[Any], Callable[[], None]]:
    """From a batch to the backbone's own forward and backward on every image in it."""
    backbone = copy.deepcopy(module.regressor.backbone)

    def on(batch: Any) -> Callable[[], None]:
        return forward_and_backward(backbone.to(batch.image.device), seen_images(batch))

    return on


def step_row(name: str, case: str, device: torch.device, timings: Timings, against: str) -> Row:
    """The row for whole steps beside the reference that was run before each."""
    ours = summary(timings.step, timings.peak)
    return compare(name, case, device, ours, against, summary(timings.reference, None).median_s)
