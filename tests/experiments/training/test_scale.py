"""SCALE.md's table is what its own lines print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "experiments" / "commands" / "launch" / "SCALE.md"


def test_the_arithmetic_gives_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (table,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == table
