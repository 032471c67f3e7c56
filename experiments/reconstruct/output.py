"""The output folder: written beside its place, then put there in one step; foreign folders are never touched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renderers.errors import UserError

GENERATOR = "monoface reconstruct"
MARKERS = ("reconstruction.json", "index.json")


def check_replaceable(out: Path) -> None:
    """Refuse a place that holds anything `reconstruct` did not write.

    Raises:
        UserError: `out` is a file, a folder of something else, or a folder to which something was added.
    """
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise UserError(f"{out}: the output must be a folder, and this is not one; choose another OUT")
    entries = {entry.name for entry in out.iterdir()}
    if not entries:
        return
    for marker in MARKERS:
        if marker in entries:
            foreign = sorted(entries - _written_files(out / marker))
            break
    else:
        foreign = sorted(entries)
    if foreign:
        raise UserError(f"{out}: holds {foreign[0]}, which reconstruct did not write; choose another OUT or empty it")


def _written_files(marker: Path) -> set[str]:
    """The entries that a marker file says were written with it; none when it is not ours."""
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(content, dict) or content.get("generator") != GENERATOR:
        return set()
    return {str(name) for name in content.get("files", [])}


def write_marker(folder: Path, marker: str, content: dict[str, object]) -> None:
    """Write `reconstruction.json` or `index.json`, which names all that stands in the folder; call it last."""
    files = sorted({marker, *(entry.name for entry in folder.iterdir())})
    text = json.dumps({"generator": GENERATOR, **content, "files": files}, indent=1, allow_nan=False)
    (folder / marker).write_text(text + "\n", encoding="utf-8")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        UserError: `out` may not be replaced, cannot be written to, or the disk is full.
    """
    check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); choose another OUT") from error
    try:
        yield staging
        # mkdtemp's folders are the user's alone; the result gets what any new folder would.
        umask = os.umask(0)
        os.umask(umask)
        staging.chmod(0o777 & ~umask)
        check_replaceable(out)
        _swap(staging, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, out: Path) -> None:
    """Put `staging` in the place of `out`; what stood there is removed only after that."""
    if not out.exists():
        staging.rename(out)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    out.rename(retired / "old")
    try:
        staging.rename(out)
    except OSError:
        (retired / "old").rename(out)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)
