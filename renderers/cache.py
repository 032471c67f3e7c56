"""Where derived files are kept between runs: outside the repository, one folder for a user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache folder for monoface; it may not exist yet.

    `MONOFACE_CACHE` where it is set, else `monoface` in `XDG_CACHE_HOME`, else `~/.cache/monoface`.
    """
    own = os.environ.get("MONOFACE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "monoface"
