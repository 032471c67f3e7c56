"""`runs/PAPER/RUN_ID/`: what a run leaves behind, and how it gets there without halves."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from renderers.atomic_file import written_atomically
from renderers.errors import UserError

Metrics = dict[str, float]


@dataclass(frozen=True)
class RunFolder:
    """The names inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def preview(self) -> Path:
        return self.path / "preview.png"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before, for the day on which the last one is damaged."""
        return self.path / "checkpoints" / "previous.ckpt"

    def checkpoints(self) -> list[Path]:
        """Every checkpoint that is there, the newest first: those that SLURM asked for among them."""
        found = [(path.stat().st_mtime_ns, path) for path in self.checkpoint.parent.glob("[!.]*.ckpt")]
        return [path for _, path in sorted(found, reverse=True)]

    def clear_halves(self) -> None:
        """Takes away what a process that was killed while it saved left of its file."""
        for half in self.checkpoint.parent.glob(".*.ckpt"):
            half.unlink(missing_ok=True)

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder | None:
        """The run that wrote this checkpoint, where it still lies in its own run's folder."""
        folder = cls(checkpoint.parent.parent)
        return folder if checkpoint.parent.name == "checkpoints" and folder.config.is_file() else None

    def create(self) -> None:
        """Makes the folder.

        Raises:
            UserError: there is a run in it already.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            resume = f", or go on with --ckpt_path {self.checkpoint}" if self.checkpoint.is_file() else ""
            raise UserError(f"{self.path} holds a run already: choose another --run_id, remove it{resume}")
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Takes the folder away again, and those parents that it leaves empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in list(self.path.parents)[:-1]:
            try:
                parent.rmdir()
            except OSError:
                return


def choose_folder(runs: Path, paper: str, run_id: str | None, prefix: str = "") -> RunFolder:
    """runs/PAPER/RUN_ID, where RUN_ID is the time of day unless it is given.

    Raises:
        UserError: a name that would leave the folder or that a file system may not take.
    """
    for name, value in {"--paper": paper, "--run_id": run_id}.items():
        parts = (value or "run").split("/")
        if any(not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", part) for part in parts):
            raise UserError(f"{name} {value!r}: use letters, digits and . _ + -, and / between folders")
    if run_id:
        return RunFolder(runs / paper / run_id)
    stamp = prefix + datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (stamp if count == 1 else f"{stamp}-{count}" for count in range(1, 1000))
    return RunFolder(next(runs / paper / name for name in names if not (runs / paper / name).exists()))


def keep_as(path: Path, kept: Path) -> None:
    """Gives a file a second name, in place of what bore that name; `path` is there all the time."""
    with written_atomically(kept) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)


def write_text(path: Path, text: str) -> None:
    """The whole text or nothing."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Indented JSON, the whole of it or nothing; NaN and infinity become null, which every reader takes."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no file or it is not whole."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
