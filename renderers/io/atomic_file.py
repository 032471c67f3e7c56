"""Atomic writes: a file is written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from renderers.io.errors import UserError

MARK = ".monoface-"  # in every temporary name, so that no file of the user's is taken for one
QUIET = 3600.0  # seconds without a write, after which a temporary file belongs to no living process
_cleared: set[Path] = set()  # folders that hold no more leftovers


@contextlib.contextmanager
def parents_made(path: Path) -> Iterator[None]:
    """Makes the folders above `path`; if the block fails, those that it made and that are still empty go again.

    Raises:
        OSError: a folder cannot be made.
    """
    made: list[Path] = []
    try:
        for folder in reversed(path.absolute().parents):
            if not folder.is_dir():
                with contextlib.suppress(FileExistsError):  # another process was faster
                    folder.mkdir()
                    made.append(folder)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another process uses it
            for folder in reversed(made):
                folder.rmdir()
        raise


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, with the same suffix, that becomes `path` when the block ends well.

    Whatever happens, the temporary file is gone afterwards, and a reader of `path` sees the old content or the new.
    What killed processes left in the same folder an hour ago or longer is removed first.

    Raises:
        OSError: the folder or the file cannot be written; it names `path`.
    """
    with contextlib.ExitStack() as parents:
        with _names(path):
            parents.enter_context(parents_made(path))
            _clear_leftovers(path.parent)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            with _names(path, temporary):
                yield temporary
                # mkstemp makes files that only their owner reads.
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path`, which is not there yet, when the block ends well.

    As `written_atomically` otherwise.

    Raises:
        OSError: the folder cannot be written, or another process has made it meanwhile; it names `path`.
    """
    with contextlib.ExitStack() as parents:
        with _names(path):
            parents.enter_context(parents_made(path))
            _clear_leftovers(path.parent)
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=path.suffix))
        try:
            with _names(path, temporary):
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _prefix(path: Path) -> str:
    """How the temporary names of a file begin: short enough where its own name is as long as a name may be."""
    return f".{path.stem[:32]}{MARK}"


def _clear_leftovers(folder: Path) -> None:
    """Removes what killed processes left, once for a folder. What was written to in the last hour may be in use."""
    if folder in _cleared:
        return
    _cleared.add(folder)
    for left in folder.glob(f".*{MARK}*"):
        with contextlib.suppress(OSError):
            if _last_written(left) < time.time() - QUIET:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _last_written(path: Path) -> float:
    """Of a folder, the newest of what lies in it too."""
    return max(item.stat().st_mtime for item in (path, *(path.iterdir() if path.is_dir() else ())))


@contextlib.contextmanager
def _names(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Adds the wanted file's name to errors such as a full disk, which name none or the temporary one."""
    try:
        yield
    except OSError as error:
        hidden = str(temporary or path.parent)
        if error.errno is not None and (error.filename is None or str(error.filename).startswith(hidden)):
            error.filename, error.filename2 = str(path), None
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """The whole content or nothing.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        with written_atomically(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
