"""`prepare skin` on labelled photographs and on synthetic faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.preparation.skin_classifier import SkinClassifier
from experiments.__main__ import main
from experiments.commands.prepare.skin import draw_pixels, labelled_samples, separation

SKIN, WALL = (200, 150, 120), (90, 120, 160)


def photograph(path: Path, shift: int, labels: bool = True, side: int = 48) -> None:
    """A disc of skin on a wall, with grain."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:side, :side]
    disc = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 3) ** 2
    color = np.where(disc[..., None], np.array(SKIN) + shift, np.array(WALL) - shift)
    grain = np.random.default_rng(shift).normal(0, 6, color.shape)
    Image.fromarray((color + grain).clip(0, 255).astype(np.uint8)).save(path)
    if labels:
        Image.fromarray(disc.astype(np.uint8) * 255).save(path.with_name(f"{path.stem}_skin.png"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for shift in range(6):
        photograph(root / f"{shift}.png", shift)
    photograph(root / "sub" / "deep.jpg", 7)
    photograph(root / "unlabelled.png", 9, labels=False)
    (root / "notes.txt").write_text("hello")
    return root


def test_a_folder_of_labelled_photographs_gives_a_classifier(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "skin.json"
    command = ["prepare", "skin", str(folder), "--out", str(out), "--components", "2"]
    assert main(command) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "600 skin and 600 other pixels of 7 labelled photographs" in told
    assert "1 pictures held out" in told and "curve is 1.000" in told
    colors = torch.tensor([SKIN, WALL]).T[None, :, :, None] / 255
    skin, wall = SkinClassifier.load(out).probability(colors).flatten().tolist()
    assert skin > 0.99 and wall < 0.01
    first = out.read_bytes()
    assert main(command) == 0 and out.read_bytes() == first
    assert main([*command, "--seed", "1"]) == 0 and out.read_bytes() != first


def test_synthetic_faces_give_a_classifier_that_tells_them(tmp_path: Path) -> None:
    out = tmp_path / "skin.json"
    assert main(["prepare", "skin", "--synthetic", "20", "--components", "2", "--out", str(out)]) == 0
    classifier, default = SkinClassifier.load(out), SkinClassifier.load()
    assert classifier.source == "20 synthetic faces, seed 0" and default.source.endswith("synthetic faces, seed 0")
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    both = torch.stack([c.probability(image).flatten() for c in (classifier, default)])
    assert torch.corrcoef(both)[0, 1] > 0.8  # the one that comes along, in small


def test_pixels_are_drawn_once_each_and_clipped_skin_is_passed_over() -> None:
    image = np.random.default_rng(0).uniform(0, 0.9, (30, 30, 3))
    mask = np.zeros((30, 30), bool)
    mask[:, :10] = True
    image[:5, :5], image[:5, 5:10] = 1.0, 0.0
    skin, other = draw_pixels(image, mask, np.random.default_rng(1))
    assert skin.shape == other.shape == (100, 3) and 0 < skin.min() <= skin.max() < 0.9
    for drawn, pool in ((skin, image[5:, :10]), (other, image[:, 10:])):
        rows = {tuple(row) for row in drawn}
        assert len(rows) == 100 and rows <= {tuple(row) for row in pool.reshape(-1, 3)}
    few, _ = draw_pixels(image[:, :12], mask[:, :12] & (np.arange(30) > 27)[:, None], np.random.default_rng(1))
    assert few.shape == (20, 3)


def test_the_labels_of_a_photograph_are_its_own(folder: Path) -> None:
    samples = list(labelled_samples(folder, 0))
    assert len(samples) == 7
    for skin, other in samples:
        assert np.abs(skin.mean(axis=0) * 255 - SKIN).max() < 15 and np.abs(other.mean(axis=0) * 255 - WALL).max() < 15


def test_separation_counts_pairs() -> None:
    classifier = SkinClassifier.load()
    generator = np.random.default_rng(0)
    skin, other = generator.uniform(0, 1, (12, 3)), generator.uniform(0, 1, (15, 3))
    one, two = (classifier.probability(torch.as_tensor(p.T)[None, :, :, None]).flatten() for p in (skin, other))
    won = (one[:, None] > two).double() + 0.5 * (one[:, None] == two)
    assert separation(classifier, skin, other) == pytest.approx(float(won.mean()))
    assert np.isnan(separation(classifier, skin, other[:0]))


def test_users_mistakes_are_one_line_and_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "skin.json")
    bare, small, odd, broken = (tmp_path / name for name in ("bare", "small", "odd", "broken"))
    photograph(bare / "a.png", 0, labels=False)
    photograph(small / "a.png", 0)
    photograph(odd / "a.png", 0)
    photograph(odd / "b.png", 0, side=40)
    (odd / "b_skin.png").replace(odd / "a_skin.png")
    photograph(broken / "a.png", 0)
    (broken / "a.png").write_bytes(b"x")
    for arguments, told in [
        ([str(tmp_path / "missing"), "--out", out], "no such folder"),
        ([str(folder / "notes.txt"), "--out", out], "not a folder"),
        ([str(bare), "--out", out], "with its labels in NAME_skin.png"),
        ([str(small), "--out", out], "label more pictures"),
        ([str(odd), "--out", out], "another size"),
        ([str(broken), "--out", out], "not an image"),
        (["--out", out], "either a folder"),
        ([str(folder), "--synthetic", "5", "--out", out], "either a folder"),
        (["--synthetic", "0", "--out", out], "whole number from 1"),
        ([str(folder), "--components", "65", "--out", out], "whole number from 1 to 64"),
        ([str(folder), "--seed", "x", "--out", out], "whole number from 0"),
        ([str(folder), "--out", str(tmp_path)], "is a folder"),
        ([str(folder)], "--out"),
    ]:
        assert main(["prepare", "skin", *arguments]) == 2
        last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monoface: error:")]
        assert len(last) == 1 and told in last[0], arguments
    assert not Path(out).exists()
