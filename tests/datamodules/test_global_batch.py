"""Every data module divides its batch among the processes that train together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import LightningDataModule

from datamodules.corrupted_faces import CorruptedFaces
from datamodules.mgcnet_list import MGCNetList
from datamodules.photo_folder import PhotoFolder
from datamodules.sharding.sharded_faces import ShardedFaces
from datamodules.skin_weighted_faces import SkinWeightedFaces
from datamodules.synthetic import SyntheticMultiView
from experiments.commands.prepare.shards import prepare_shards
from renderers.io.errors import UserError
from tests.conf.fake_mgcnet_list import write_strip
from tests.conf.scenes import small_face_model
from tests.datamodules.test_photo_folder import SIZE, prepared_folder


def photographs(root: Path) -> PhotoFolder:
    prepared_folder(root, 14)
    return PhotoFolder(str(root), size=SIZE, batch_size=4, num_workers=0, val_fraction=0.1)


def shards(root: Path) -> ShardedFaces:
    photographs(root / "photos")
    prepare_shards(root / "photos", root / "shards", 4)
    return ShardedFaces(str(root / "shards"), size=SIZE, batch_size=4, num_workers=0)


def listed(root: Path) -> MGCNetList:
    views = np.zeros((3, 32, 32, 3), np.uint8)
    for index in range(14):
        write_strip(root / "sub", f"{index:03d}", views, views[..., 0], np.zeros((3, 68, 2)))
    (root / "train.txt").write_text("".join(f"0 sub {index:03d}\n" for index in range(14)))
    return MGCNetList(str(root), size=32, batch_size=4, val_count=1, num_workers=0)


def synthetic(_: Path) -> SyntheticMultiView:
    return SyntheticMultiView(small_face_model(), size=32, batch_size=4, train_faces=13, val_faces=2)


def corrupted(root: Path) -> CorruptedFaces:
    return CorruptedFaces(photographs(root))


def weighted(root: Path) -> SkinWeightedFaces:
    return SkinWeightedFaces(photographs(root))


@pytest.mark.parametrize("make", [photographs, shards, listed, synthetic, corrupted, weighted])
def test_a_batch_is_that_of_all_processes(
    make: Callable[[Path], LightningDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    data = make(tmp_path / "data")
    data.setup("fit")
    seen: dict[int, list[tuple[int, int] | int]] = {}
    steps: dict[int, set[int]] = {}
    for world in (1, 2, 4):
        shares: list[list[Any]] = []
        for rank in range(world):
            monkeypatch.setattr("datamodules.sampler.this_place", lambda place=(rank, world): place)
            loader = data.train_dataloader()
            shares.append(list(loader.sampler)[: loader.batch_size])
            steps.setdefault(world, set()).add(len(loader))
        seen[world] = sorted(index for share in shares for index in share)
    assert seen[1] == seen[2] == seen[4] and len(seen[1]) == 4
    assert steps == {1: {3}, 2: {3}, 4: {3}}
    monkeypatch.setattr("datamodules.sampler.this_place", lambda: (0, 3))
    with pytest.raises(UserError, match=r"batch_size 4 .* among 3: train on 2 \(--trainer.devices\)"):
        data.train_dataloader()
