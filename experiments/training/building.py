"""A run's module and data without its trainer, for commands that measure them by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule

from experiments.training.arguments import short_message
from experiments.training.linked_arguments import link_arguments
from lightning_modules.base import FaceModule
from renderers.io.errors import UserError


def build(arguments: Sequence[str], change: Callable[[Namespace], None]) -> tuple[FaceModule, LightningDataModule]:
    """The module and the data that `fit` would train.

    Args:
        arguments: of `fit`: `--config` and overrides; those of the trainer have no effect.
        change: is given the parsed `model` and `data` before they are built.

    Raises:
        UserError: arguments that do not fit.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    for ignored in ("paper", "seed_everything", "trainer", "wandb", "checkpoint_every"):
        parser.add_argument(f"--{ignored}", type=Any)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False)
    try:
        config = parser.parse_args([word for word in arguments if not word.startswith("--trainer.")])
    except ArgumentError as error:
        raise UserError(short_message(str(error))) from error
    change(config)
    link_arguments(config.model, config.data)
    made = parser.instantiate(config)
    assert isinstance(made.model, FaceModule)
    return made.model, made.data
