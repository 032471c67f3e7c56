"""Output folders: a result is written beside its place, then put there in one step; the user's own files stay."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from renderers.io.atomic_file import parents_made, write_bytes
from renderers.io.errors import UserError

GENERATOR = "monoface reconstruct"
RESULT, INDEX = "reconstruction.json", "index.json"  # what marks the result of a photograph, and of a folder of them
STAGING = ".monoface-"


def check_replaceable(out: Path) -> None:
    """Refuse a place that holds anything but one photograph's result, at any depth.

    Raises:
        UserError: `out` is a file, a folder of something else, or a result to which something was added.
    """
    _check_is_folder(out)
    if read_marker(out / INDEX):
        raise UserError(f"{out}: holds the results of a folder of photographs; choose another OUT, or delete it")
    foreign = sorted(entries(out) - written_files(out))
    if foreign:
        raise UserError(f"{out}: holds {foreign[0]}, which reconstruct did not write; choose another OUT or empty it")


def check_results_folder(out: Path) -> None:
    """Refuse a place that is neither free nor the results of a folder; the user's own files may stand among these.

    Raises:
        UserError: `out` is a file, or holds something else.
    """
    _check_is_folder(out)
    found = sorted(entries(out))
    if found and not read_marker(out / INDEX):
        raise UserError(
            f"{out}: holds {found[0]} and no results of a folder of photographs; choose another OUT or empty it"
        )


def _check_is_folder(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out}: the output must be a folder, and this is not one; choose another OUT")


def entries(folder: Path) -> set[str]:
    """Every file, link and empty folder in a folder, at any depth, relative, with forward slashes."""
    found = set()
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        names = [*files, *links] if files or folders or Path(place) == folder else [""]
        found |= {(Path(place) / name).relative_to(folder).as_posix() for name in names}
    return found


def read_marker(path: Path) -> dict[str, Any]:
    """What one of our marker files says; nothing when it is missing, damaged or somebody else's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(content, dict) and content.get("generator") == GENERATOR
    return content if ours else {}


def written_files(folder: Path) -> set[str]:
    """The files that were written with a photograph's result, relative; none when there is no result of ours."""
    files = read_marker(folder / RESULT).get("files")
    return {str(name) for name in files} if isinstance(files, list) else set()


def write_marker(folder: Path, content: dict[str, Any]) -> None:
    """Write a result's `reconstruction.json`, which names every file that stands in the folder; call it last."""
    files = sorted({RESULT, *entries(folder)})
    write_bytes(folder / RESULT, marker_text({**content, "files": files}))


def marker_text(content: dict[str, Any]) -> bytes:
    """A marker file's JSON."""
    return (json.dumps({"generator": GENERATOR, **content}, indent=1, allow_nan=False) + "\n").encode()


def remove_leftovers(out: Path) -> None:
    """Delete the half-written results of a run that was killed."""
    for path in out.glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        UserError: `out` may not be replaced, cannot be written to, or the disk is full.
    """
    check_replaceable(out)
    with ExitStack() as parents:
        try:
            parents.enter_context(parents_made(out))
            staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=out.parent))
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
    retired = Path(tempfile.mkdtemp(prefix=STAGING, dir=out.parent))
    out.rename(retired / "old")
    try:
        staging.rename(out)
    except OSError:
        (retired / "old").rename(out)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)
