"""The W&B account that is logged in here, asked for without a prompt."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

from renderers.io.errors import UserError


def account_entity(instead: str, entity: str | None = None) -> str:
    """The user or team that W&B keeps things for: `entity`, or $WANDB_ENTITY, or the account's own.

    Args:
        instead: what a user without an account may do, for the message.
        entity: the one asked for.

    Raises:
        UserError: nobody is logged in, or W&B cannot be reached.
    """
    import wandb

    if not _is_logged_in(wandb.setup().settings.base_url):
        raise UserError(f"W&B: no account is logged in here: `.venv/bin/wandb login` first ({instead})")
    try:
        found = entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    except (wandb.errors.Error, OSError) as error:
        raise UserError(f"W&B: {' '.join(str(error).split())} ({instead})") from error
    if not found:
        raise UserError("W&B: the account has no default entity: set WANDB_ENTITY to a user or team")
    return str(found)


def _is_logged_in(base_url: str) -> bool:
    """Whether a key or an identity token is at hand: in the environment, or where `wandb login` put it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            found = netrc.netrc(path).authenticators(urlparse(base_url).hostname or "")
        except (OSError, netrc.NetrcParseError):
            continue
        if found is not None:
            return True
    return False
