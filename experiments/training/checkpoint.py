"""From a checkpoint file to a module, without unpickling anything."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.training.plain_yaml import parse_yaml
from experiments.training.stored_module import Builder, Plan, Trust, describe, plain_plan
from lightning_modules.components.checkpoint_file import load_weights, read_checkpoint
from lightning_modules.components.pretrained import a_checkpoint_follows
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

CONFIG_KEY = "monoface_model"
"""Where a checkpoint keeps the plan of its module; those of earlier versions keep YAML: class_path and init_args."""


def stored_plan(contents: dict[str, Any], path: Path) -> Plan:
    """The plan that a checkpoint holds of its module: the names of its parts, and their arguments.

    Raises:
        UserError: the checkpoint holds none, or one with anything but names and plain values.
    """
    place, told = f"checkpoint {path}", contents.get(CONFIG_KEY)
    return describe(parse_yaml(told, place), place) if isinstance(told, str) else plain_plan(told, place)


def load_module(path: Path, trust: Trust = Trust()) -> LightningModule:  # noqa: B008
    """The trained module of a checkpoint, in eval mode on the CPU.

    Args:
        path: a file that `python -m experiments fit` wrote.
        trust: what the file may name beside the project's own parts and files in `data/`.

    Raises:
        UserError: not such a file, or made for another face model or another version of its module; or it names what
            it may not.
    """
    from lightning.pytorch import LightningModule

    contents = read_checkpoint(path)
    _check_sums(path)
    builder = Builder(f"checkpoint {path}", trust)
    with a_checkpoint_follows():
        module = builder.build(stored_plan(contents, path), LightningModule)
    load_weights(module, contents, path)
    return module.eval()


def newest_whole(paths: Sequence[Path], tell: Callable[[str], None]) -> Path | None:
    """The first of these checkpoints that is not damaged; None where there is none at all.

    Args:
        paths: the newest first.
        tell: is handed a line about every damaged one before it.

    Raises:
        UserError: all of them are damaged.
    """
    for path in paths:
        try:
            read_checkpoint(path)
            _check_sums(path)
        except UserError as error:
            tell(f"warning: {error}; trying the one before")
            continue
        return path
    if paths:
        raise UserError(f"{paths[0].parent}: every checkpoint in it is damaged: remove the run, and start it again")
    return None


def _check_sums(path: Path) -> None:
    """A changed byte in a weight is a weight to torch's reader; the file's own sums know better."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error) as error:  # of methods it lacks
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint ({type(error).__name__})") from error
    if damaged is not None:
        raise UserError(f"checkpoint {path}: damaged: {damaged} in it is not what was written")
