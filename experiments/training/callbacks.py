"""What every training run does beside training: checkpoints, the record of its metrics, pictures, and a guard."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from experiments.training.checkpoint import CONFIG_KEY
from experiments.training.deferred_signals import DeferredSignals
from experiments.training.random_state import (
    RANDOM_KEY,
    RandomState,
    gathered_random_states,
    part_random_state,
    random_state,
    restore_random_state,
)
from experiments.training.run_folder import Metrics, RunFolder, keep_as
from experiments.training.stored_module import Plan
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError

HEADER = 16
"""Pixels above the grid for the panels' names."""


class NonFiniteError(UserError):
    """A batch or a loss holds NaN or infinity."""


class SharedFolder(Callback):
    """Tells every process of a run the folder that the first one reserved.

    Args:
        folder: the run's folder; its path becomes that of the first process.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder.path = Path(trainer.strategy.broadcast(str(self.folder.path)))


class LastCheckpoint(Checkpoint):
    """Keeps `checkpoints/last.ckpt`, and the one before it as `previous.ckpt`.

    It saves after every epoch and every validation, every `every` steps, at the last step, and when a run is
    interrupted. An interruption waits for the end of the step. The random state of every process is saved too, so that
    a resumed run gives the same results as one that never stopped.

    Args:
        folder: the run's folder.
        plan: what the file says of its module, which makes it self-contained.
        every: steps between two checkpoints; 0 keeps to epochs and validations.
    """

    def __init__(self, folder: RunFolder, plan: Plan, every: int = 0) -> None:
        self.folder = folder
        self.plan, self.every = plan, every
        self.saved_step = -1
        self._gathered: list[RandomState] | None = None
        self._restored: list[RandomState] = []
        self._signals = DeferredSignals()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self.plan
        # Whoever else saves by this trainer knows its own process alone.
        checkpoint[RANDOM_KEY] = self._gathered or [random_state()]
        # A batch in whose middle the run was interrupted is given once more.
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        for loader in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", []):
            loader["batches"] = progress.processed

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = list(checkpoint.get(RANDOM_KEY, []))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._signals.hold(trainer)
        rank = trainer.global_rank
        if rank < len(self._restored):
            restore_random_state(self._restored[rank])
        elif rank:
            # Every process was given one seed; what is drawn for its own samples is not drawn for others' too.
            part_random_state(rank)
        self._restored = []
        batches = trainer.fit_loop.epoch_loop.batch_progress
        epochs: Any = trainer.fit_loop.epoch_progress.total
        if batches.is_last_batch and epochs.processed == epochs.started:
            # Resumed from the end of an epoch: Lightning would take the next one for the rest of it.
            batches.reset_on_run()
            epochs.completed = epochs.processed
            trainer.fit_loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, loop, fetcher = trainer.global_step, trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if loop._should_accumulate() or loop.batch_progress.is_last_batch or loop._should_check_val_fx(fetcher):
            return  # Half a step; or the end of an epoch or a validation, after which there is a save anyway.
        if step == trainer.max_steps or (self.every and step % self.every == 0):
            self._save_once(trainer)
        self._answer_signals(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        within_epoch = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and within_epoch:
            self._save(trainer)
            self._answer_signals(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
        # Else the run's last step is not its epoch's: a file from here would say that the epoch was over.
        self._answer_signals(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_once(trainer)
        self._signals.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._signals.release()
        # A step that was broken off is half done, weights that met a NaN are worth nothing, a full disk takes no file.
        hopeless = isinstance(exception, (KeyboardInterrupt, NonFiniteError, OSError))
        if hopeless or trainer.state.fn != TrainerFn.FITTING:
            return
        # Of many processes one alone may have failed, and would wait for the others for ever.
        if trainer.world_size > 1 and not isinstance(exception, SIGTERMException):
            return
        if trainer.global_step > 0:
            self._save_once(trainer)

    def _answer_signals(self, trainer: Trainer) -> None:
        def prepare() -> None:
            self._save_once(trainer)
            self._gathered = gathered_random_states(trainer)  # for what Lightning saves itself

        try:
            self._signals.answer(trainer, prepare)
        finally:
            self._gathered = None

    def _save_once(self, trainer: Trainer) -> None:
        if self.saved_step != trainer.global_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        # Lightning's own atomic save goes through /tmp, which may be another disk. Every process takes part in it.
        self._gathered = gathered_random_states(trainer)
        try:
            if trainer.is_global_zero:
                with written_atomically(self.folder.checkpoint) as temporary:
                    trainer.save_checkpoint(temporary)
                    if self.folder.checkpoint.is_file():
                        keep_as(self.folder.checkpoint, self.folder.previous_checkpoint)
            else:
                trainer.save_checkpoint(self.folder.checkpoint)
        finally:
            self._gathered = None
        self.saved_step = trainer.global_step


class MetricsRecord(Callback):
    """Remembers the metrics of the validation before training, through a resume too, and those of the last one."""

    def __init__(self) -> None:
        self.initial: Metrics = {}
        self.latest: Metrics = {}
        self.latest_step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.latest = validation_metrics(trainer.callback_metrics)
            self.latest_step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        return {"initial": self.initial}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        initial = state_dict.get("initial")
        if not isinstance(initial, dict) or not all(_is_metric(*entry) for entry in initial.items()):
            print("monoface: warning: the checkpoint's first metrics are unreadable, and are left out", file=sys.stderr)
            return
        self.initial = dict(initial)


def _is_metric(name: Any, value: Any) -> bool:
    return isinstance(name, str) and type(value) in (int, float) and math.isfinite(value)


def validation_metrics(metrics: Mapping[str, Any]) -> Metrics:
    """Those called `val/...`, as plain numbers."""
    return {name: float(value) for name, value in sorted(metrics.items()) if name.startswith("val/")}


class TimeLeft(Callback):
    """Says how long the rest of the training will take, as it goes so far.

    Args:
        every: steps between two such lines; the first one comes after a tenth of that.
    """

    def __init__(self, every: int = 500) -> None:
        self.every = every
        self._begun = (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, total = trainer.global_step - self._begun[0], int(trainer.estimated_stepping_batches)
        if done % self.every and done != max(1, self.every // 10):
            return
        minutes = (time.monotonic() - self._begun[1]) / 60 / done * (total - trainer.global_step)
        trainer.print(f"step {trainer.global_step} of {total}: about {minutes:.0f} minutes left")


class FiniteGuard(Callback):
    """Stops a run at the first batch or loss that holds NaN or infinity, with a line that names it.

    On the CPU every step is looked at before it changes a weight. On an accelerator reading a value waits for the
    device, so verdicts are kept there and read every `every` steps and after each validation.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self._pending: list[tuple[int, str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        for name, tensor in _float_tensors(batch):
            self._note(trainer, f"{name} of the training batch {batch_idx}", tensor)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._note(trainer, "the loss", loss)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._pending and trainer.global_step % self.every == 0:
            self._read(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        for name, tensor in _float_tensors(batch):
            self._note(trainer, f"{name} of the validation batch {batch_idx}", tensor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer)

    def _note(self, trainer: Trainer, what: str, tensor: Tensor) -> None:
        finite = torch.isfinite(tensor.detach()).all()
        if finite.device.type != "cpu":
            self._pending.append((trainer.global_step, what, finite))
        elif not finite:
            if tensor.dim() > 1:
                samples = (~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero().flatten().tolist()
                what = f"{what}, sample {samples[0]},"
            self._stop(trainer, trainer.global_step, what)

    def _read(self, trainer: Trainer) -> None:
        if not self._pending:
            return
        verdicts = torch.stack([finite for *_, finite in self._pending]).tolist()
        noted, self._pending = self._pending, []
        for (step, what, _), finite in zip(noted, verdicts, strict=True):
            if not finite:
                self._stop(trainer, step, what)

    def _stop(self, trainer: Trainer, step: int, what: str) -> None:
        if what != "the loss":
            raise NonFiniteError(f"step {step}: {what} holds NaN or infinity: mend or remove that sample")
        terms = [
            name
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and not torch.isfinite(torch.as_tensor(value)).all()
        ]
        told = f" (terms: {', '.join(terms)})" if terms else ""
        raise NonFiniteError(
            f"step {step}: the loss is not finite{told}: lower the learning rate, or switch that term off by its weight"
        )


def _float_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every floating-point tensor in a batch: data classes, mappings, sequences."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name or "the data", value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items: list[tuple[str, object]] = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return
    for key, item in items:
        yield from _float_tensors(item, f"{name}.{key}" if name else key)


@runtime_checkable
class HasPanels(Protocol):
    """A module that can show what it does with a batch."""

    def panels(self, batch: Any) -> dict[str, Tensor]:
        """Pictures by name, in the order to show them, each (n, 3, H, W) sRGB in [0, 1]."""
        ...


class Panels(Callback):
    """Draws the module's panels for the first validation batch into `preview.png` and the logger.

    Args:
        folder: the run's folder; None draws without writing (fast_dev_run).
        rows: how many samples to show.
    """

    def __init__(self, folder: RunFolder | None, rows: int = 6) -> None:
        self.folder = folder
        self.rows = rows

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or dataloader_idx or trainer.sanity_checking or not isinstance(pl_module, HasPanels):
            return
        # Drawn where the whole batch is at hand; every process draws, the first one writes.
        with torch.no_grad():
            grid = panel_grid(pl_module.panels(batch), self.rows)
        if self.folder is None or not trainer.is_global_zero:
            return
        with written_atomically(self.folder.preview) as temporary:
            grid.save(temporary)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("panels", [grid], step=trainer.global_step)


def panel_grid(panels: Mapping[str, Tensor], rows: int) -> Image.Image:
    """One picture: a row per sample, a column per panel, its name above it.

    Args:
        panels: each (n, 3, H, W), values outside [0, 1] are clamped, NaN is black.
        rows: at most so many samples.

    Raises:
        ValueError: there is no panel, or their sizes differ.
    """
    if len({tuple(panel.shape) for panel in panels.values()}) != 1:
        raise ValueError(f"panels need one common size, got { {k: tuple(v.shape) for k, v in panels.items()} }")
    columns = [panel[:rows].detach().float().cpu() for panel in panels.values()]
    pixels = torch.stack(columns, dim=1).nan_to_num(0.0).clamp(0, 1)
    count, width_count, _, height, width = pixels.shape
    image = pixels.permute(0, 3, 1, 4, 2).reshape(count * height, width_count * width, 3)
    # Small renders are enlarged, so that the names have room.
    scale = max(1, round(128 / width))
    size = (width_count * width * scale, count * height * scale)
    picture = Image.fromarray((image * 255).round().byte().numpy()).resize(size, Image.Resampling.NEAREST)
    sheet = Image.new("RGB", (size[0], size[1] + HEADER), "white")
    sheet.paste(picture, (0, HEADER))
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(panels):
        pen.text((column * width * scale + 3, 2), name, fill="black", font=ImageFont.load_default(size=11))
    return sheet
