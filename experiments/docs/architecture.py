"""Draws the packages and their imports, as they are in the code, into an SVG file.

python -m experiments.docs.architecture .github/architecture.svg
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import grimp

# Left upper corner of each package's box.
PLACES = {
    "renderers": (10, 90),
    "losses": (270, 10),
    "datamodules": (270, 205),
    "lightning_modules": (530, 10),
    "experiments": (790, 90),
}
WIDTH, LINE, HEAD = 212, 15, 42  # of a box, of a line in it, and down to its first line
COLUMNS, COLUMN_WIDTH = 2, 100
STYLE = (
    "text{font:600 14px sans-serif;fill:#1b1f24}.part{font:11px sans-serif;fill:#57606a}"
    "rect{fill:#eef2f7;stroke:#8c959f}"
    "path{fill:none;stroke:#57606a;stroke-width:1.5}.head{fill:#57606a;stroke:none}.sheet{fill:#fff;stroke:none}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.part{fill:#9da7b3}rect{fill:#1c232c;stroke:#6e7681}"
    "path{stroke:#9da7b3}.head{fill:#9da7b3}.sheet{fill:#0d1117}}"
)


def arrows(graph: grimp.ImportGraph) -> dict[tuple[str, str], bool]:
    """(imported, importer) packages, each with whether it is imported as a whole.

    What follows from other arrows of whole packages is left out. `datamodules.batch` alone is no whole package.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = imported.split(".")[0], importer.split(".")[0]
            if pair[0] != pair[1]:
                found.setdefault(pair, set()).add(imported)
    whole = {pair: len(modules) > 1 for pair, modules in found.items()}
    solid = {pair for pair, all_of_it in whole.items() if all_of_it}
    return {pair: whole[pair] for pair in sorted(whole) if not _is_implied(pair, solid - {pair})}


def _is_implied(pair: tuple[str, str], others: Collection[tuple[str, str]]) -> bool:
    reached, size = {pair[0]}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {importer for imported, importer in others if imported in reached}
    return pair[1] in reached


def height(parts: Collection[str]) -> int:
    """Of a package's box, pixels."""
    return HEAD + LINE * -(-len(parts) // COLUMNS)


def box(package: str, parts: list[str]) -> str:
    """A package with the names of its parts."""
    x, y = PLACES[package]
    lines = []
    for number, part in enumerate(parts):
        row, column = divmod(number, COLUMNS)
        place = f'x="{x + 10 + COLUMN_WIDTH * column}" y="{y + HEAD + LINE * row}"'
        lines.append(f'<text class="part" {place}>{part}</text>')
    frame = f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height(parts)}" rx="8"/>'
    return "\n".join([frame, f'<text x="{x + 10}" y="{y + 22}">{package}</text>', *lines])


def arrow(imported: str, importer: str, whole: bool, heights: dict[str, int]) -> str:
    """From the right side of one box to the left side of another; dashed where it is one module alone."""
    (x0, y0), (x1, y1) = PLACES[imported], PLACES[importer]
    x0, y0, y1 = x0 + WIDTH, y0 + heights[imported] // 2, y1 + heights[importer] // 2
    # Arrows that meet at a box end at different heights.
    y1 += 12 * ((y0 > y1) - (y0 < y1))
    dashes = "" if whole else ' stroke-dasharray="5 4"'
    middle = (x0 + x1) // 2
    line = f'<path d="M{x0} {y0}C{middle} {y0} {middle} {y1} {x1 - 8} {y1}"{dashes}/>'
    return line + f'<path class="head" d="M{x1} {y1}l-9 -5v10z"/>'


def draw() -> str:
    """The picture."""
    graph = grimp.build_graph(*PLACES, cache_dir=None)
    parts = {
        package: sorted(child.split(".")[-1] for child in graph.find_children(package) if _is_part(graph, child))
        for package in PLACES
    }
    heights = {package: height(names) for package, names in parts.items()}
    total = max(PLACES[package][1] + heights[package] for package in PLACES) + 10
    drawn = [arrow(*pair, whole, heights) for pair, whole in arrows(graph).items()]
    drawn += [box(package, names) for package, names in parts.items()]
    title = "<title>Five packages; an arrow leads from a package to one that imports it</title>"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1012 {total}" role="img">{title}<style>{STYLE}</style>'
    )
    # A site's dark mode may be another than the system's, whose colours the picture has: it brings its own background.
    sheet = f'<rect class="sheet" width="1012" height="{total}"/>'
    return "\n".join([head, sheet, *drawn, "</svg>\n"])


def _is_part(graph: grimp.ImportGraph, module: str) -> bool:
    """Packages, and of `losses`, which has few, every module."""
    return bool(graph.find_children(module)) or module.startswith("losses.")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
