"""File names as people and JSON can read them."""

from __future__ import annotations


def printable(name: str) -> str:
    """A file's name or path with every byte that is no UTF-8 as %XX, so that it can be printed and stored anywhere."""
    # Python holds such a byte B as the lone surrogate U+DC00 + B (PEP 383).
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in name)
