"""A cache of drawn heads on disk: shards of JPEG pictures and PNG maps, and arrays of their numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import MultiViewBatch
from datamodules.sharding.shards import PARTS, Sample, ShardedSamples, ShardFolder, shard_path, write_shard
from datamodules.synthesis.parsing import batch_of
from datamodules.synthetic_heads import SyntheticHeads
from renderers.io.atomic_file import folder_written_atomically
from renderers.io.cache import made_once
from renderers.io.errors import UserError

PER_SHARD = 512  # people
QUALITY = 95  # of the JPEG
DEPTH_UNIT = 0.001  # decimetres a step of the 16-bit depth maps: 0.1 mm
NUMBERS = ("landmarks", "intrinsics", "coefficients", "landmarks_visible")
FEW = 128  # for fewer people, starting several processes takes longer than drawing


class _Encoded(Dataset[tuple[Sample, dict[str, NDArray]]]):
    """Each person's files and numbers, drawn on demand."""

    def __init__(self, heads: SyntheticHeads) -> None:
        self.heads = heads

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, index: int) -> tuple[Sample, dict[str, NDArray]]:
        person = self.heads.person(index)
        image = (person["image"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).flatten(0, 1).numpy()
        depth = (person["depth"] / DEPTH_UNIT).round().clamp(0, 65535).flatten(0, 2).numpy().astype(np.uint16)
        files = {
            "jpg": _bytes(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]),
            "parsing.png": _bytes(".png", person["parsing"].flatten(0, 2).numpy(), []),
            "depth.png": _bytes(".png", depth, []),
        }
        return files, {name: person[name].numpy() for name in NUMBERS}


def _bytes(ending: str, picture: NDArray, options: list[int]) -> bytes:
    _, content = cv2.imencode(ending, picture, options)
    return content.tobytes()


def write_heads(heads: SyntheticHeads, folder: Path) -> None:
    """Draw every person into `folder`, on all cores if there are many people. The folder appears whole or not at all.

    Raises:
        UserError: the cache cannot be written.
    """
    from rich.progress import track

    named = f"{len(heads)} synthetic people ({heads.split})"
    with made_once(folder, named):
        if folder.is_dir():
            return
        with folder_written_atomically(folder) as temporary:
            workers = 0 if len(heads) < FEW else os.cpu_count() or 1
            drawn: Any = DataLoader(_Encoded(heads), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
            numbers: dict[str, list[NDArray]] = {name: [] for name in NUMBERS}
            people = _files(iter(track(drawn, f"drawing {named}", total=len(heads))), numbers)
            index = ShardFolder(PER_SHARD, {part: (heads.split, len(heads)) for part in PARTS}, {}, complete=True)
            for number, size in enumerate(index.shard_sizes(heads.split)):
                shard = shard_path(temporary, heads.split, number)
                write_shard(shard, (next(people) for _ in range(size)), size, number * PER_SHARD)
            index.save(temporary)
            for name, rows in numbers.items():
                np.save(temporary / f"{name}.npy", np.stack(rows))


def _as_it_is(sample: Any) -> Any:
    return sample


def _files(drawn: Iterator[tuple[Sample, dict[str, NDArray]]], numbers: dict[str, list[NDArray]]) -> Iterator[Sample]:
    for files, held in drawn:
        for name, rows in numbers.items():
            rows.append(held[name])
        yield files


def _mapped(path: Path) -> NDArray:
    try:
        array: NDArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: missing, damaged or cut short ({type(error).__name__})") from error
    return array


class CachedHeads(Dataset[MultiViewBatch]):
    """The heads that `write_heads` stored. They equal those of `SyntheticHeads` but for JPEG's losses.

    Args:
        folder: of the cache.
        heads: the heads that were written.

    Raises:
        UserError: a file is missing, damaged, or of another number of people.
    """

    def __init__(self, folder: Path, heads: SyntheticHeads) -> None:
        self.samples, self.views, self.size = ShardedSamples([folder], heads.split), heads.settings.views, heads.size
        self.arrays = {name: _mapped(folder / f"{name}.npy") for name in NUMBERS}
        counts = {len(self.samples), *(len(array) for array in self.arrays.values())}
        if counts != {len(heads)} or any(array.shape[1] != self.views for array in self.arrays.values()):
            raise UserError(f"{folder}: holds {sorted(counts)} people where {len(heads)} were drawn")
        for shard in range(len(self.samples.sizes)):
            self.samples.check(shard)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> MultiViewBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        files = [self.samples[index] for index in indices]
        image = self._maps(files, "jpg", cv2.IMREAD_COLOR).flip(-1).movedim(-1, 1).float() / 255
        parsing = self._maps(files, "parsing.png", cv2.IMREAD_UNCHANGED)[:, None]
        depth = self._maps(files, "depth.png", cv2.IMREAD_UNCHANGED)[:, None].float() * DEPTH_UNIT
        rows = {name: torch.from_numpy(array[indices]).flatten(0, 1) for name, array in self.arrays.items()}
        return batch_of(image, parsing, depth, rows, self.views)

    def _maps(self, files: list[Sample], ending: str, flags: int) -> Tensor:
        """(B, H, W) or (B, H, W, 3) of all people's views."""
        found = []
        for held in files:
            picture = cv2.imdecode(np.frombuffer(held[ending], np.uint8), flags)
            if picture is None or picture.shape[:2] != (self.views * self.size, self.size):
                raise UserError(
                    f"the cached picture {ending} cannot be read: delete the folder `synthetic` of the cache"
                )
            found.append(torch.from_numpy(picture.astype(np.int32) if picture.dtype == np.uint16 else picture))
        return torch.stack(found).unflatten(1, (self.views, self.size)).flatten(0, 1)
