"""Writes the README's table of the papers from their `table.json` files.

python -m experiments.docs.results README.md
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.commands.table import interval, replace_block
from experiments.papers import paper_folder
from experiments.training.run_folder import read_json

HEADER = """| paper | what it adds | command | minutes | from → to (95 % interval) | rows that agree |
|---|---|---|---:|---|---:|"""


@dataclass(frozen=True)
class Headline:
    """One line of the table.

    Attributes:
        name: of the paper, and where it appeared.
        adds: what the paper brings.
        minutes: of the default run on two CPU cores.
        measure: what `ours` is called in the table.
        ours: the metric of our runs.
        paper: the paper's column that is compared with it.
        rows: (without, with) the paper's idea.
        digits: of `ours`, after the point.
    """

    name: str
    adds: str
    minutes: int
    measure: str
    ours: str
    paper: str
    rows: tuple[str, str]
    digits: int = 2


HEADLINES = {
    "mgcnet": Headline(
        "MGCNet, ECCV 2020",
        "several views must agree",
        11,
        "yaw error, degrees",
        "val/yaw_error_deg",
        "MICC indoor",
        ("2D only", "+ all"),
    ),
    "rogue": Headline(
        "ROGUE, BMVC 2022",
        "robustness to occlusion",
        10,
        "drift under occlusion, mm",
        "val/delusional/posed_drift_mm",
        "delusional shape",
        ("none (guidance alone)", "L_O, L_N, L_C (ROGUE)"),
        digits=1,
    ),
    "specular": Headline(
        "Specular, MM 2022",
        "highlights and a lamp",
        12,
        "colour error",
        "val/color_error",
        "color error",
        ("without L_photo", "all losses"),
        digits=3,
    ),
    "finegrained": Headline(
        "Fine-grained",
        "wrinkles and skin detail",
        8,
        "held-out normals, degrees",
        "val/held_out/fine_normal_error_deg",
        "RMSE",
        ("none (the coarse face)", "all three"),
        digits=1,
    ),
    "self_augmentation": Headline(
        "Self-augmentation",
        "refined texture",
        11,
        "occluded PSNR, dB",
        "val/occluded/fine_psnr",
        "PSNR",
        ("without self-augmentation", "L_photo, L_id, L_att, L_rob"),
        digits=1,
    ),
}


def agreement(table: Mapping[str, Any], headline: Headline) -> tuple[int, int]:
    """How many rows lie on the same side of the full method's row as the paper's do, and how many are compared.

    Over the seeds that both rows have: a row of fewer is not held against seeds that it never saw.
    """
    rows = {row["name"]: row for row in table["rows"] if headline.paper in row["paper"]}
    full = rows.pop(headline.rows[1])
    count = 0
    for row in rows.values():
        published = row["paper"][headline.paper] - full["paper"][headline.paper]
        seeds = (line["ours"][headline.ours]["seeds"] for line in (row, full))
        measured = sum(own - other for own, other in zip(*seeds, strict=False))
        count += published * measured > 0 or published == measured == 0
    return count, len(rows)


def line(paper: str, headline: Headline, table: Mapping[str, Any]) -> str:
    """The table's line of one paper."""
    rows = {row["name"]: row["ours"][headline.ours]["seeds"] for row in table["rows"]}
    shown = []
    for name in headline.rows:
        mean, half = interval(rows[name])
        spread = f" ± {half:.{headline.digits}f}" if math.isfinite(half) else " (one seed)"
        shown.append(f"{mean:.{headline.digits}f}{spread}")
    agree, compared = agreement(table, headline)
    title = f"[{headline.name}](experiments/{paper}/README.md)"
    figures = f"{headline.measure}: {shown[0]} → {shown[1]}"
    return (
        f"| {title} | {headline.adds} | `make train-{paper}` | {headline.minutes} | {figures} | {agree} of {compared} |"
    )


def markdown() -> str:
    """The whole table."""
    lines = [
        line(paper, headline, read_json(paper_folder(paper, "table.json") / "table.json"))
        for paper, headline in HEADLINES.items()
    ]
    return "\n".join([HEADER, *lines])


if __name__ == "__main__":
    replace_block(Path(sys.argv[1]), "papers", markdown())
