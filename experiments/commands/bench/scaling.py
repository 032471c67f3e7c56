"""Cost against vertices, pixels, images and views, and the exponents with which it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from experiments.commands.bench.measure import Measurement, Row, Stopwatch, compare, take_turns
from experiments.commands.bench.meshes import face_like_model
from experiments.commands.bench.rasterizer import projected_mesh
from experiments.commands.bench.view_synthesis import face_pairs, together
from experiments.commands.counting import counted
from renderers.face_renderer import FaceRenderer
from renderers.io.atomic_file import written_atomically
from renderers.raster.rasterize import load_backend

VERTICES = (1_024, 4_096, 16_384, 65_536)
SIDES = (64, 128, 256, 512)  # of the images, pixels
IMAGES = (1, 4, 16, 64)
VIEWS = (2, 3, 5, 9)  # of a face, one of them the target
USUAL_VERTICES, USUAL_SIDE, USUAL_IMAGES = 8_192, 160, 4
BUDGET_S, REPEATS = 1.5, 20  # for each size

Work = Callable[[], object]


@dataclass(frozen=True)
class Law:
    """How the cost of one thing grows with one size.

    Attributes:
        of: what is done.
        size: what grows.
        sizes: in ascending order.
        cost: of each size.
    """

    of: str
    size: str
    sizes: tuple[int, ...]
    cost: tuple[Measurement, ...]

    @property
    def exponent(self) -> float:
        """p of the power law c n^p that comes nearest to the medians, in logarithms."""
        seconds = [one.median_s for one in self.cost]
        return float(np.polyfit(np.log(self.sizes), np.log(seconds), 1)[0])

    @property
    def steepest(self) -> float:
        """The greatest exponent between two neighbouring sizes: a cliff stands out here."""
        seconds = np.log([one.median_s for one in self.cost])
        return float((np.diff(seconds) / np.diff(np.log(self.sizes))).max())


def render_work(vertices: int, side: int, images: int, device: torch.device) -> Work:
    """Decode, shade and draw, forward and backward."""
    # A square grid has twice as many faces as vertices.
    renderer = FaceRenderer(face_like_model(2 * vertices), side).to(device)
    layout = renderer.face_model.layout()
    vector = torch.zeros(images, layout.length, device=device, requires_grad=True)

    def work() -> None:
        vector.grad = None
        renderer(layout.split(vector)).image.square().mean().backward()

    return work


def rasterizer_work(vertices: int, side: int, images: int, device: torch.device) -> Work:
    """Visibility alone, by the fastest backend."""
    points, faces = projected_mesh(2 * vertices, side, images, device)
    return partial(load_backend().visible_faces, points, faces, (side, side))


def views_work(views: int, device: torch.device) -> Work:
    """One target synthesized from every other view, forward and backward."""
    pairs = face_pairs(views - 1, 2 * USUAL_VERTICES, USUAL_SIDE, device)

    def work() -> None:
        torch.autograd.grad(together(pairs).sum(), pairs.leaves)

    return work


def laws(device: torch.device) -> Iterator[Law]:
    """What is measured, one law after another."""
    for name, work in (("decode, shade, render", render_work), ("rasterize", rasterizer_work)):
        made = {n: partial(work, n, USUAL_SIDE, USUAL_IMAGES, device) for n in VERTICES}
        yield law(name, "vertices", made, device)
        made = {n * n: partial(work, USUAL_VERTICES, n, USUAL_IMAGES, device) for n in SIDES}
        yield law(name, "pixels", made, device)
        made = {n: partial(work, USUAL_VERTICES, USUAL_SIDE, n, device) for n in IMAGES}
        yield law(name, "images", made, device)
    made = {n - 1: partial(views_work, n, device) for n in VIEWS}
    yield law("view synthesis", "source views", made, device)


def law(of: str, size: str, made: Mapping[int, Callable[[], Work]], device: torch.device) -> Law:
    """Measures the work of every size, all of them in turns."""
    watches = [Stopwatch(make(), device) for make in made.values()]
    for watch in watches:
        watch.function()
    take_turns(watches, BUDGET_S, REPEATS)
    return Law(of, size, tuple(made), tuple(watch.measurement for watch in watches))


def rows(one: Law, device: torch.device) -> Iterator[Row]:
    """A row for every size above the smallest, against linear growth from there: at 1 or above it is no steeper."""
    first, start = one.sizes[0], one.cost[0].median_s
    for size, cost in zip(one.sizes[1:], one.cost[1:], strict=True):
        case = f"{one.of}: {size:,} {one.size} (exponent of all {one.exponent:.2f}, at most {one.steepest:.2f})"
        yield compare("scaling", case, device, cost, f"linear from {first:,}", start * size / first)


def draw_picture(found: Sequence[Law], device: torch.device, path: Path) -> None:
    """Write log-log plots, one for each size, with the fitted exponents; grey lines are linear growth.

    The type is large and the plots stand two in a row, so that they can be read on a phone.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    kinds = list(dict.fromkeys(one.size for one in found))
    figure = Figure(figsize=(9, 4.5 * math.ceil(len(kinds) / 2) + 1), dpi=100, layout="constrained")
    for place, kind in enumerate(kinds, start=1):
        plot = figure.add_subplot(math.ceil(len(kinds) / 2), 2, place)
        for number, one in enumerate(one for one in found if one.size == kind):
            seconds = np.array([cost.median_s for cost in one.cost])
            plot.loglog(one.sizes, seconds[0] * np.array(one.sizes) / one.sizes[0], color="0.75", linewidth=2)
            label = f"{one.of}: {one.exponent:.2f}"
            plot.loglog(one.sizes, seconds, "o-", label=label, color=f"C{number}", linewidth=3, markersize=9)
            ends = one.sizes[0], one.sizes[-1]
            labels = plot.set_xticks(ends, [f"{size:,}" for size in ends], fontsize=18)
            labels[-1].label1.set_horizontalalignment("right")  # inside the picture
        plot.set_xticks([], minor=True)
        plot.yaxis.set_major_locator(LogLocator(numticks=4))
        plot.yaxis.set_minor_formatter(NullFormatter())
        plot.tick_params(axis="y", labelsize=18)
        plot.set_xlabel(kind, fontsize=20)
        low, high = plot.get_ylim()
        plot.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        plot.legend(fontsize=14, loc="upper left", frameon=False, handlelength=0.8, borderaxespad=0)
        if place % 2:
            plot.set_ylabel("seconds", fontsize=20)
    threads = counted(torch.get_num_threads(), "threads")
    figure.suptitle(f"Cost and its exponent ({device.type}, {threads}); grey: linear", fontsize=20)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def run(device: torch.device, picture: Path | None = None) -> Iterator[Row]:
    """Rows of every law.

    Args:
        device: where.
        picture: where the plots are written; those of another device than the CPU with its name added.
    """
    found = []
    for one in laws(device):
        found.append(one)
        yield from rows(one, device)
    if picture is not None:
        draw_picture(
            found, device, picture if device.type == "cpu" else picture.with_stem(f"{picture.stem}-{device.type}")
        )
