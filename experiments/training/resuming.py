"""Going on from a run: which one it is, where a checkpoint and a command disagree, and damage told in a line."""

from __future__ import annotations

import contextlib
import re
import reprlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import RunFolder
from lightning_modules.components.checkpoint_file import mismatch
from renderers.io.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg")
"""What torch's optimizers keep of a parameter, in its shape."""
GO_ON = "Another version of the code wrote it, or the arguments changed: go on with those it was trained with"


def differences(stored: dict[str, Any], given: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line for every argument on which a checkpoint and a command disagree."""
    for name in dict.fromkeys([*stored, *given]):
        there, here = stored.get(name), given.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            yield from differences(there, here, prefix if name == "arguments" else f"{prefix}{name}.")
        elif there != here:
            yield f"trained with {prefix}{name}={reprlib.repr(there)}, the command says {reprlib.repr(here)}"


def newest_run(runs: Path, wanted: dict[str, Any]) -> RunFolder | None:
    """The run that was started last, among those of a paper whose configuration agrees with `wanted`."""
    agreeing = [path for _, path, held in _configurations(runs) if all(_agrees(held, item) for item in wanted.items())]
    return RunFolder(agreeing[-1]) if agreeing else None


def why_none(runs: Path, wanted: dict[str, Any]) -> str:
    """In what the newest run of a paper differs from `wanted`, and how to go on with it; empty without any run."""
    found = _configurations(runs)
    if not found:
        return ""
    _, path, held = found[-1]
    lines = list(differences({name: held.get(name) for name in wanted}, wanted))
    first = f" was {lines[0]}" if lines else " does not say all of its arguments"
    others = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"; the newest one, {path},{first}{others}: go on with it by --resume {path}"


def _agrees(held: dict[str, Any], item: tuple[str, Any]) -> bool:
    name, value = item
    return name in held and bool(held[name] == value)


def _configurations(runs: Path) -> list[tuple[int, Path, dict[str, Any]]]:
    """Of every run: when it was started, its folder and its configuration; the newest last."""
    found = []
    for path in runs.glob("*/config.yaml"):
        try:
            held, started = read_yaml(path), path.stat().st_mtime_ns
        except (OSError, UserError):
            continue
        if isinstance(held, dict):
            found.append((started, path.parent, held))
    return sorted(found, key=lambda run: run[:2])


class SameTraining(Callback):
    """Refuses to go on from a checkpoint whose training state belongs to other optimizers or schedules.

    Lightning hands out these states in order. It says nothing when there are too few or too many of them.

    Args:
        path: of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored: dict[str, Any] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._stored = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The optimizers are there, and nothing is restored yet."""
        stored, self._stored = self._stored, None
        if stored is None:
            return
        other = other_training(stored, trainer.optimizers, len(trainer.lr_scheduler_configs))
        if other is not None:
            raise UserError(
                f"checkpoint {self.path}: {other}. {GO_ON}, or start a new run from its weights: in place of --resume "
                f"or --ckpt_path give --model.init_args.init_weights={self.path}"
            )


def other_training(stored: dict[str, Any], optimizers: list[Optimizer], schedules: int) -> str | None:
    """The first thing in a checkpoint's training state that does not fit a run; None where all of it fits.

    Args:
        stored: the contents of the checkpoint.
        optimizers: the run's.
        schedules: how many of its optimizers have a schedule of the learning rate.
    """
    if not {"optimizer_states", "lr_schedulers", "loops"} <= stored.keys():
        return "it holds weights alone, and nothing of the training"
    states, stored_schedules = stored["optimizer_states"], len(stored["lr_schedulers"])
    if len(states) != len(optimizers):
        return f"it holds the states of {len(states)} optimizers, and this run has {len(optimizers)}"
    if stored_schedules != schedules:
        return f"it holds {stored_schedules} schedules of the learning rate, and this run has {schedules}"
    for number, (state, optimizer) in enumerate(zip(states, optimizers, strict=True), start=1):
        if not _fits(state, optimizer):
            return f"the state of optimizer {number} is of another optimizer, or of other parameters"
    return None


def _fits(state: dict[str, Any], optimizer: Optimizer) -> bool:
    saved, groups = state["param_groups"], optimizer.param_groups
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in groups]:
        return False
    # Versions of torch add settings to an optimizer. Two optimizers have settings of their own each.
    if any(held.keys() - own.keys() and own.keys() - held.keys() for held, own in zip(saved, groups, strict=True)):
        return False
    indices = [index for group in saved for index in group["params"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(
        value.shape == parameter.shape
        for index, parameter in zip(indices, parameters, strict=True)
        for name, value in state["state"].get(index, {}).items()
        if name in MOMENTS and isinstance(value, Tensor)
    )


@contextlib.contextmanager
def readable_training_state(path: Path | None) -> Iterator[None]:
    """Turns Lightning's and torch's errors about the checkpoint at `path` into a line that says what to do.

    Raises:
        UserError: its weights are of another module, or what it says of its training is damaged.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if "loading state_dict" in str(error):
            raise UserError(
                f"checkpoint {path}: {mismatch(error)}. {GO_ON}, or train anew: leave out --resume and --ckpt_path"
            ) from error
        called = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not any(_reads_training(code) for code in called):
            raise
        reason = f"what it says of its training cannot be read ({type(error).__name__})"
        raise UserError(f"the checkpoint to go on from is damaged: {reason}") from error


def _reads_training(code: CodeType) -> bool:
    """Whether this is a function that reads what a checkpoint says of its training."""
    in_connector = Path(code.co_filename).name == "checkpoint_connector.py"
    return code is other_training.__code__ or (in_connector and bool(re.match("_?(resume|restore)", code.co_name)))
