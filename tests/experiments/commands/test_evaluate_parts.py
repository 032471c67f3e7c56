"""What the benchmarks' suites share: published tables, curves, chosen subjects, result files; and likeness."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from experiments.commands.evaluate import celeba
from experiments.commands.evaluate.command import SUITES
from experiments.commands.evaluate.pictures import COLORS, cumulative_curve, draw_curves, extremes, labelled
from experiments.commands.evaluate.published import benchmark_table, published, written
from experiments.commands.evaluate.results import EVERYONE, Evaluation, Request, write_results
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.mgcnet import MGCNet
from losses.metrics import MaskedPSNR, MaskedRMSE, MaskedSSIM
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import exact_batch, small_face_model
from tests.datamodules.test_photo_folder import prepared_folder
from tests.lightning_modules import test_finegrained, test_self_augmentation

SIZE = 32


def rendered(view: object) -> str:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_published_tables_hold_a_figure_a_column() -> None:
    tables = published()
    assert {name.split()[0] for name in tables} == set(SUITES) - {"rogue", "scans", "heads"}
    for table in tables.values():
        for row in table.rows:
            assert len(row.figures) == len(table.columns)
            assert ", table " in row.source or row.source.startswith("NoW challenge, ")
            assert all(len(figure) in (0, 1, 2) and all(value > 0 for value in figure) for figure in row.figures)


def test_published_means_are_those_of_their_bins() -> None:
    """MGCNet's table 1a states bins and their mean: a slip of the pen would show. (PRN's is a misprint.)"""
    for row in published()["aflw2000"].rows:
        if row.name in ("3DDFA", "3D-FAN", "3DSTN", "MGCNet baseline", "MGCNet"):
            *bins, mean = (figure[0] for figure in row.figures)
            assert sum(bins) / 3 == pytest.approx(mean, abs=0.006)


def test_rows_of_now_say_their_split() -> None:
    """The challenge's own list is of the test set, the paper's table 4 of the validation set."""
    for name, split in (("now", "validation set"), ("now test", "test set")):
        assert all(row.source.endswith(f", {split}") for row in published()[name].rows)
    validation, test = ({row.name: row.figures[0][0] for row in published()[name].rows} for name in ("now", "now test"))
    assert all(validation[name] >= test[name] for name in validation.keys() & test.keys())


def test_finegrained_rows_agree_with_each_other() -> None:
    """RMSE and PSNR of a picture are one number in two units, and of a mean of pictures nearly so."""
    for row in published()["celeba"].rows:
        if row.figures[2]:
            assert -20 * math.log10(row.figures[2][0] / 255) == pytest.approx(row.figures[0][0], abs=1.5)


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in published()}))
def test_every_table_shows_ours_and_all_of_theirs_in_80_columns(name: str) -> None:
    names = [table for table in published() if table.split()[0] == name]
    columns = [column for table in names for column in published()[table].columns]
    # Landmarks by yaw have so many columns that ours, as theirs, give no deviation.
    figure = (1.234,) if name == "aflw2000" else (1.234, 0.5)
    text = rendered(benchmark_table("Title", "How.", {"ours": dict.fromkeys(columns, figure)}, names))
    assert written(figure, 2) in text and "How." in text
    assert "…" not in text
    for table in names:
        for row in published()[table].rows:
            below = text[text.index(row.source) :]
            line = re.search(rf"^\s+{re.escape(row.name)}\s{{2,}}.*$", below, re.MULTILINE)
            assert line is not None and all(written(figure, 2) in line[0] for figure in row.figures)


def test_figures_are_written_with_the_digits_they_need() -> None:
    assert [written(figure, 2) for figure in ((), (3.2,), (1.73, 0.48), (0.846, 0.034))] == [
        "-", "3.20", "1.73 ± 0.48", "0.846 ± 0.034",
    ]  # fmt: skip


def test_a_cumulative_curve_is_the_share_below() -> None:
    errors = [3.0, 1.0, 2.0, 2.0]
    curve = cumulative_curve("mine", "mm", errors)
    assert (np.diff(curve.values) >= 0).all() and (np.diff(curve.share) >= 0).all()
    for value, share in ((0.5, 0.0), (1.5, 0.25), (2.5, 0.75), (3.05, 1.0)):
        assert np.interp(value, curve.values, curve.share) == pytest.approx(share)


def test_curves_are_drawn_where_they_belong() -> None:
    low, high = (cumulative_curve(name, "NME, %", errors) for name, errors in (("low", [1.0]), ("high", [4.0])))
    picture = np.asarray(draw_curves([low, high])).astype(int)
    assert picture.shape == (480, 720, 3)

    def middle_row_columns(color: str) -> np.ndarray:
        wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
        return np.nonzero(np.abs(picture[200] - wanted).sum(axis=1) < 160)[0]

    first, second = (middle_row_columns(color) for color in COLORS[:2])
    # Where they rise: at 1 and at 4 of 4.08.
    assert first.mean() == pytest.approx(64 + 632 / 4.08, abs=2)
    assert second.mean() == pytest.approx(64 + 632 * 4 / 4.08, abs=2)


@pytest.mark.parametrize("largest", [1e-6, 0.03, 0.9999, 1.0, 3.3, 9.99, 10.0, 250.0])
def test_curves_of_any_size_are_drawn(largest: float) -> None:
    assert draw_curves([cumulative_curve("a", "mm", [largest / 3, largest])]).size == (720, 480)
    assert draw_curves([cumulative_curve("nothing", "mm", [0.0, 0.0])]).size == (720, 480)


def test_extremes_are_the_worst_the_middle_and_the_best() -> None:
    assert extremes([5.0, 1.0, 3.0, 2.0]) == {"worst": 0, "median": 3, "best": 1}
    assert extremes([7.0]) == {"worst": 0, "median": 0, "best": 0}


def test_a_label_leaves_the_picture_above_it_alone() -> None:
    picture = torch.rand(3, 40, 40)
    plain, told = labelled(picture, ""), labelled(picture, "worst 1.23 mm")
    assert plain.shape == told.shape == (3, 120, 120)
    assert (plain[:, ::3, ::3] - picture).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(told[:, :100], plain[:, :100])
    assert (told[:, -12:] - plain[:, -12:]).abs().max() > 0.2


def test_sets_of_unlike_sizes_say_so(tmp_path: Path) -> None:
    found = Evaluation(
        "scans",
        {"near": {"mm": [1.0, 2.0]}, "far": {"mm": [4.0]}},
        {},
        names={"near": ["a", "b"], "far": ["c"]},
        pooled={"all": {"median_mm": 2.0}},
        curves=[cumulative_curve("near", "mm", [1.0, 2.0])],
        left_out={"d": "no face found"},
    )
    paths = write_results(tmp_path, "micc", Path("a.ckpt"), found)
    assert [path.name for path in paths] == ["evaluation.json", "evaluation.csv", "subjects.csv", "curve.png"]
    record = json.loads(paths[0].read_text())
    assert (record["subjects"], record["counts"], record["left_out"]) == (
        2,
        {"near": 2, "far": 1},
        {"d": "no face found"},
    )
    assert record["pooled"] == {"all": {"median_mm": 2.0}}
    rows = list(csv.reader(paths[1].open()))
    assert rows[1:] == [["near", "mm", "1.5", str(math.sqrt(0.5)), "2"], ["far", "mm", "4.0", "0.0", "1"],
                        ["all", "median_mm", "2.0", "", ""]]  # fmt: skip
    assert list(csv.reader(paths[2].open()))[1:] == [["near", "a", "mm", "1.0"], ["near", "b", "mm", "2.0"],
                                                     ["far", "c", "mm", "4.0"]]  # fmt: skip


@pytest.fixture(scope="module")
def network() -> FaceModule:
    torch.manual_seed(0)
    return MGCNet(small_face_model(), ResNet(18), SmallEncoder(), SIZE)


def test_likeness_is_that_of_the_metrics_face_by_face(network: FaceModule) -> None:
    batch, _ = exact_batch(small_face_model(), 3, SIZE, views=1)
    drawn, pictures = celeba.draw_stages(network, batch)
    assert list(pictures) == ["coarse"]
    found = celeba.likeness(network, batch, drawn, pictures["coarse"])
    for name, metric in (("psnr", MaskedPSNR()), ("ssim", MaskedSSIM()), ("rmse", MaskedRMSE())):
        metric.update(drawn.image, batch.image, drawn.mask)
        assert len(found[name]) == 3 and len(set(found[name])) == 3
        assert np.mean(found[name]) == pytest.approx(float(metric.compute()), rel=1e-5)
    encoder = network.identity_encoder
    wanted = cosine_similarity(encoder(drawn.image.clamp(0, 1), drawn.landmarks), encoder(batch.image, batch.landmarks))
    assert found["identity_similarity"] == pytest.approx(wanted.tolist(), abs=1e-5)
    exact = celeba.likeness(network, batch, drawn, batch.image)
    assert exact["psnr"] == [100.0] * 3 and exact["ssim"] == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("paper", ["finegrained", "self_augmentation"])
def test_papers_with_a_fine_stage_show_both(paper: str) -> None:
    maker = test_finegrained if paper == "finegrained" else test_self_augmentation
    module = maker.make_module().eval()
    size = module.image_size
    batch, _ = exact_batch(module.face_model, 2, size, views=1)
    drawn, pictures = celeba.draw_stages(module, batch)
    assert list(pictures) == ["coarse", "fine"]
    if paper == "finegrained":  # Untrained, it changes the light alone, towards the photograph's.
        errors = {stage: ((picture - batch.image) * drawn.mask).square().mean() for stage, picture in pictures.items()}
        assert errors["fine"] < errors["coarse"]
    else:  # Untrained, it changes nothing.
        torch.testing.assert_close(pictures["fine"] * drawn.mask, pictures["coarse"] * drawn.mask, atol=1e-4, rtol=0)


def test_likeness_of_prepared_photographs(tmp_path: Path, network: FaceModule) -> None:
    prepared_folder(tmp_path, photos=6)
    request = Request(Path("a.ckpt"), tmp_path, EVERYONE, seed=0, batch_size=2)
    found = celeba.evaluate(network, request, print)
    assert found.truth == "photographs" and list(found.sets) == ["coarse"]
    assert 1 <= found.subjects <= 6
    whole = celeba.evaluate(network, Request(Path("a.ckpt"), tmp_path, EVERYONE, seed=0, batch_size=50), print)
    for metric, values in whole.sets["coarse"].items():
        np.testing.assert_allclose(found.sets["coarse"][metric], values, rtol=1e-4)
    assert list(found.panels) == ["input", "coarse", "shape"]
    text = rendered(celeba.table(found))
    assert "ours" in text and "25.98" in text and "0.938 ± 0.017" in text
