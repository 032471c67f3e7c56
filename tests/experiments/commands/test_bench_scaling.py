"""Laws of growth: the exponents of known costs, the rows and the picture that are made of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.commands.bench import scaling
from experiments.commands.bench.command import add_arguments, run
from experiments.commands.bench.measure import Measurement
from experiments.commands.bench.scaling import Law, draw_picture, rows

CPU = torch.device("cpu")


def made(exponent: float, cliff: float = 1.0) -> Law:
    """A law of exactly that exponent, whose last size costs `cliff` times as much."""
    sizes = (10, 100, 1_000)
    seconds = [1e-3 * size**exponent for size in sizes]
    seconds[-1] *= cliff
    return Law("work", "parts", sizes, tuple(Measurement(one, 0.1, 50.0) for one in seconds))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_exponent_of_a_power_law(exponent: float) -> None:
    law = made(exponent)
    assert law.exponent == pytest.approx(exponent)
    assert law.steepest == pytest.approx(exponent)


def test_a_cliff_stands_out() -> None:
    law = made(1.0, cliff=10.0)
    assert law.steepest == pytest.approx(2.0)
    assert law.exponent == pytest.approx(1.5)


def test_rows_are_against_linear_growth_from_the_smallest() -> None:
    found = list(rows(made(2.0), CPU))
    assert [row.ratio for row in found] == pytest.approx([0.1, 0.01])
    assert [row.against for row in found] == ["linear from 10"] * 2
    assert found[0].case == "work: 100 parts (exponent of all 2.00, at most 2.00)"
    assert all(row.ratio == pytest.approx(1.0) for row in rows(made(1.0), CPU))


def test_picture_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "scaling.png"
    draw_picture([made(1.0), made(0.5)], CPU, target)
    with Image.open(target) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 200
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, "lines in colour"
    assert [path.name for path in tmp_path.iterdir()] == ["scaling.png"]


def test_command_measures_every_law_and_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, sizes in {"VERTICES": (64, 256), "SIDES": (16, 32), "IMAGES": (1, 2), "VIEWS": (2, 3)}.items():
        monkeypatch.setattr(scaling, name, sizes)
    for name, value in {"USUAL_VERTICES": 100, "USUAL_SIDE": 32, "USUAL_IMAGES": 1, "BUDGET_S": 0.02}.items():
        monkeypatch.setattr(scaling, name, value)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    target, record = tmp_path / "scaling.png", tmp_path / "rows.json"
    assert run(parser.parse_args(["scaling", "--out", str(target), "--json", str(record)])) == 0
    assert target.stat().st_size > 5_000
    text = record.read_text()
    for told in (
        "vertices",
        "pixels",
        "images",
        "source views",
        "rasterize",
        "view synthesis",
        "decode, shade, render",
    ):
        assert told in text
