"""The reader of MGCNet's prepared training list, on files drawn here in its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.collate import collate_faces
from datamodules.mgcnet_list import MGCNetList, read_landmarks, read_list
from renderers.io.errors import UserError
from tests.conf.fake_mgcnet_list import write_strip


def write_sample(root: Path, name: str, side: int = 32, value: int = 0) -> None:
    """One sample: view k is uniformly 60 k + value, its landmarks are (i / 4, k)."""
    levels = (60 * np.arange(3) + value).astype(np.uint8)
    skin = np.broadcast_to(levels[:, None, None], (3, side, side))
    views = np.repeat(skin[..., None], 3, axis=-1)
    landmarks = np.stack(np.broadcast_arrays(np.arange(68) / 4, np.arange(3)[:, None]), axis=-1)
    write_strip(root / "sub", name, views, skin, landmarks)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(4):
        write_sample(tmp_path, f"{index:03d}", value=10 * index)
    (tmp_path / "train.txt").write_text("0 sub 000\n1 sub 001\n2 sub 002\n0 sub 003\n")
    return tmp_path


def test_mixed_batch_names_only_the_multi_view_rows(root: Path) -> None:
    data = MGCNetList(str(root), size=32, batch_size=3, val_count=1, num_workers=0)
    data.setup("fit")
    batch = collate_faces([data.train_dataloader().dataset[i] for i in range(3)])
    assert batch.image.shape == (1 + 3 + 3, 3, 32, 32)
    assert batch.views is not None and batch.views.tolist() == [[1, 2, 3], [4, 5, 6]]
    # The single-view sample gives its middle image alone.
    levels = (batch.image.mean(dim=(1, 2, 3)) * 255).round()
    torch.testing.assert_close(levels, torch.tensor([60.0, 10, 70, 130, 20, 80, 140]), atol=1.0, rtol=0)
    torch.testing.assert_close(batch.skin.mean(dim=(1, 2, 3)), batch.image.mean(dim=(1, 2, 3)), atol=0.01, rtol=0)
    targets, sources = batch.pairs()
    assert targets.tolist() == [2, 2, 5, 5] and sources.tolist() == [1, 3, 4, 6]
    assert batch.epipolar_pairs().tolist() == [False, False, True, True]


def test_the_files_blocks_go_to_the_middle_the_left_and_the_right_picture(tmp_path: Path) -> None:
    """The release's file written out by hand: its first block is the target's, whose picture stands in the middle."""
    block = "68\n" + 68 * "{0},{0}\n"
    (tmp_path / "a_cam.txt").write_text(3 * "4700,0,112,0,4700,112,0,0,1\n" + "".join(block.format(k) for k in "012"))
    landmarks = read_landmarks(tmp_path / "a_cam.txt")
    of_target, of_left, of_right = 0.5, 1.5, 2.5
    assert landmarks[:, 40, 1].tolist() == [of_left, of_target, of_right]


def test_every_picture_shows_its_own_landmarks(tmp_path: Path) -> None:
    """A white pixel of each black view is where all of its landmarks are."""
    dots = np.array([[3, 5], [16, 20], [27, 9]])
    views, skin = np.zeros((3, 32, 32, 3), np.uint8), np.zeros((3, 32, 32), np.uint8)
    for view, (x, y) in zip(views, dots, strict=True):
        view[y, x] = 255
    write_strip(tmp_path / "sub", "a", views, skin, np.repeat(dots[:, None].astype(float), 68, axis=1))
    (tmp_path / "train.txt").write_text("2 sub a\n")
    data = MGCNetList(str(tmp_path), size=32, num_workers=0)
    data.setup("fit")
    sample = data.train_dataloader().dataset[0]
    for image, (x, y) in zip(sample.image, sample.landmarks[:, 0].floor().long().tolist(), strict=True):
        assert image[0, y, x] > 0.9


def test_landmarks_become_continuous_and_follow_the_size(root: Path) -> None:
    landmarks = read_landmarks(root / "sub" / "001_cam.txt")
    np.testing.assert_allclose(landmarks[2, 8], [8 / 4 + 0.5, 2.5])
    data = MGCNetList(str(root), size=64, num_workers=0)
    data.setup("fit")
    sample = data.train_dataloader().dataset[1]
    np.testing.assert_allclose(sample.landmarks.numpy(), 2 * landmarks)
    assert sample.size == (64, 64)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 sub", "line 1"),
        ("3 sub 001", "line 1: .* a flag of 0, 1 or 2"),
        ("", "lists no sample"),
        ("1 .. 001", "line 1: '..' leads out of"),
        ("1 sub ../../001", "leads out of"),
        ("1 /etc passwd", "leads out of"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_list(tmp_path)


def test_bad_files_are_named(root: Path) -> None:
    data = MGCNetList(str(root), num_workers=0)
    data.setup("fit")
    faces = data.train_dataloader().dataset
    (root / "sub" / "000.jpg").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"000\.jpg: not an image"):
        faces[0]
    Image.new("RGB", (64, 32)).save(root / "sub" / "001.jpg")
    with pytest.raises(UserError, match="3 square views"):
        faces[1]
    monstrous = bytearray((root / "sub" / "003.jpg").read_bytes())
    place = monstrous.index(b"\xff\xc0") + 5  # height and width in the frame's header
    monstrous[place : place + 4] = (50_000).to_bytes(2, "big") * 2
    (root / "sub" / "000.jpg").write_bytes(monstrous)
    with pytest.raises(UserError, match=r"000\.jpg: more than .* megapixels"):
        faces[0]
    points = (root / "sub" / "001_cam.txt").read_text().replace("0.250000,", "nan,", 1)
    (root / "sub" / "001_cam.txt").write_text(points)
    with pytest.raises(UserError, match=r"001_cam\.txt: a landmark is not finite"):
        read_landmarks(root / "sub" / "001_cam.txt")
    (root / "sub" / "002_cam.txt").write_text("1\n2\n3\n")
    with pytest.raises(UserError, match="expected 210 lines, found 3"):
        read_landmarks(root / "sub" / "002_cam.txt")
    with pytest.raises(UserError, match="no training list"):
        read_list(root / "nowhere")
