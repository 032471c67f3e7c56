"""Tables of a benchmark: our figures above, and the papers' published ones below."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

FILE = Path(__file__).with_name("published.json")

Figure = tuple[float, ...]
"""A mean, or a mean and a standard deviation; empty if there is none."""


@dataclass(frozen=True)
class PublishedRow:
    """A line of a paper's table.

    Attributes:
        name: of the method.
        source: paper and table.
        figures: one for each of the table's columns.
    """

    name: str
    source: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class PublishedTable:
    """The papers' figures for one benchmark."""

    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@cache
def published() -> dict[str, PublishedTable]:
    """Every table of `published.json` by its name."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: PublishedTable(
            tuple(table["columns"]),
            tuple(
                PublishedRow(method, source, tuple(map(_figure, values))) for method, source, values in table["rows"]
            ),
        )
        for name, table in stored.items()
    }


def _figure(stored: float | list[float] | None) -> Figure:
    if stored is None:
        return ()
    return tuple(stored) if isinstance(stored, list) else (stored,)


def benchmark_table(
    title: str,
    caption: str,
    ours: Mapping[str, Mapping[str, Figure]],
    names: Sequence[str],
    digits: int = 2,
) -> Table:
    """A benchmark's table, with published rows grouped by the paper's table; it fits into 80 columns.

    Args:
        title: of the table.
        caption: how the figures were measured, and how the papers' differ.
        ours: our rows -> column -> figure. Columns that no paper has come last.
        names: of the published tables below them.
        digits: after the point.
    """
    tables = [published()[name] for name in names]
    columns = dict.fromkeys(column for table in tables for column in table.columns)
    columns |= dict.fromkeys(column for row in ours.values() for column in row)
    view = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
        title=title,
        caption=caption,
        caption_justify="left",
    )
    view.add_column("method", no_wrap=True)
    for column in columns:
        view.add_column(column, justify="right", no_wrap=True)
    for number, (name, row) in enumerate(ours.items()):
        cells = [written(row.get(column, ()), digits) for column in columns]
        view.add_row(name, *cells, style="bold", end_section=number == len(ours) - 1)
    for table in tables:
        for source, lines in groupby(table.rows, key=lambda line: line.source):
            view.add_row(source, style="dim")
            for line in lines:
                found = dict(zip(table.columns, line.figures, strict=True))
                view.add_row(f"  {line.name}", *(written(found.get(column, ()), digits) for column in columns))
    return view


def written(figure: Figure, digits: int) -> str:
    """A mean, or mean ± deviation. Figures below 1, such as similarities, get one digit more."""
    if not figure:
        return "-"
    digits += abs(figure[0]) < 1
    return " ± ".join(f"{value:.{digits}f}" for value in figure)
