"""Where the papers' folders are: configuration, tables, sweeps and results of each."""

from __future__ import annotations

from pathlib import Path

from renderers.io.errors import UserError

EXPERIMENTS = Path(__file__).parent


def papers_with(file: str) -> list[str]:
    """The papers that have a file of that name, in alphabetical order."""
    return sorted(found.parent.name for found in EXPERIMENTS.glob(f"*/{file}"))


def paper_folder(paper: str, file: str) -> Path:
    """experiments/PAPER, by the paper's name or by path.

    Args:
        paper: its name, or a folder.
        file: what must be in it.

    Raises:
        UserError: it has no such file.
    """
    for folder in (EXPERIMENTS / paper, Path(paper)):
        if (folder / file).is_file():
            return folder.resolve()
    known = ", ".join(papers_with(file)) or "none"
    raise UserError(f"{paper}: no {file} there; papers with one: {known}")
