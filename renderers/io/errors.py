"""The one exception that the command line turns into a line of text and exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something a user can mend: the message says what was wrong, where, and what to do."""


def within(name: str, value: int, least: int, most: int) -> int:
    """A whole number as it is, where it lies between two bounds.

    Raises:
        UserError: it does not; the message names `name`, the value and the bounds.
    """
    if not least <= value <= most:
        raise UserError(f"{name} {value}: give a whole number from {least} to {most}")
    return value


def reason(error: Exception) -> str:
    """One line for the list of skipped files. Errors that are no `UserError` are given with their type."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
