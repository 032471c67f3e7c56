"""YAML that strangers made: plain values, or a line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.__main__ import main
from experiments.training.plain_yaml import MOST_CHARACTERS, parse_yaml, read_yaml
from renderers.io.errors import UserError
from tests.experiments.test_main import complaint

ROOT = Path(__file__).parents[3]
BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
"""Aliases to aliases: 470 characters that stand for four thousand million numbers."""


def refused(text: str) -> str:
    start = time.process_time()
    with pytest.raises(UserError) as raised:
        parse_yaml(text, "it")
    assert time.process_time() - start < 5
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "aliases counted"),
        ("a: &a [*a]", "aliases counted"),
        ("&a {data: {init_args: *a}}", "aliases counted"),
        ("[" * 50_000, "nested deeper"),
        ("{a: " * 50_000, "nested deeper"),
        ("- " * 50_000, "nested deeper"),
        ("\n".join(" " * depth + "a:" for depth in range(100)), "nested deeper"),
        ("[" + "1," * 21_000 + "]", "aliases counted"),
        ("a" * (MOST_CHARACTERS + 1), "characters of YAML"),
        ("!!python/object/apply:os.system [ls]", "not YAML"),
        ("!!python/name:os.system", "not YAML"),
        ("!!int text", "not YAML"),
        ("!!timestamp text", "not YAML"),
        ("!!float []", "not YAML"),
        ("1" * 5000, "not YAML"),
        ("a: b: c", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("\x00", "not YAML"),
        ("*a", "not YAML"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    assert said in refused(text)


def test_the_bomb_is_one() -> None:
    assert len(BOMB) < 500
    inner, count = yaml.safe_load(BOMB)["a9"], 1
    while isinstance(inner, list):
        count, inner = count * len(inner), inner[0]
    assert count == 9**10


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)
def test_plain_values_come_back(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value), "it") == value


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1&*!:-?|>[]{},'\"#%@ \n\t<0xe.~", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        expected = yaml.safe_load(text)
    except Exception:
        refused(text)
    else:
        try:
            assert repr(parse_yaml(text, "it")) == repr(expected)
        except UserError as error:
            assert "aliases counted" in str(error)  # of one within itself


def test_aliases_are_read_where_they_are_few() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "it") == {
        "a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2},
    }  # fmt: skip


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="none: No such file"):
        read_yaml(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="bytes: not a text file"):
        read_yaml(tmp_path / "bytes")
    (tmp_path / "deep.yaml").write_text("model: " + "[" * 5000)
    assert "nested deeper" in complaint(capsys, ["fit", "--config", str(tmp_path / "deep.yaml")])
    (tmp_path / "bomb.yaml").write_text(BOMB)
    assert "aliases counted" in complaint(capsys, ["fit", "--config", str(tmp_path / "bomb.yaml")])
    (tmp_path / "part.yaml").write_text("[" * 5000)
    tiny = ["fit", "--config", str(ROOT / "tests/conf/tiny.yaml"), f"--runs_dir={tmp_path}"]
    assert main([*tiny, f"--model.init_args.part={tmp_path / 'part.yaml'}"]) == 2
    assert "Traceback" not in capsys.readouterr().err
