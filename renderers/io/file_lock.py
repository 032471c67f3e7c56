"""A lock among the processes that share a folder; it is released when its process is killed."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from renderers.io.errors import UserError

WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems answer that have none


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Holds a lock file while the block runs. On a file system without locks it does nothing.

    Args:
        path: of the lock file. Its folder must exist, and the file is left behind.
        busy: called if another process holds the lock. It may raise; if it returns, this waits for the lock.

    Raises:
        OSError: the folder cannot be written.
        UserError: a symbolic link stands in the lock file's place.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        busy()
        lock.acquire()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path}: a symbolic link, where a lock file belongs: remove it") from error
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()
