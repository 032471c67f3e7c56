"""Pictures of a benchmark's results: cumulative curves, and the worst, middle and best faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLORS = ("#1f5fa8", "#d2691e", "#2e8b57", "#8b3a62", "#6b6b6b", "#b8860b")
WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 24, 52  # margins in pixels
DENSITY = 2  # pictures are drawn larger by this factor and then shrunk, for smooth lines
SMALLEST_LABELLED = 96  # pixels; smaller pictures are enlarged before text is written on them


@dataclass(frozen=True, eq=False)
class CumulativeCurve:
    """The share of errors below each value.

    Attributes:
        name: in the legend.
        unit: name and unit of the errors, the same for all curves of a picture.
        values: (N,) rising.
        share: (N,) in [0, 1].
    """

    name: str
    unit: str
    values: np.ndarray
    share: np.ndarray


def cumulative_curve(name: str, unit: str, errors: Sequence[float]) -> CumulativeCurve:
    """The curve of some errors, up to slightly more than the largest."""
    rising = np.sort(np.asarray(errors, dtype=np.float64))
    steps = np.arange(1, len(rising) + 1) / len(rising)
    values = np.concatenate([[0.0], np.repeat(rising, 2), [1.02 * rising[-1]]])
    share = np.concatenate([[0.0], np.stack([steps - 1 / len(rising), steps], axis=1).ravel(), [1.0]])
    return CumulativeCurve(name, unit, values, share)


def draw_curves(curves: Sequence[CumulativeCurve]) -> Image.Image:
    """One picture of all curves, at least one, with a legend; percent upwards, errors to the right."""
    right = max(float(curve.values[-1]) for curve in curves) or 1.0
    size = (WIDTH * DENSITY, HEIGHT * DENSITY)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=13 * DENSITY)

    def place(value: float, share: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * value / right
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)
        return x * DENSITY, y * DENSITY

    for percent in range(0, 101, 20):
        pen.line([place(0, percent / 100), place(right, percent / 100)], fill="#dddddd", width=DENSITY)
        x, y = place(0, percent / 100)
        pen.text((x - 8 * DENSITY, y), f"{percent}", fill="black", font=font, anchor="rm")
    for value in _ticks(right):
        pen.line([place(value, 0), place(value, 1)], fill="#dddddd", width=DENSITY)
        x, y = place(value, 0)
        pen.text((x, y + 6 * DENSITY), f"{value:g}", fill="black", font=font, anchor="ma")
    middle = (LEFT + WIDTH - RIGHT) / 2 * DENSITY
    pen.text((middle, (HEIGHT - 8) * DENSITY), curves[0].unit, fill="black", font=font, anchor="md")
    pen.text((4 * DENSITY, 4 * DENSITY), "%", fill="black", font=font)
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        points = [place(value, share) for value, share in zip(curve.values, curve.share, strict=True)]
        pen.line(points, fill=color, width=2 * DENSITY, joint="curve")
        line = (HEIGHT - BOTTOM - 20 * (len(curves) - number)) * DENSITY
        pen.text(((WIDTH - RIGHT - 8) * DENSITY, line), curve.name, fill=color, font=font, anchor="rm")
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _ticks(right: float) -> list[float]:
    """Four to ten round numbers from 0 to `right`."""
    magnitude = 10.0 ** np.floor(np.log10(right))
    step = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if right / (step * magnitude) <= 10) * magnitude
    return [float(step * count) for count in range(int(right / step + 1e-9) + 1)]


def extremes(errors: Sequence[float]) -> dict[str, int]:
    """The rows of the worst, the middle and the best of some errors."""
    order = np.argsort(np.asarray(errors), kind="stable")
    return {"worst": int(order[-1]), "median": int(order[(len(order) - 1) // 2]), "best": int(order[0])}


def labelled(picture: Tensor, text: str) -> Tensor:
    """(3, H, W) in [0, 1] with a line of text on a dark band at the bottom. Enlarges small pictures."""
    height, width = picture.shape[1:]
    factor = -(-SMALLEST_LABELLED // min(height, width))
    large = picture.detach().float().cpu().clamp(0, 1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    image = Image.fromarray((large.permute(1, 2, 0) * 255).round().byte().numpy())
    if text:
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, image.height - 14, image.width, image.height), fill="black")
        pen.text((3, image.height - 2), text, fill="white", font=ImageFont.load_default(size=10), anchor="ld")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
