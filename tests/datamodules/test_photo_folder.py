"""Photographs of every kind on disk, the index of a prepared folder, and the batches that come of it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer

from datamodules.augmentation import GeometryAugmentation
from datamodules.batch import MultiViewBatch
from datamodules.photo_folder import PhotoFolder, PreparedFaces
from datamodules.preparation.prepared_folder import PhotoIndex, PreparedFace, PreparedPhoto, read_face
from datamodules.preparation.splits import split_photos
from renderers.camera import default_intrinsics
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError
from tests.datamodules.preparation.test_skin import layout

SIZE = 64


def prepared_folder(root: Path, photos: int, faces: int = 1) -> PhotoIndex:
    """Each photograph has a color of its own, white on the nose tip's pixel, and skin in its left half."""
    index = PhotoIndex(SIZE, "dlib", False, str(root / "photos"))
    for photo in range(photos):
        prepared = []
        for face in range(faces):
            name = f"p{photo}-{face}"
            landmarks = (layout() * SIZE / 224).round(3)
            image = np.full((SIZE, SIZE, 3), (10 + photo * 5, 20, 30 + face), np.uint8)
            x, y = landmarks[30].astype(int)
            image[y, x] = 255
            skin = np.zeros((SIZE, SIZE), np.uint8)
            skin[:, : SIZE // 2] = 255
            write_bytes(root / "images" / f"{name}.png", cv2.imencode(".png", image[..., ::-1])[1].tobytes())
            write_bytes(root / "skin" / f"{name}.png", cv2.imencode(".png", skin)[1].tobytes())
            matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
            prepared.append(PreparedFace(name, [0.0, 0.0, 9.0, 9.0], 1.0, landmarks.tolist(), matrix))
        index.photos[f"folder/p{photo}.jpg"] = PreparedPhoto(100, photo, prepared)
    index.photos["bad.jpg"] = PreparedPhoto(0, 0, [], "the file is empty")
    index.save(root)
    return index


def test_index_comes_back_as_it_was(tmp_path: Path) -> None:
    index = prepared_folder(tmp_path, 3, 2)
    assert PhotoIndex.load(tmp_path) == index
    assert json.loads((tmp_path / "skipped.json").read_text()) == {"bad.jpg": "the file is empty"}
    assert len(index.faces()) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "index.json", "skin", "skipped.json"]


def test_batches_hold_what_is_on_disk(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 5)
    data = PhotoFolder(str(tmp_path), size=SIZE, batch_size=5, num_workers=0)
    (batch,) = list(data.predict_dataloader())
    assert isinstance(batch, MultiViewBatch)
    assert batch.image.shape == (5, 3, SIZE, SIZE) and batch.image.dtype == torch.float32
    assert batch.skin.shape == (5, 1, SIZE, SIZE) and batch.views is not None and batch.views.shape == (0, 3)
    assert [len(rows) for rows in batch.pairs()] == [0, 0]
    torch.testing.assert_close(batch.image[3, :, 0, 0], torch.tensor([25, 20, 30]) / 255)  # RGB, not BGR
    torch.testing.assert_close(
        batch.landmarks[0], torch.tensor(layout() * SIZE / 224, dtype=torch.float32), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(batch.intrinsics, default_intrinsics(SIZE).expand(5, 3, 3))
    assert batch.skin[:, :, :, : SIZE // 2].min() == 1 and batch.skin[:, :, :, SIZE // 2 :].max() == 0


@pytest.mark.parametrize("size", [32, 96])
def test_another_size_scales_pictures_points_and_camera(tmp_path: Path, size: int) -> None:
    prepared_folder(tmp_path, 2)
    batch = next(iter(PhotoFolder(str(tmp_path), size=size, num_workers=0).predict_dataloader()))
    assert batch.image.shape[-2:] == batch.skin.shape[-2:] == (size, size)
    expected = layout()[30] * size / 224
    torch.testing.assert_close(batch.landmarks[0, 30].double(), torch.from_numpy(expected), atol=1e-2, rtol=0)
    torch.testing.assert_close(batch.intrinsics[0], default_intrinsics(size))
    # The bright pixel is still under the nose tip.
    y, x = np.unravel_index(int(batch.image[0, 1].argmax()), (size, size))
    assert abs(x + 0.5 - expected[0]) <= size / SIZE and abs(y + 0.5 - expected[1]) <= size / SIZE


def test_training_images_are_moved_and_seeded(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 6)

    def landmarks(seed: int, augment: bool = True) -> torch.Tensor:
        torch.manual_seed(seed)
        data = PhotoFolder(str(tmp_path), size=SIZE, batch_size=2, num_workers=0, augment=augment, seed=seed)
        return torch.cat([batch.landmarks for batch in data.train_dataloader()])

    torch.testing.assert_close(landmarks(1), landmarks(1), rtol=0, atol=0)
    assert (landmarks(1) - landmarks(2)).abs().max() > 0.5
    plain = landmarks(1, augment=False)
    torch.testing.assert_close(plain, plain[:1].expand_as(plain))


def test_loader_processes_draw_apart_but_the_same_each_time(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 9)

    def epochs() -> torch.Tensor:
        data = PhotoFolder(str(tmp_path), size=SIZE, batch_size=2, num_workers=2, seed=3)
        loader = data.train_dataloader()
        drawn = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # as Lightning does
            drawn.append(torch.cat([batch.landmarks for batch in loader]))
        return torch.stack(drawn)

    first = epochs()
    torch.testing.assert_close(first, epochs(), rtol=0, atol=0)
    # All faces have the same landmarks, so equal rows would mean equal draws.
    rows = first.flatten(0, 1)[:, 8]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_samples_can_be_sent_to_spawned_processes(tmp_path: Path) -> None:
    index = prepared_folder(tmp_path, 1)
    faces = PreparedFaces(tmp_path, [face for _, face in index.faces()], SIZE, SIZE, GeometryAugmentation())
    sent = pickle.loads(pickle.dumps(faces))
    torch.manual_seed(0)
    expected = faces[0]
    torch.manual_seed(0)
    torch.testing.assert_close(sent[0].image, expected.image)


class Recorder(LightningModule):
    """Keeps the batches that a trainer hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[MultiViewBatch]] = {"train": [], "val": []}

    def training_step(self, batch: MultiViewBatch, index: int) -> torch.Tensor:
        self.seen["train"].append(batch)
        return self.weight * batch.image.mean()

    def validation_step(self, batch: MultiViewBatch, index: int) -> None:
        self.seen["val"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("augment", [True, False])
def test_only_training_batches_change_color(tmp_path: Path, augment: bool) -> None:
    prepared_folder(tmp_path / "data", 12)
    data = PhotoFolder(
        str(tmp_path / "data"), size=SIZE, batch_size=4, num_workers=0, val_fraction=0.3, augment=augment
    )
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.fit(recorder, data)
    original = {round(value * 255) for batch in data.predict_dataloader() for value in batch.image[:, 0, 0, 0].tolist()}

    def corners(part: str) -> set[float]:
        images = torch.cat([batch.image for batch in recorder.seen[part]])
        return {value * 255 for value in images[:, 0, SIZE // 2, SIZE // 2 + 8].tolist()}

    known = lambda values: all(min(abs(value - o) for o in original) < 0.01 for value in values)  # noqa: E731
    assert known(corners("val"))
    assert known(corners("train")) != augment


names = st.lists(st.text("abcdefgh/0123", min_size=1, max_size=12), min_size=2, max_size=60, unique=True)


@given(names, st.floats(0, 0.99))
def test_split_is_a_partition_with_both_parts(photos: list[str], fraction: float) -> None:
    train, val = split_photos(photos, fraction)
    assert train and val and not train & val and train | val == set(photos)
    assert split_photos(photos[::-1], fraction) == (train, val)


@given(names, st.text("xyz", min_size=1, max_size=5))
def test_a_new_photograph_moves_no_other(photos: list[str], new: str) -> None:
    before, after = split_photos(photos, 0.5)[1], split_photos([*photos, new], 0.5)[1]
    # Where a part would have been empty, one photograph was lent to it.
    assert len((before ^ after) - {new}) <= 1


def test_split_takes_about_the_fraction() -> None:
    _, val = split_photos([f"img_{k:05d}.jpg" for k in range(5000)], 0.1)
    assert 0.08 < len(val) / 5000 < 0.12


def test_faces_of_a_photograph_stay_together(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 8, faces=3)
    data = PhotoFolder(str(tmp_path), size=SIZE, num_workers=0, val_fraction=0.4, augment=False)
    reds = [
        {value for batch in loader for value in (batch.image[:, 0, 0, 0] * 255).round().tolist()}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert not reds[0] & reds[1] and len(reds[0] | reds[1]) == 8 and reds[1] == reds[2]


def test_one_photograph_serves_for_both_with_a_warning(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 1)
    data = PhotoFolder(str(tmp_path), size=SIZE, num_workers=0)
    with pytest.warns(UserWarning, match="one photograph"):
        data.setup()
    assert len(list(data.train_dataloader())) == len(list(data.val_dataloader())) == 1


def test_a_small_folder_still_gives_training_batches(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 3)
    data = PhotoFolder(str(tmp_path), size=SIZE, batch_size=8, num_workers=0)
    assert [len(batch) for batch in data.train_dataloader()] == [2]
    assert [len(batch) for batch in PhotoFolder(str(tmp_path), SIZE, 1, 0).train_dataloader()] == [1, 1]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 1}',
     b'{"version": 1, "size": 64, "detector": "d", "largest": false, "source": "s", "photos": 3}',
     b'{"version": 1, "size": "x", "detector": "d", "largest": false, "source": "s", "photos": {}}', b"\xff\xfe\x00"],
)  # fmt: skip
def test_damaged_index_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(UserError, match=r"index\.json is damaged .*prepare the photographs again"):
        PhotoFolder(str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("field", "value"),
    [("landmarks", [[1.0, 2.0]]), ("matrix", [[float("nan")] * 3] * 2), ("name", "../../elsewhere"), ("box", None)],
)
def test_damaged_entry_is_named(tmp_path: Path, field: str, value: object) -> None:
    prepared_folder(tmp_path, 1)
    stored = json.loads((tmp_path / "index.json").read_text())
    stored["photos"]["folder/p0.jpg"]["faces"][0][field] = value
    (tmp_path / "index.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="damaged"):
        PhotoIndex.load(tmp_path)


def test_another_version_is_not_read(tmp_path: Path) -> None:
    prepared_folder(tmp_path, 1)
    (tmp_path / "index.json").write_text((tmp_path / "index.json").read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(UserError, match="version 99"):
        PhotoIndex.load(tmp_path)


def test_unprepared_and_empty_folders_tell_the_command(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"prepare photos DIR --out {root}"):
            PhotoFolder(str(root)).setup()
    PhotoIndex(SIZE, "dlib", False, "x").save(tmp_path)
    with pytest.raises(UserError, match="holds no face"):
        PhotoFolder(str(tmp_path)).train_dataloader()


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_missing_and_damaged_pictures_are_named(tmp_path: Path, damage: str) -> None:
    prepared_folder(tmp_path, 2)
    picture = tmp_path / "skin" / "p1-0.png"
    if damage == "missing":
        picture.unlink()
    else:
        picture.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"skin/p1-0\.png is missing or damaged"):
        read_face(tmp_path, "p1-0")


@pytest.mark.parametrize("arguments", [{"size": 8}, {"batch_size": 0}, {"num_workers": -1}, {"val_fraction": 1.0}])
def test_impossible_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        PhotoFolder("anywhere", **arguments)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*file: No space left"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
