"""Going on from a run: which one it is, where a checkpoint and a command disagree, and damage told in a line."""

from __future__ import annotations

import contextlib
import re
import reprlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import RunFolder
from renderers.io.errors import UserError


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
    found: list[tuple[int, Path]] = []
    for path in runs.glob("*/config.yaml"):
        try:
            held, started = read_yaml(path), path.stat().st_mtime_ns
        except (OSError, UserError):
            continue
        if isinstance(held, dict) and all(name in held and held[name] == value for name, value in wanted.items()):
            found.append((started, path.parent))
    return RunFolder(max(found)[1]) if found else None


@contextlib.contextmanager
def readable_training_state() -> Iterator[None]:
    """Lightning trusts what a checkpoint says of its training; where that is damaged, a line says so."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        called = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        reading = any(
            Path(code.co_filename).name == "checkpoint_connector.py" and re.match("_?(resume|restore)", code.co_name)
            for code in called
        )
        if not reading or "loading state_dict" in str(error):
            raise
        reason = f"what it says of its training cannot be read ({type(error).__name__})"
        raise UserError(f"the checkpoint to go on from is damaged: {reason}") from error
