"""Parallel coordinates: a line for each run, through its parameters and to its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.commands.sweep.leaderboard import Leaderboard, short_names
from renderers.io.atomic_file import written_atomically

TICKS = 5


@dataclass(frozen=True)
class Axis:
    """One upright axis.

    Attributes:
        title: above it.
        positions: of the runs, from 0 (below) to 1.
        ticks: (position, text).
    """

    title: str
    positions: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def make_axis(title: str, values: Sequence[Any], logarithmic: bool = False) -> Axis:
    """The axis of one parameter, or of the result.

    Args:
        title: above it.
        values: of the runs: numbers, or words, which stand at even distances in their order of appearance.
        logarithmic: numbers above 0 by their magnitude.
    """
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        words = list(dict.fromkeys(map(str, values)))
        places = {word: (index + 0.5) / len(words) for index, word in enumerate(words)}
        return Axis(
            title, tuple(places[str(value)] for value in values), tuple((at, word) for word, at in places.items())
        )
    scaled = [math.log(value) if logarithmic else float(value) for value in values]
    low, high = min(scaled), max(scaled)
    if low == high:
        return Axis(title, (0.5,) * len(scaled), ((0.5, f"{values[0]:.3g}"),))
    steps = [index / (TICKS - 1) for index in range(TICKS)]
    marks = [low + step * (high - low) for step in steps]
    texts = [f"{math.exp(mark) if logarithmic else mark:.3g}" for mark in marks]
    return Axis(title, tuple((value - low) / (high - low) for value in scaled), tuple(zip(steps, texts, strict=True)))


def axes_of(board: Leaderboard) -> list[Axis]:
    """An axis for each parameter and one for the metric, of the runs that have a value, the best first."""
    spec = board.spec
    known = [entry for entry in board.ranked() if entry.value is not None]
    axes = []
    for name, short in short_names(spec.parameters).items():
        logarithmic = "log" in str(spec.tree["parameters"][name].get("distribution", ""))
        axes.append(make_axis(short, [entry.parameters[name] for entry in known], logarithmic))
    return [*axes, make_axis(spec.metric, [entry.value for entry in known])]


def draw_picture(board: Leaderboard, path: Path) -> None:
    """Writes the picture; the best runs are dark, those that were stopped early are dashed.

    Args:
        board: with at least one run that has a value.
        path: a PNG.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    known = [entry for entry in board.ranked() if entry.value is not None]
    axes = axes_of(board)
    figure = Figure(figsize=(1.2 + 1.9 * len(axes), 4.2), dpi=120, layout="constrained")
    plot = figure.add_subplot()
    colors = colormaps["viridis"]
    # The best is drawn last, over the others.
    for rank, entry in reversed(list(enumerate(known))):
        color = colors(0.9 * rank / max(1, len(known) - 1))
        style = "--" if entry.state == "stopped" else "-"
        heights = [axis.positions[rank] for axis in axes]
        plot.plot(range(len(axes)), heights, style, color=color, linewidth=2.5 if rank == 0 else 1.3)
    for place, axis in enumerate(axes):
        plot.axvline(place, color="0.4", linewidth=0.8)
        for height, text in axis.ticks:
            plot.annotate(text, (place, height), (3, 0), textcoords="offset points", fontsize=7, va="center")
    plot.set_xticks(range(len(axes)), [axis.title for axis in axes], fontsize=8)
    plot.xaxis.tick_top()
    plot.set_xlim(-0.15, len(axes) - 0.55)
    plot.set_yticks([])
    plot.set_title(f"{board.spec.paper}: {len(known)} runs; the best is dark", fontsize=9)
    plot.spines[:].set_visible(False)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, format="png")
