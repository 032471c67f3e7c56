"""Names of files on a terminal."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.preparation.file_names import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("face 1.jpg", "face 1.jpg"),
        ("Größe 顔.png", "Größe 顔.png"),
        ("at\u202f3\u00a0PM.png", "at\u202f3\u00a0PM.png"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf%E9.jpg"),
        ("\x1b]0;name\x07\n\x7f\t", "%1B]0;name%07%0A%7F%09"),
        ("a\u202eb\u2028c\x9b", "a%E2%80%AEb%E2%80%A8c%C2%9B"),
    ],
)
def test_what_a_terminal_may_obey_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(name=st.text(st.characters(categories=("L", "C", "Z", "M"))))
def test_any_text_can_be_printed(name: str) -> None:
    shown = printable(name)
    assert shown.encode().decode() == shown and len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c).startswith("C") for c in shown)
