"""jsonargparse within our bounds: YAML that is neither deep nor huge, and one line for a wrong argument."""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from experiments.papers import papers_with
from experiments.training.plain_yaml import parse_yaml
from renderers.io.errors import UserError

_load_yaml = get_loader("yaml")


def bound_yaml() -> None:
    """Lets jsonargparse read configurations, and values of arguments, within the bounds of `plain_yaml`."""
    set_loader("yaml", _load_bounded, (ValueError,))


def _load_bounded(text: str) -> Any:
    try:
        parse_yaml(text, "YAML")
        return _load_yaml(text)
    except (UserError, yaml.YAMLError) as error:
        raise ValueError(str(error).removeprefix("YAML: ")) from None


def short_message(message: str) -> str:
    """jsonargparse explains itself on many lines: keep what names the argument and what is wrong with it."""
    if message.startswith("the following arguments are required"):
        shipped = ", ".join(f"experiments/{paper}/default.yaml" for paper in papers_with("default.yaml"))
        return f"{message} (a configuration names them: --config FILE; shipped: {shipped})"
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'NoneType'>", "Help:")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    kept = [line for line in lines if line and not line.startswith(noise) and "Namespace(" not in line]
    kept = [line for line in kept if "NestedArg(" not in line]
    told = " ".join(dict.fromkeys(kept)).replace("<class '", "").replace("'>", "")
    told = re.sub(r'Parser key "([^"]*)":', r"\1:", told)
    return told if len(told) <= 400 else told[:400] + " ..."


def unwrapped(error: Exception) -> Exception:
    """What a constructor raised, where jsonargparse wrapped it into an account of the types that it tried."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (UserError, OSError)):
            return cause
        cause = cause.__cause__
    return error
