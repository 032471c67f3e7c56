"""The front door: the README's length and figures, the pictures that are drawn from code, the site, its notebooks."""

from __future__ import annotations

import logging
import re
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest

from experiments.docs import architecture, results

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "experiments" / "docs"
MOST_WORDS = 700


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_the_readmes_table_says_what_the_tables_say() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"<!-- papers -->\n(.*?)\n<!-- /papers -->", text, re.DOTALL)
    assert written == results.markdown(), "run `python -m experiments.docs.results README.md`"


def test_an_interval_is_students() -> None:
    """Of 1, 2, 3: mean 2, deviation 1, and Student's 97.5 % quantile of two degrees of freedom is 4.303."""
    mean, half = results.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_rows_agree_where_both_stand_on_the_same_side() -> None:
    headline = results.Headline("", "", 1, "", "ours", "paper", ("none", "full"))
    values: dict[str, tuple[float, list[float]]] = {
        "full": (1.0, [10.0, 40.0]),
        "none": (2.0, [20.0, 50.0]),
        "worse here": (0.5, [12.0]),
        "the same way": (0.5, [9.0]),
        "worse on the seeds that both have": (2.0, [11.0]),  # its mean is below that of the full method's two
    }
    rows = [
        {"name": name, "paper": {"paper": theirs}, "ours": {"ours": {"seeds": ours}}}
        for name, (theirs, ours) in values.items()
    ]
    rows.append({"name": "not published", "paper": {}, "ours": {"ours": {"seeds": [1.0]}}})
    assert results.agreement({"rows": rows}, headline) == (3, 4)


def test_the_architecture_is_that_of_the_code() -> None:
    drawn = (ROOT / ".github" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == architecture.draw(), "run `python -m experiments.docs.architecture .github/architecture.svg`"


def test_the_site_is_built_offline_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.utils import CountHandler

    def refuse(*_: Any) -> None:
        raise AssertionError("the site asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    warnings = CountHandler(level=logging.WARNING)
    logging.getLogger("mkdocs").addHandler(warnings)
    try:
        build(load_config(str(DOCS / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    finally:
        logging.getLogger("mkdocs").removeHandler(warnings)
    assert not any(count for _, count in warnings.get_counts())
    reference = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert all(
        f'id="{name}"' in reference
        for name in ("renderers.face_renderer.FaceRenderer", "losses.landmark.landmark_loss")
    )
    assert (tmp_path / "pictures" / "hero.jpg").is_file()
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")]
    # What a page loads by itself must lie beside it.
    assert not any(
        re.search(r'(?:<script[^>]* src|<img[^>]* src|rel="stylesheet" href)="(?:https?:)?//', page) for page in pages
    )


def run_notebook(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    return runpy.run_path(str(DOCS / "notebooks" / f"{name}.py"))


def test_the_toy_paper_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_notebook("add_a_paper", tmp_path, monkeypatch)
    assert names["after"] < 0.75 * names["before"]
    assert names["trainer"].global_step == 100


@pytest.mark.slow
def test_the_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(run_notebook("render", tmp_path, monkeypatch)["yaw"].item() - 3.14159 / 6) < 0.03
    energy = run_notebook("fit", tmp_path, monkeypatch)["energy"]
    assert energy[-1] < energy[0]
    losses = run_notebook("train", tmp_path, monkeypatch)["losses"]
    assert losses[-1] < 0.7 * losses[0]
