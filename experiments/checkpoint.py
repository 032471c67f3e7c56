"""From a checkpoint file to a module, without unpickling anything."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.precheck import short_message, unwrapped
from lightning_modules.components.checkpoint_file import load_weights, read_checkpoint
from lightning_modules.components.pretrained import a_checkpoint_follows
from renderers.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

CONFIG_KEY = "monoface_model"
"""Where a checkpoint keeps the YAML text of its module: class_path and init_args."""


def stored_model(contents: dict[str, Any], path: Path) -> dict[str, Any]:
    """The `model` section (class_path, init_args) that a checkpoint was trained with.

    Raises:
        UserError: the checkpoint does not say.
    """
    import yaml

    text = contents.get(CONFIG_KEY)
    try:
        section = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        section = None
    if not isinstance(section, dict) or "class_path" not in section:
        raise UserError(
            f"checkpoint {path}: it does not say which module it holds; `python -m experiments fit` writes that"
        )
    return section


def load_module(path: Path) -> LightningModule:
    """The trained module of a checkpoint, in eval mode on the CPU.

    Args:
        path: a file that `python -m experiments fit` wrote.

    Raises:
        UserError: not such a file, or made for another face model or another version of its module.
    """
    contents = read_checkpoint(path)
    section = stored_model(contents, path)
    section.get("init_args", {}).pop("init_weights", None)  # Where training started from may be long gone.
    module = _instantiate(section, path)
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
            _check_sums(path)
            read_checkpoint(path)
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
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint ({type(error).__name__})") from error
    if damaged is not None:
        raise UserError(f"checkpoint {path}: damaged: {damaged} in it is not what was written")


def _instantiate(section: dict[str, Any], path: Path) -> LightningModule:
    from jsonargparse import ArgumentError, ArgumentParser
    from lightning.pytorch import LightningModule

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", fail_untyped=False)
    try:
        # jsonargparse warns on stderr about arguments that it drops; the error below says what matters.
        with contextlib.redirect_stderr(io.StringIO()):
            config = parser.parse_object({"model": section})
    except ArgumentError as error:
        raise UserError(
            f"checkpoint {path}: another version of {section['class_path']} wrote it: {short_message(str(error))}"
        ) from error
    try:
        with a_checkpoint_follows():
            module = parser.instantiate(config).model
    except ValueError as error:
        raise unwrapped(error) from None
    assert isinstance(module, LightningModule)
    return module
