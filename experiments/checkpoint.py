"""From a checkpoint file to a module, without unpickling anything."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.precheck import short_message, unwrapped
from renderers.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

CONFIG_KEY = "monoface_model"
"""Where a checkpoint keeps the YAML text of its module: class_path and init_args."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, tensors on the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that another program wrote.
    """
    import torch

    if path.is_dir():
        raise UserError(f"checkpoint {path}: this is a folder; name the file, for example {path}/checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # Whatever torch's reader stumbles over in a file that is not its own.
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint ({type(error).__name__})") from error
    if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
        raise UserError(f"checkpoint {path}: it holds no state_dict; it was not written by `python -m experiments fit`")
    return contents


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
    module = _instantiate(stored_model(contents, path), path)
    # The module itself knows which face model it needs, and says so here.
    module.on_load_checkpoint(contents)
    try:
        module.load_state_dict(contents["state_dict"])
    except RuntimeError as error:
        raise UserError(f"checkpoint {path}: {mismatch(error)}") from error
    return module.eval()


def mismatch(error: RuntimeError) -> str:
    """The first difference that load_state_dict names, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()[1:]]
    first = lines[0] if lines else str(error)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"its weights do not fit this module: {first[:200]}{more}"


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
        module = parser.instantiate(config).model
    except ValueError as error:
        raise unwrapped(error) from None
    assert isinstance(module, LightningModule)
    return module
