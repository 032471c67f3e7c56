"""The regression guard: a ratio that fell is told with what it was and what it is, and by the exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from experiments.commands.bench import command, decoder, guard, shading
from experiments.commands.bench.measure import Row
from renderers.io.errors import UserError

SHIPPED = Path(command.__file__).parent / "expected.json"


def row(name: str, ratio: float, case: str = "a case", device: str = "cpu") -> Row:
    return Row(name, case, device, "plain torch", ratio, 0.5, 0.1, 100.0)


def write(path: Path, *rows: Row) -> Path:
    path.write_text(json.dumps({"rows": [asdict(one) for one in rows]}))
    return path


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """What decoder and shading measure, one ratio for each time they are asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    answers: dict[str, list[float]] = {"decoder": [], "shading": []}

    def measured(name: str) -> Iterator[Row]:
        yield row(name, answers[name].pop(0))

    monkeypatch.setattr(decoder, "run", lambda device: measured("decoder"))
    monkeypatch.setattr(shading, "run", lambda device: measured("shading"))
    return answers


def test_ratio_that_fell_fails_and_says_from_what_to_what(
    ratios: dict[str, list[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = write(tmp_path / "expected.json", row("decoder", 4.0), row("shading", 3.0))
    ratios |= {"decoder": [1.5, 1.4], "shading": [1.3]}
    assert command.run(parse("--against", str(expected))) == 1
    told = " ".join(capsys.readouterr().out.split())
    line = (
        "slower than before: decoder: a case (cpu): 4 times as fast as plain torch was expected, 1.5 times was measured"
    )
    assert line in told
    assert "slower than before: shading" not in told
    assert ratios == {"decoder": [], "shading": []}, "what fell was measured twice, what held once"


def test_ratio_that_fell_by_chance_alone_passes(ratios: dict[str, list[float]], tmp_path: Path) -> None:
    expected = write(tmp_path / "expected.json", row("decoder", 4.0))
    ratios["decoder"] = [0.5, 3.9]
    assert command.run(parse("--against", str(expected))) == 0


def test_only_what_is_expected_is_measured_and_can_be_written_anew(
    ratios: dict[str, list[float]], tmp_path: Path
) -> None:
    expected = write(tmp_path / "expected.json", row("shading", 3.0), row("shading", 3.0, device="cuda"))
    ratios["shading"] = [8.0]
    assert command.run(parse("--against", str(expected), "--json", str(expected))) == 0
    assert [one.ratio for one in guard.read_expected(expected)] == [8.0]


def test_a_benchmark_is_asked_for_no_more_than_is_wanted() -> None:
    def rows() -> Iterator[Row]:
        yield row("rasterizer", 100.0, "small")
        raise AssertionError("the large one takes a minute")

    wanted = [row("rasterizer", 90.0, "small")]
    assert guard.measured(rows(), wanted) == [row("rasterizer", 100.0, "small")]
    assert guard.measured(rows(), []) == []


def test_expected_case_that_is_measured_no_more_is_told() -> None:
    with pytest.raises(UserError, match=r"decoder does not measure 'gone' on cpu .* write the expected ratios anew"):
        guard.measured(iter([row("decoder", 2.0)]), [row("decoder", 2.0, "gone")])


@pytest.mark.parametrize("ratio", [1.61, 4.0, 400.0])
def test_two_fifths_of_the_ratio_are_allowed_and_any_gain(ratio: float) -> None:
    before = row("decoder", 4.0)
    assert guard.moved([before], [replace(before, ratio=ratio)]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no rows of `bench --json`"),
        ('{"rows": [{"name": "decoder"}]}', "no rows of `bench --json`"),
        (json.dumps({"rows": [asdict(row("decoder", -1.0))]}), "a ratio above 0"),
    ],
)
def test_file_that_is_none_of_ours(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "expected.json"
    with pytest.raises(UserError, match="No such file"):
        guard.read_expected(path)
    path.write_text(text)
    with pytest.raises(UserError, match=told):
        guard.read_expected(path)


def test_shipped_ratios_are_of_benchmarks_that_are_there() -> None:
    rows = guard.read_expected(SHIPPED)
    assert {one.name for one in rows} <= set(command.BENCHMARKS)
    assert {"rasterizer", "render", "decoder", "shading", "view_synthesis"} <= {one.name for one in rows}
    assert all(one.device == "cpu" for one in rows), "CI has no GPU"
    assert "experiments/commands/bench/expected.json" in (SHIPPED.parents[3] / ".github/workflows/ci.yml").read_text()
