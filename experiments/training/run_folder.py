"""`runs/PAPER/RUN_ID/`: what a run leaves behind, and how it gets there without halves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError
from renderers.io.file_lock import locked

Metrics = dict[str, float]
LOCK = ".lock"  # in a run's folder while it is trained


@dataclass
class RunFolder:
    """The names inside a run's folder.

    Attributes:
        path: of the folder; the processes of one run agree on it when the training begins.
    """

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

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> RunFolder | None:
        """The run that wrote this checkpoint, where it still lies in its own run's folder."""
        folder = cls(checkpoint.parent.parent)
        return folder if checkpoint.parent.name == "checkpoints" and folder.config.is_file() else None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps the folder, which is there already, for this process; it goes away afterwards if nothing is in it.

        Raises:
            UserError: another process holds it.
        """

        def refuse() -> None:
            raise UserError(f"{self.path}: another process is training in it: wait until it ends, or stop it")

        try:
            with locked(self.path / LOCK, refuse):
                try:
                    yield
                finally:
                    (self.path / LOCK).unlink(missing_ok=True)
        finally:
            self._remove_if_empty()

    def clear(self) -> None:
        """Removes what is in the folder, but for the mark that this process holds it."""
        for item in self.path.glob("*"):
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item, ignore_errors=True)
            elif item.name != LOCK:
                item.unlink(missing_ok=True)

    def _remove_if_empty(self) -> None:
        """Takes the folder away, and those parents that it leaves empty."""
        for folder in (self.path, *list(self.path.parents)[:-1]):
            try:
                folder.rmdir()
            except OSError:
                return


def results_folder(checkpoint: Path) -> Path:
    """Where commands put what they make of a checkpoint: its run's folder, or one named like it outside a run."""
    folder = RunFolder.of_checkpoint(checkpoint)
    return folder.path if folder else checkpoint.with_suffix("")


def choose_folder(runs: Path, paper: str, run_id: str | None, prefix: str = "") -> RunFolder:
    """runs/PAPER/RUN_ID, where RUN_ID is the prefix and the time of day unless it is given; nothing is made yet.

    Raises:
        UserError: a name that would leave the folder or that a file system may not take.
    """
    for name, value in {"--paper": paper, "--run_id": run_id}.items():
        parts = (value or "run").split("/")
        if any(not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", part) for part in parts):
            raise UserError(f"{name} {value!r}: use letters, digits and . _ + -, and / between folders")
    return RunFolder(runs / paper / (run_id or prefix + datetime.now().strftime("%Y%m%d-%H%M%S")))


def resumed_path(resume: str, runs: Path, paper: str) -> Path:
    """What `--resume` means: a run's folder or a checkpoint by its path, or a run of this paper by its name.

    Raises:
        UserError: there is none of these.
    """
    named = runs / paper / resume
    for path in (Path(resume), named):
        if path.exists():
            return path
    raise UserError(f"--resume {resume}: no such file or folder, and no such run: {named}")


def make_folder(wanted: RunFolder, may_differ: bool) -> RunFolder:
    """Makes the folder of a new run, which no other process gets then.

    Args:
        wanted: its name.
        may_differ: whether it takes the next free name (NAME-2, NAME-3 and so on) where there is such a folder.

    Raises:
        UserError: the folder is there, and may not differ.
    """
    for count in range(1, 1000):
        path = wanted.path if count == 1 else wanted.path.with_name(f"{wanted.path.name}-{count}")
        try:
            path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            if not may_differ:
                resume = f", or go on with --ckpt_path {wanted.checkpoint}" if wanted.checkpoint.is_file() else ""
                raise UserError(f"{path} holds a run already: choose another --run_id, remove it{resume}") from None
    raise UserError(
        f"{wanted.path.parent}: no folder of a new name can be made in it: remove old runs, or give --run_id"
    )


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
