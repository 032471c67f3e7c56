"""File names in a form that terminals and JSON accept."""

from __future__ import annotations

import unicodedata


def printable(name: str) -> str:
    """A file's name or path, or a line about it, in a form that can be printed and stored anywhere.

    Bytes that are not UTF-8 become %XX. So do the bytes of characters that control a terminal (line ends, escapes).
    """
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    # Python holds a byte B that is no UTF-8 as the lone surrogate U+DC00 + B (PEP 383).
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", errors))
