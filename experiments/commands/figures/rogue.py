"""ROGUE's figures 3 to 5, 7 and 10: a face under all occlusions and noise, and occluders of other sizes and colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from datamodules.batch import MultiViewBatch
from datamodules.corruption import NOISE_KINDS, RATIONAL_KINDS, DelusionalOcclusion, Noise, RationalOcclusion
from experiments.commands.evaluate.bootstrap import Interval, people_interval
from experiments.commands.figures.people import (
    LARGE,
    Picture,
    Request,
    enlarged,
    lines,
    on_picture,
    on_white,
    true_coefficients,
    true_faces,
)
from experiments.commands.figures.sheet import Sheet, draw_sheet
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import clay
from lightning_modules.rogue import ROGUE
from losses.metrics import shape_errors, texture_rmse
from renderers.coefficients import Coefficients
from renderers.face_renderer import Rendering

MODULE = ROGUE
SHARES = (0.05, 0.2, 0.4, 0.55, 0.7)  # limits of the delusional occlusions' rows: of the face
COLORS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.7, 0.2), "blue": (0.1, 0.2, 0.9)}  # of the paper's figure 10
SIZES = (0.15, 0.3, 0.45, 0.6)  # shares of the face under an occluder of one colour
GROWTH = tuple(step / 10 for step in range(8))  # shares of the plot: training hides .7 at most
MEASURED = 24  # people in the plot
NAMES = ("ROGUE", "compared")
TRUTH, CLEAN = "truth", "clean"  # labels of rows


def figures(request: Request) -> Iterator[Picture]:
    """`occlusions`, `growth` and `colors`."""
    networks = [request.module, *([request.compared] if request.compared else [])]
    one = request.batch(people=1)
    yield "occlusions", draw_sheet(occlusions_sheet(networks, one, request.first))
    yield "growth", draw_growth([grown_errors(network, request.batch(people=MEASURED)) for network in networks])
    yield "colors", draw_sheet(colors_sheet(networks, one, request.first))


def conditions() -> dict[str, nn.Module]:
    """Label -> what alters a picture: what people wear, shapes that hide ever more of the face, and noise."""
    shapes = {
        f"{round(100 * low)}-{round(100 * high)} % hidden": DelusionalOcclusion((low, high))
        for low, high in pairwise(SHARES)
    }
    worn = {name.replace("_", " "): RationalOcclusion([name]) for name in RATIONAL_KINDS}
    return worn | shapes | {name.replace("_", " "): Noise([name]) for name in NOISE_KINDS}


def occlusions_sheet(networks: Sequence[FaceModule], batch: MultiViewBatch, seed: int) -> Sheet:
    """One person clean and under each of `conditions`: the picture, and the shape and the colour of every answer.

    Args:
        networks: ROGUE, and perhaps another one.
        batch: of the person's one picture.
        seed: of what is put on it.
    """
    altered = conditions()
    halves = list(altered)[: len(RATIONAL_KINDS)], list(altered)[len(RATIONAL_KINDS) :]
    longest = max(map(len, halves))
    order = [name for half in halves for name in (TRUTH, CLEAN, *half, *[""] * (longest - len(half)))]
    images = {TRUTH: batch.image, CLEAN: batch.image, "": torch.ones_like(batch.image)}
    for place, (name, module) in enumerate(altered.items()):
        generator = torch.Generator().manual_seed(1000 * seed + place)  # its own, so that it stays if others change
        images[name] = module(batch.image, batch.landmarks, generator).image
    pictures = torch.cat([images[name] for name in order])
    true = true_faces(networks[0].face_model, batch)
    columns: dict[str, Tensor] = {"picture": pictures}
    notes: dict[str, list[str]] = {}
    for network, suffix in zip(networks, _suffixes(networks), strict=True):
        found = answer(network, batch, pictures)
        for heading, draw, told in (("shape", clay, found.size_notes()), ("colour", _colors, found.color_notes())):
            instead = {TRUTH: draw(true)[0], "": torch.ones(3, LARGE, LARGE)}
            panels = zip(order, draw(found.large), strict=True)
            columns[heading + suffix] = torch.stack([instead.get(name, panel) for name, panel in panels])
            notes[heading + suffix] = ["" if name in instead else line for name, line in zip(order, told, strict=True)]
    return Sheet("occlusions", columns, order, notes, blocks=2)


def _colors(rendering: Rendering) -> Tensor:
    return on_white(rendering.albedo, rendering)


@dataclass(frozen=True)
class Answer:
    """What a network makes of N pictures of one person.

    Attributes:
        large: the faces, drawn large.
        size: (N,) percent by which they are too large.
        color: (N,) RMSE of the vertices' colours.
    """

    large: Rendering
    size: Tensor
    color: Tensor

    def size_notes(self) -> list[str]:
        """The errors of the size, as text."""
        return lines("size {:+.1f} %", self.size)

    def color_notes(self) -> list[str]:
        """The errors of the colours, as text."""
        return lines("colours {:.3f} off", self.color)


def answer(network: FaceModule, batch: MultiViewBatch, pictures: Tensor) -> Answer:
    """The answers to N altered copies (N, 3, H, W) of the one picture of a batch."""
    count = len(pictures)
    true = repeated(network, batch, count)
    rendering = network.reconstruct(pictures, None, batch.intrinsics.repeat(count, 1, 1)).rendering
    return Answer(enlarged(rendering), *errors(network, rendering, true))


def repeated(network: FaceModule, batch: MultiViewBatch, count: int) -> Coefficients:
    """The true coefficients of a batch of one picture, so many times."""
    layout = network.face_model.layout()
    return layout.split(layout.join(true_coefficients(network.face_model, batch)).repeat(count, 1))


def errors(network: FaceModule, rendering: Rendering, true: Coefficients) -> tuple[Tensor, Tensor]:
    """(B,) percent by which found faces are too large, and (B,) the RMSE of their vertices' colours in [0, 1]."""
    model = network.face_model
    _, growth = shape_errors(rendering.shape, model.shape(true.identity, true.expression))
    return growth, texture_rmse(rendering.vertex_albedo, model.albedo(true.albedo))


def grown_errors(network: FaceModule, batch: MultiViewBatch) -> Mapping[str, Sequence[Interval]]:
    """The absolute size error in percent and the colour error for each share of the face in `GROWTH`, over people.

    The shapes of a person are the same for all shares: they grow.
    """
    true = true_coefficients(network.face_model, batch)
    found: dict[str, list[Interval]] = {"size": [], "color": []}
    for share in GROWTH:
        generator = torch.Generator().manual_seed(0)
        image = DelusionalOcclusion((share, share))(batch.image, batch.landmarks, generator).image
        rendering = network.reconstruct(image, batch.skin, batch.intrinsics).rendering
        size, color = errors(network, rendering, true)
        for name, values in (("size", size.abs()), ("color", color)):
            found[name].append(people_interval({str(row): [value] for row, value in enumerate(values.tolist())}))
    return found


def draw_growth(networks: Sequence[Mapping[str, Sequence[Interval]]]) -> Image.Image:
    """Two plots of `grown_errors`, of one or two networks: a mean, and its 95 % interval over people."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    shares = [100 * share for share in GROWTH]
    figure.suptitle(f"{MEASURED} people; the bands hold 95 % of the means over resampled people", fontsize=9)
    titles = {"size": "size error, %", "color": "colour error (RMSE of the albedo, 0 to 1)"}
    for plot, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for label, style, found in zip(NAMES, ("-", "--"), networks, strict=False):
            drawn = plot.plot(shares, [value.mean for value in found[name]], style, marker="o", label=label)
            low, high = ([getattr(value, end) for value in found[name]] for end in ("low", "high"))
            plot.fill_between(shares, low, high, color=drawn[0].get_color(), alpha=0.15, linewidth=0)
        plot.set(xlabel="share of the face hidden, %", ylabel=title, ylim=(0, None))
        plot.grid(color="0.9")
        plot.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def colors_sheet(networks: Sequence[FaceModule], batch: MultiViewBatch, seed: int) -> Sheet:
    """One person under the same growing occluder in each of `COLORS`: the picture, and the answer over the clean one.

    Args:
        networks: ROGUE, and perhaps another one.
        batch: of the person's one picture.
        seed: of the occluder.
    """
    columns: dict[str, list[Tensor]] = {}
    notes: dict[str, list[str]] = {}
    for share in SIZES:
        generator = torch.Generator().manual_seed(seed)
        mask = DelusionalOcclusion((share, share))(batch.image, batch.landmarks, generator).mask
        colors = torch.tensor(list(COLORS.values()))[:, :, None, None]
        pictures = torch.where(mask, colors, batch.image)
        hidden = f"{round(100 * share)} % hidden"
        columns[hidden] = list(pictures)
        for network, suffix in zip(networks, _suffixes(networks), strict=True):
            found, heading = answer(network, batch, pictures), f"{hidden}: answer{suffix}"
            columns[heading] = list(on_picture(found.large, batch.image.expand(len(pictures), -1, -1, -1)))
            pairs = zip(found.size.tolist(), found.color.tolist(), strict=True)
            notes[heading] = [f"size {size:+.1f} %, colours {color:.3f}" for size, color in pairs]
    return Sheet("colors", {heading: torch.stack(panels) for heading, panels in columns.items()}, list(COLORS), notes)


def _suffixes(networks: Sequence[FaceModule]) -> list[str]:
    """What is added to headings: nothing for one network."""
    return [f", {name}" for name in NAMES[: len(networks)]] if len(networks) > 1 else [""]
