"""A figure of panels: headings above the columns, labels beside the rows, and a line of text below a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

PANEL = 176  # pixels of a panel's side
TEXT, SMALL = 15, 13  # pixels of the font, of headings and labels and of notes
GAP = 4  # pixels between panels, and around text
WIDEST_LABEL = 110  # pixels


@dataclass(frozen=True)
class Sheet:
    """A column for each name, a row for each label.

    Attributes:
        name: of the file, without suffix.
        columns: heading -> (N, 3, H, W) panels, square; values outside [0, 1] are clamped. H may differ.
        rows: N labels; none where absent.
        notes: heading -> N lines of text, each below its panel.
        blocks: the rows stand side by side in so many blocks, each with all headings. N is a multiple of it.
    """

    name: str
    columns: Mapping[str, Tensor]
    rows: Sequence[str] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    blocks: int = 1

    @property
    def count(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class Layout:
    """Where a block's panels stand, in pixels: its label column, its headings, and the distance between rows."""

    left: int
    above: int
    row: int

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """x, y of a panel's upper left corner in its block."""
        return self.left + column * (PANEL + GAP), self.above + row * self.row


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The whole figure; a longer heading or label is broken into lines."""
    rows, place = sheet.count // sheet.blocks, layout(sheet)
    width, height = place.corner(rows, len(sheet.columns))
    canvas = Image.new("RGB", (sheet.blocks * (width + GAP), height), "white")
    pen = ImageDraw.Draw(canvas)
    for block in range(sheet.blocks):
        start = block * (width + GAP)
        for column, heading in enumerate(sheet.columns):
            x, y = place.corner(0, column)
            text = "\n".join(broken(heading, PANEL))
            middle = (start + x + PANEL / 2, y - GAP)
            pen.multiline_text(middle, text, "black", _font(TEXT), anchor="md", align="center")
        for row in range(rows):
            _draw_row(canvas, pen, sheet, place, start, row, block * rows + row)
    return canvas


def layout(sheet: Sheet) -> Layout:
    """What a figure's words leave room for."""
    labels = [line for label in sheet.rows for line in broken(label, WIDEST_LABEL)]
    left = 2 * GAP + max((round(_font(TEXT).getlength(line)) for line in labels), default=-GAP)
    lines = max(len(broken(heading, PANEL)) for heading in sheet.columns)
    noted = SMALL + 2 * GAP if sheet.notes else GAP
    return Layout(left, 2 * GAP + lines * (TEXT + 2 * GAP), PANEL + noted)


def broken(text: str, width: int) -> list[str]:
    """The text's lines, those of more pixels than that broken at spaces; a single longer word stays whole."""
    font, lines = _font(TEXT), []
    for line in text.split("\n"):
        lines.append("")
        for word in line.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def fitted(picture: Tensor, side: int = PANEL) -> Tensor:
    """(N, 3, H, W) -> (N, 3, side, side): larger pictures averaged, smaller ones interpolated."""
    if picture.shape[-1] >= side:
        return functional.interpolate(picture, size=(side, side), mode="area")
    return functional.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def _draw_row(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, sheet: Sheet, place: Layout, start: int, row: int, item: int
) -> None:
    """One label, its panels and what stands below them."""
    if sheet.rows:
        _, y = place.corner(row, 0)
        text = "\n".join(broken(sheet.rows[item], WIDEST_LABEL))
        right = (start + place.left - GAP, y + PANEL / 2)
        pen.multiline_text(right, text, "black", _font(TEXT), anchor="rm", align="right")
    for column, (heading, panels) in enumerate(sheet.columns.items()):
        x, y = place.corner(row, column)
        shown = fitted(panels[item : item + 1].detach().float().cpu().nan_to_num(0.0).clamp(0, 1))[0]
        pixels = (shown.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        canvas.paste(Image.fromarray(pixels), (start + x, y))
        if heading in sheet.notes:
            middle = (start + x + PANEL / 2, y + PANEL + GAP / 2)
            pen.text(middle, sheet.notes[heading][item], "black", _font(SMALL), anchor="ma")


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
