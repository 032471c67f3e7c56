"""Whether a checkpoint can be there at all, told before torch is imported."""

from __future__ import annotations

from pathlib import Path

from renderers.io.errors import UserError


def check_checkpoint_path(path: Path) -> None:
    """Looks whether there is a file of this name.

    Raises:
        UserError: there is none, or a folder.
    """
    if path.is_dir():
        raise UserError(f"checkpoint {path}: this is a folder; name the file, for example {path}/checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
