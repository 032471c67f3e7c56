"""Counts with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, plural: str) -> str:
    """ "1 face", "2 faces": a number and its noun, whose plural ends in s."""
    return f"{count} {plural.removesuffix('s') if count == 1 else plural}"
