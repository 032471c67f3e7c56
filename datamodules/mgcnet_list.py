"""MGCNet's own training list: 300W-LP and Multi-PIE triples mixed with single CelebA and LS3D-W photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import MultiViewBatch
from datamodules.collate import collate_faces
from datamodules.datasets.listings import inside, read_text
from datamodules.preparation.photo_file import open_picture
from datamodules.sampler import EpochSampler, evaluation_loader, run_seed, training_loader
from renderers.camera import default_intrinsics
from renderers.io.errors import UserError
from renderers.landmarks68 import LANDMARKS

VIEWS = 3
SINGLE_VIEW, MULTI_VIEW, EPIPOLAR = FLAGS = ("0", "1", "2")
IN_STRIP = [1, 0, 2]
"""Rows of a `_cam.txt`'s views, which begin with the target, in the order of the strip from left to right."""


@dataclass(frozen=True)
class ListedSample:
    """One row of `train.txt`.

    Attributes:
        flag: "0" is a single view, "1" three views of one face, "2" three views whose epipolar term counts too.
        stem: path with which its files' names begin.
    """

    flag: str
    stem: Path

    @property
    def multi_view(self) -> bool:
        """Whether its three pictures show one face."""
        return self.flag != SINGLE_VIEW

    def file(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)


def read_list(root: Path, name: str = "train.txt") -> list[ListedSample]:
    """Rows "flag subdirectory identifier" of the list.

    Raises:
        UserError: no such list, an empty one, a row of another form, or one that leads out of the folder.
    """
    path = root / name
    if not path.is_file():
        raise UserError(f"no training list {path}: the folder of MGCNet's prepared data holds {name}")
    samples = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        words = line.split()
        where = f"{path}, line {number}"
        if len(words) != 3 or words[0] not in FLAGS:
            expected = "'flag subdirectory identifier' with a flag of 0, 1 or 2"
            raise UserError(f"{where}: expected {expected}, found {line[:80]!r}")
        stem = root / inside(words[1], where) / inside(words[2], where)
        samples.append(ListedSample(words[0], stem))
    if not samples:
        raise UserError(f"{path} lists no sample")
    return samples


def read_landmarks(path: Path) -> np.ndarray:
    """(3, 68, 2) continuous pixels of a `_cam.txt`, for the strip's pictures from left to right.

    The file holds a line of intrinsics (nine numbers) for each view, then for each view a header and 68 "x,y" lines.
    The order of views is: target, source to its left, source to its right. The intrinsics are those of a camera that
    the release assumes. They are ignored, because every crop here has the default camera.

    Raises:
        UserError: a file of another form.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != 3 + VIEWS * (1 + LANDMARKS):
        raise UserError(f"{path}: expected {3 + VIEWS * (1 + LANDMARKS)} lines, found {len(lines)}")
    views = np.array(lines[3:], dtype=object).reshape(VIEWS, 1 + LANDMARKS)[:, 1:]
    try:
        points = [[[float(number) for number in line.split(",")] for line in view] for view in views]
        landmarks = np.array(points, dtype=np.float32).reshape(VIEWS, LANDMARKS, 2)
    except ValueError as error:
        raise UserError(f"{path}: a landmark line is not 'x,y' ({error})") from error
    if not np.isfinite(landmarks).all():
        raise UserError(f"{path}: a landmark is not finite")
    return landmarks[IN_STRIP] + 0.5


def _read_strip(path: Path, mode: str) -> np.ndarray:
    """A picture of three square views side by side -> (3, side, side, channels) uint8."""
    with open_picture(path) as picture:
        pixels = np.asarray(picture.convert(mode))
    height, width = pixels.shape[:2]
    if width != VIEWS * height:
        raise UserError(f"{path}: expected {VIEWS} square views side by side, found {width} x {height} pixels")
    return pixels.reshape(height, VIEWS, height, -1).swapaxes(0, 1)


class ListedFaces(Dataset[MultiViewBatch]):
    """Samples of the list: three images for a multi-view row, only the middle image for a single-view row."""

    def __init__(self, samples: Sequence[ListedSample], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> MultiViewBatch:
        sample = self.samples[index]
        image = _to_tensor(_read_strip(sample.file(".jpg"), "RGB"))
        skin = _to_tensor(_read_strip(sample.file("_skin.jpg"), "L"))
        landmarks = torch.as_tensor(read_landmarks(sample.file("_cam.txt")))
        rows = slice(None) if sample.multi_view else slice(VIEWS // 2, VIEWS // 2 + 1)
        scale = self.size / image.shape[-1]
        count = len(image[rows])
        return MultiViewBatch(
            image=self._resize(image[rows]),
            landmarks=landmarks[rows] * scale,
            skin=self._resize(skin[rows]),
            intrinsics=default_intrinsics(self.size).repeat(count, 1, 1),
            views=torch.arange(VIEWS).view(1, VIEWS) if sample.multi_view else torch.zeros(0, VIEWS, dtype=torch.long),
            epipolar=torch.tensor([sample.flag == EPIPOLAR] if sample.multi_view else [], dtype=torch.bool),
        )

    def _resize(self, image: Tensor) -> Tensor:
        if image.shape[-1] == self.size:
            return image
        return torch.nn.functional.interpolate(image, size=(self.size, self.size), mode="bilinear", antialias=True)


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).movedim(-1, 1).float() / 255


class MGCNetList(LightningDataModule):
    """The mix of data sets that the paper trains on, in the layout that its authors prepared.

    Args:
        root: the folder that holds `train.txt` and its subdirectories.
        size: image side in pixels.
        batch_size: samples a step, of all processes together; a multi-view sample brings three images, a single-view
            one brings one.
        val_count: samples at the end of the list that are kept for validation.
        num_workers: processes that read images.
    """

    def __init__(
        self, root: str, size: int = 224, batch_size: int = 5, val_count: int = 100, num_workers: int = 4
    ) -> None:
        super().__init__()
        self.root, self.size, self.batch_size = Path(root), size, batch_size
        self.val_count, self.num_workers = val_count, num_workers

    def setup(self, stage: str) -> None:
        samples = read_list(self.root)
        kept = min(self.val_count, len(samples) // 2) or len(samples)
        self.train_samples = samples[:-kept] or samples
        self.val_samples = samples[-kept:]

    def _loader(self, samples: Sequence[ListedSample], shuffle: bool) -> DataLoader[MultiViewBatch]:
        faces = ListedFaces(samples, self.size)
        options: dict[str, Any] = {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "collate_fn": collate_faces,
        }
        if shuffle:
            return training_loader(faces, EpochSampler(faces, run_seed()), self.batch_size, **options)
        return evaluation_loader(faces, self.batch_size, **options)

    def train_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self.train_samples, shuffle=True)

    def val_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self.val_samples, shuffle=False)

    def test_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self.val_samples, shuffle=False)

    def predict_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self.val_samples, shuffle=False)
