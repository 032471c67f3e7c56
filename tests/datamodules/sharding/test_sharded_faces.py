"""Faces in shards give the samples and the batches that the same faces give one by one."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning import LightningDataModule, Trainer

from datamodules.batch import MultiViewBatch
from datamodules.photo_folder import PhotoFolder
from datamodules.preparation.prepared_folder import PhotoIndex, PhotoLabel
from datamodules.sharding.sharded_faces import ShardedFaces, encoded_landmarks
from datamodules.sharding.shards import write_shard
from experiments.commands.prepare.shards import prepare_shards
from renderers.io.errors import UserError
from tests.datamodules.test_photo_folder import SIZE, Recorder, prepared_folder


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Prepared faces: a folder of photographs, and a data set that shows three faces from three sides."""
    roots = [tmp_path / "photos", tmp_path / "sides"]
    noise = np.random.default_rng(0)
    for root, count in zip(roots, (23, 18), strict=True):
        index = prepared_folder(root, count)
        for path in root.glob("*/*.png"):
            drawn = noise.integers(0, 256, (SIZE, SIZE, 3) if path.parent.name == "images" else (SIZE, SIZE))
            cv2.imwrite(str(path), drawn.astype(np.uint8))
    for number, (name, photo) in enumerate(index.photos.items()):
        turned = {"group": f"g{number // 3}", "yaw": 25.0 * (number % 3)} if number < 9 else {}
        label = PhotoLabel("test" if number == 17 else "train", f"person{number // 3}", **turned)
        index.photos[name] = replace(photo, label=label)
    replace(index, dataset="sides").save(roots[1])
    return [str(root) for root in roots]


def sharded(folders: list[str], per_shard: int = 4, views: bool = False) -> list[str]:
    roots = [Path(folder) for folder in folders]
    for root in roots:
        prepare_shards(root, root.with_name(f"{root.name}-shards"), per_shard, views=views)
    return [f"{folder}-shards" for folder in folders]


def assert_same(mine: Iterable[MultiViewBatch], its: Iterable[MultiViewBatch]) -> int:
    """Every tensor of every batch; returns how many batches."""
    count = 0
    for count, (one, other) in enumerate(zip(mine, its, strict=True), start=1):  # noqa: B007
        for name in (field.name for field in fields(MultiViewBatch)):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None and b is None) or torch.equal(a, b), name
    return count


def epochs(data: LightningDataModule, count: int = 2) -> Iterable[MultiViewBatch]:
    loader = data.train_dataloader()
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        yield from loader


@pytest.mark.parametrize("size", [SIZE, 48])
@pytest.mark.parametrize("views", [False, True])
def test_batches_are_those_of_the_photographs(folders: list[str], size: int, views: bool) -> None:
    options: dict[str, Any] = {"size": size, "batch_size": 5, "num_workers": 0, "seed": 3, "views": views}
    plain, shards = PhotoFolder(folders, **options), ShardedFaces(sharded(folders, views=views), **options)
    assert assert_same(epochs(shards), epochs(plain)) == 2 * (len(shards._faces("train")) // 5)
    grouped = sum(len(batch.views) for batch in epochs(shards, 1) if batch.views is not None)
    assert (grouped > 0) == views
    assert assert_same(shards.val_dataloader(), plain.val_dataloader()) >= 1
    assert assert_same(shards.test_dataloader(), plain.test_dataloader()) >= 1

    def all_faces(data: LightningDataModule) -> list[list[float]]:
        return sorted(face.tolist() for batch in data.predict_dataloader() for face in batch.image[:, :, 5, 5])

    assert all_faces(shards) == all_faces(plain)


def test_views_may_be_left_aside(folders: list[str]) -> None:
    options: dict[str, Any] = {"size": SIZE, "batch_size": 5, "num_workers": 0, "seed": 3}
    plain = PhotoFolder(folders, **options)
    assert_same(epochs(ShardedFaces(sharded(folders, views=True), **options), 1), epochs(plain, 1))


def test_loader_processes_read_the_same(folders: list[str]) -> None:
    """In the order of several windows; each face once."""
    roots = sharded(folders)
    options: dict[str, Any] = {"size": SIZE, "batch_size": 3, "seed": 1, "streams": 2}
    alone = list(epochs(ShardedFaces(roots, num_workers=0, **options)))
    assert_same(epochs(ShardedFaces(roots, num_workers=2, **options)), alone)
    seen = torch.cat([batch.skin[:, 0, 30] for batch in epochs(ShardedFaces(roots, augment=False, **options), 1)])
    assert len(seen.unique(dim=0)) == len(seen)


def test_training_recolors_as_it_does_photographs(folders: list[str], tmp_path: Path) -> None:
    seen = []
    for data in (PhotoFolder(folders, SIZE, 4, 0), ShardedFaces(sharded(folders), SIZE, 4, 0)):
        recorder = Recorder()
        trainer = Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer.fit(recorder, data)
        seen.append(recorder.seen)
    for part in ("train", "val"):
        assert assert_same(seen[1][part], seen[0][part]) > 0
    assert not torch.equal(seen[1]["train"][0].image, next(iter(epochs(data, 1))).image)


def test_mistakes_are_told(folders: list[str], tmp_path: Path) -> None:
    (root, _) = roots = sharded(folders)
    for options, said in (
        ({"streams": 0}, "streams is 0, at least 1"),
        ({"size": 8}, "size is 8, at least 16"),
        ({"root": []}, "names no folder"),
    ):
        with pytest.raises(UserError, match=said):
            ShardedFaces(**{"root": roots, **options})
    with pytest.raises(UserError, match=r"holds no views of a face: .* with --views"):
        ShardedFaces(roots, views=True).setup()
    with pytest.raises(UserError, match="is not a folder of shards"):
        ShardedFaces(folders).setup()
    path = Path(root) / "val-000000.tar"
    count = len(ShardedFaces(root, SIZE, num_workers=0).val_dataloader().dataset)  # type: ignore[arg-type]
    landmarks = encoded_landmarks([(1.0, 2.0)] * 68)
    np.savez(foreign := io.BytesIO(), a=np.zeros(3))
    members = ((b"x", b""), (b"x", foreign.getvalue()), (b"", b"x"))
    for skin, damaged in (*members, (b"x", landmarks.replace(b"e': (", bytes(5)))):
        broken = {"0.png": b"no picture", "0.skin.png": skin, "0.landmarks.npy": damaged}
        write_shard(path, [broken] * count, count)
        with pytest.raises(UserError, match=r"val-000000\.tar: sample 0 is no prepared face"):
            next(iter(ShardedFaces(root, SIZE, num_workers=0).val_dataloader()))


def test_a_part_without_faces_is_named(tmp_path: Path) -> None:
    index = prepared_folder(tmp_path / "a", 3)
    for name, photo in index.photos.items():
        index.photos[name] = replace(photo, label=PhotoLabel("test", name))
    PhotoIndex.save(index, tmp_path / "a")
    (root,) = sharded([str(tmp_path / "a")])
    with pytest.raises(UserError, match="no face in it is for training"):
        ShardedFaces(root, SIZE).train_dataloader()
    assert len(ShardedFaces(root, SIZE, num_workers=0).val_dataloader()) == 1
