"""What the code does, as digests: changed by every change of behaviour, not by comments and docstrings."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from experiments.papers import EXPERIMENTS

ROOT = EXPERIMENTS.parent
PAPERS = "lightning_modules"  # its folders but this are papers
SHARED = "components"
PARTS = ("renderers", "losses", "datamodules", PAPERS, "experiments/training")


@functools.cache
def code_digests() -> dict[str, str]:
    """Part of the code -> 12 hexadecimal digits.

    The parts are `PARTS`, and each paper's folder in lightning_modules apart from what papers share.
    """
    digests = {part: _digest(sorted(_files(ROOT / part))) for part in PARTS}
    papers = (ROOT / PAPERS).glob("*/module.py")
    return digests | {f"{PAPERS}/{path.parent.name}": _digest(sorted(path.parent.rglob("*.py"))) for path in papers}


def parts_of(paper: str) -> tuple[str, ...]:
    """The parts that a training of this paper runs."""
    return (*PARTS, f"{PAPERS}/{paper}")


def _files(folder: Path) -> list[Path]:
    if folder.name != PAPERS:
        return list(folder.rglob("*.py"))
    return [*folder.glob("*.py"), *(folder / SHARED).rglob("*.py")]


def _digest(files: list[Path]) -> str:
    contents = [f"{path.relative_to(ROOT).as_posix()}\n{without_prose(path.read_text('utf-8'))}" for path in files]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()[:12]


def without_prose(source: str) -> str:
    """Python source -> the same program as text of one form, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
