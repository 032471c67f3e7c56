"""Compares measured ratios with expected ones. Times are not compared, as they differ from machine to machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.commands.bench.measure import Row
from renderers.io.errors import UserError

ALLOWED = 0.4  # of the ratio that was written down: machines and chance may take the rest

Key = tuple[str, str, str, str]


def read_expected(path: Path) -> list[Row]:
    """The rows of a file that `bench --json` wrote.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in tree["rows"]]
    except OSError as error:
        raise UserError(f"--against {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"--against {path}: these are no rows of `bench --json`: {error}") from error
    if not all(isinstance(row.ratio, (int, float)) and row.ratio > 0 for row in rows):
        raise UserError(f"--against {path}: every row needs a ratio above 0")
    return rows


def key(row: Row) -> Key:
    """What makes two rows measurements of the same thing."""
    return row.name, row.case, row.device, row.against


def measured(rows: Iterable[Row], wanted: Sequence[Row]) -> list[Row]:
    """Of a benchmark's rows those that are wanted; it is not asked for more than it takes to have them all.

    Raises:
        UserError: the benchmark has no such case.
    """
    missing = {key(row) for row in wanted}
    found: list[Row] = []
    for row in rows if missing else ():
        if key(row) in missing:
            missing.remove(key(row))
            found.append(row)
        if not missing:
            break
    if missing:
        name, case, device, against = min(missing)
        raise UserError(
            f"{name} does not measure {case!r} on {device} against {against!r}: "
            "write the expected ratios anew, with --against and --json of the same FILE"
        )
    return found


def moved(expected: Sequence[Row], found: Sequence[Row]) -> list[str]:
    """A line for every ratio that fell below what is allowed, saying from what and to what."""
    now: Mapping[Key, Any] = {key(row): row for row in found}
    lines = []
    for before in expected:
        ratio = now[key(before)].ratio
        if ratio < ALLOWED * before.ratio:
            lines.append(
                f"{before.name}: {before.case} ({before.device}): {before.ratio:.3g} times as fast as "
                f"{before.against} was expected, {ratio:.3g} times was measured"
            )
    return lines


def guarded(expected: Sequence[Row], run: Callable[[], Iterable[Row]]) -> list[Row]:
    """One benchmark's wanted rows; where a ratio moved, all are measured again and the better counts.

    Chance can take much of a ratio once; what the code lost is lost in both.

    Args:
        expected: of this benchmark.
        run: measures its rows.
    """
    first = measured(run(), expected)
    if not moved(expected, first):
        return first
    second = {key(row): row for row in measured(run(), expected)}
    return [max(row, second[key(row)], key=lambda one: one.ratio) for row in first]
