"""Reading a checkpoint file without running anything that is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from renderers.errors import UserError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, tensors on the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that another program wrote.
    """
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


def load_weights(module: LightningModule, contents: dict[str, Any], path: Path) -> None:
    """Puts a checkpoint's weights into a module, which first looks whether they were made for its face model.

    Raises:
        UserError: made for another face model, another network, or another version of the module.
    """
    module.on_load_checkpoint(contents)
    try:
        module.load_state_dict(contents["state_dict"])
    except RuntimeError as error:
        raise UserError(f"checkpoint {path}: {mismatch(error)}") from error


def mismatch(error: RuntimeError) -> str:
    """The first difference that load_state_dict names, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()[1:]]
    first = lines[0] if lines else str(error)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"its weights do not fit this module: {first[:200]}{more}"
