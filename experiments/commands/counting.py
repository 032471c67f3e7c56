"""Counts: with their nouns for messages, and as arguments of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def counted(count: int, plural: str) -> str:
    """ "1 face", "2 faces": a number and its noun, whose plural ends in s."""
    return f"{count} {plural.removesuffix('s') if count == 1 else plural}"


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: whole numbers within bounds."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            bound = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}{bound}")
        return int(text)

    return read
