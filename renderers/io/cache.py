"""Where derived files are kept between runs: outside the repository, one folder for a user."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from renderers.io.errors import UserError
from renderers.io.file_lock import locked

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The user's cache folder for monoface; it may not exist yet.

    `MONOFACE_CACHE` where it is set, else `monoface` in `XDG_CACHE_HOME`, else `~/.cache/monoface`.
    """
    own = os.environ.get("MONOFACE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "monoface"


@contextlib.contextmanager
def made_once(path: Path, what: str) -> Iterator[None]:
    """Lets one process alone make something of the cache; others wait at the start of the block, and say so.

    Check again inside the block whether another process has made it.

    Args:
        path: of the file or folder that is made.
        what: its name for people.

    Raises:
        UserError: the cache cannot be written, told before the work is done.
    """

    def tell() -> None:
        logger.warning("another process is making %s: waiting for it", what)

    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), tell))
        except OSError as error:
            raise UserError(
                f"{path.parent}: {what} cannot be kept there ({error.strerror or error}): set MONOFACE_CACHE to a "
                "folder that can be written"
            ) from error
        yield
