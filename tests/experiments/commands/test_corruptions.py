"""The picture of all corruptions."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.corruption import NOISE_KINDS, RATIONAL_KINDS
from experiments.__main__ import COMMANDS, main
from experiments.commands import corruptions
from renderers.io.errors import UserError

SIZE = 40
ROWS = 1 + len(RATIONAL_KINDS) + len(corruptions.COVERAGES) + len(NOISE_KINDS)


def draw(path: Path, *options: str) -> np.ndarray:
    assert main(["corruptions", "--output", str(path), "--size", str(SIZE), *options]) == 0
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_row_for_every_corruption_and_a_column_for_every_yaw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = draw(tmp_path / "made" / "all.png")
    assert f"{ROWS - 1} corruptions of 5 faces" in capsys.readouterr().out
    blocks = np.concatenate(np.split(first, 2, axis=1))
    above = first.shape[0] - ROWS // 2 * SIZE
    left = blocks.shape[1] - 5 * 32
    assert ROWS % 2 == 0 and above > 0 and left > SIZE / 2
    parts = np.stack(np.split(blocks, 2))[:, above:]
    tiles = parts[:, :, left:].reshape(ROWS, SIZE, 5, 32, 3).swapaxes(1, 2).astype(int)
    changed = np.abs(tiles[1:] - tiles[0]).max(axis=-1).mean(axis=(2, 3))  # of each tile against the clean one
    assert (changed > 0.3).all(), "every corruption shows on every face"
    assert len({tile.tobytes() for row in tiles for tile in row}) == ROWS * 5
    # Something is written beside every row and above every column.
    names = parts[:, :, :left].reshape(ROWS, -1)
    assert (names.min(axis=1) < 128).all()
    assert (first[:above, left:].reshape(above, 5, -1).min(axis=(0, 2)) < 128).all()
    assert np.array_equal(draw(tmp_path / "again.png"), first)
    assert not np.array_equal(draw(tmp_path / "other.png", "--seed", "1"), first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.png", "made", "other.png"]


def test_defaults_and_help() -> None:
    assert "corruptions" in COMMANDS
    parser = argparse.ArgumentParser()
    corruptions.add_arguments(parser)
    assert vars(parser.parse_args([])) == {
        "output": None, "size": 224, "seed": 0, "image": None, "kind": "sunglasses",
    }  # fmt: skip


def test_a_photograph_wears_what_was_asked_for_on_its_face_alone(tmp_path: Path) -> None:
    from skimage.data import astronaut

    worn = {}
    for kind in ("sunglasses", "surgical_mask"):
        path = tmp_path / f"{kind}.png"
        assert main(["corruptions", "--image", "astronaut", "--kind", kind, "--output", str(path)]) == 0
        changed = (np.asarray(Image.open(path)) != astronaut()).any(axis=-1)
        rows, columns = np.nonzero(changed)
        assert rows.max() < 230 and columns.min() > 150 and columns.max() < 300  # her head
        worn[kind] = rows.mean()
    assert worn["sunglasses"] < 125 < worn["surgical_mask"]  # the eyes are above, the mouth is below


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--image", "absent.jpg"], "absent.jpg"),
        (["--image", "astronaut", "--kind", "crown"], "crown"),
        (["--image", "plain.png"], "no face found"),
    ],
)
def test_what_no_face_can_wear_is_refused(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 80), "gray").save("plain.png")
    assert main(["corruptions", *options, "--output", "out.png"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_pictures_lie_in_runs_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corruptions, "draw_sheet", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(corruptions, "reduce_colors", lambda sheet, size: Image.fromarray(sheet))
    monkeypatch.setattr("experiments.commands.sheet.arrange", lambda *_: np.zeros((8, 8, 3), np.uint8))
    assert main(["corruptions"]) == main(["corruptions", "--image", "astronaut"]) == main(["sheet"]) == 0
    written = sorted(path.as_posix() for path in Path().rglob("*.png"))
    assert written == ["runs/corruptions/astronaut-sunglasses.png", "runs/corruptions/sheet.png", "runs/sheet.png"]


def test_what_makes_no_picture_is_refused(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    corruptions.add_arguments(parser)
    with pytest.raises(UserError, match="--size 8"):
        corruptions.run(parser.parse_args(["--output", str(tmp_path / "x.png"), "--size", "8"]))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        corruptions.run(parser.parse_args(["--output", str(tmp_path / "file" / "x.png"), "--size", "16"]))
