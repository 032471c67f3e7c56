"""What prepared faces have in common as training batches, however they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning import LightningDataModule

from datamodules.augmentation import ColorAugmentation, GeometryAugmentation
from datamodules.batch import FaceBatch, MultiViewBatch
from datamodules.mgcnet_list import collate_views
from renderers.camera import default_intrinsics
from renderers.errors import UserError


def face_sample(
    image: np.ndarray, skin: np.ndarray, landmarks: np.ndarray, size: int, geometry: GeometryAugmentation | None = None
) -> FaceBatch:
    """A prepared crop as a batch of one.

    Args:
        image: (S, S, 3) uint8 sRGB.
        skin: (S, S) uint8, 255 where skin is.
        landmarks: (68, 2) float32 in pixels of what comes out.
        size: side of what comes out.
        geometry: moves it; its seed is drawn from torch's generator.
    """
    image, skin = _resized(image, size), _resized(skin, size)
    if geometry is not None:
        seed = int(torch.randint(2**31, ()))
        image, skin, landmarks = geometry(image, skin, landmarks, seed)
    return FaceBatch(
        image=torch.from_numpy(image).movedim(-1, 0)[None].float() / 255,
        landmarks=torch.from_numpy(landmarks)[None],
        skin=torch.from_numpy(skin)[None, None].float() / 255,
        intrinsics=default_intrinsics(size)[None],
    )


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    if len(pixels) == size:
        return pixels
    interpolation = cv2.INTER_AREA if size < len(pixels) else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=interpolation)


def collate_faces(samples: Sequence[FaceBatch]) -> MultiViewBatch:
    """Samples -> one batch of single views: `views` is (0, 3), so only the 2D terms see them."""
    return MultiViewBatch(
        image=torch.cat([sample.image for sample in samples]),
        landmarks=torch.cat([sample.landmarks for sample in samples]),
        skin=torch.cat([sample.skin for sample in samples]),
        intrinsics=torch.cat([sample.intrinsics for sample in samples]),
        views=torch.zeros(0, 3, dtype=torch.long),
    )


def group_sample(views: Sequence[FaceBatch]) -> MultiViewBatch:
    """Faces that are views of one face, the target in the middle -> one group."""
    return replace(collate_faces(views), views=torch.arange(len(views))[None])


def collate_samples(samples: Sequence[FaceBatch]) -> MultiViewBatch:
    """Samples of single faces, of groups of views, or of both -> one batch whose `views` name the groups' rows."""
    return collate_views(
        [sample if isinstance(sample, MultiViewBatch) else collate_faces([sample]) for sample in samples]
    )


class PreparedData(LightningDataModule):
    """Prepared faces as `MultiViewBatch`: the arguments, the loaders' options and the colour of every such data module.

    Args:
        root: a folder, or several that are put together.
        size: image side in pixels; crops of another size are resampled.
        batch_size: samples a step, of all processes together.
        num_workers: processes that read; 0 reads in the trainer's.
        augment: whether training images are augmented.
        seed: of the order and the augmentation.
        views: whether training faces come with their views.

    Raises:
        UserError: a number that is too small, or no folder.
    """

    def __init__(
        self,
        root: str | list[str],
        size: int,
        batch_size: int,
        num_workers: int,
        augment: bool,
        seed: int,
        views: bool,
    ) -> None:
        super().__init__()
        for name, value, low in (("size", size, 16), ("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            self.check(name, value, low)
        if not root:
            raise UserError(f"{type(self).__name__}: root names no folder")
        self.roots = [Path(folder) for folder in ([root] if isinstance(root, str) else root)]
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.augment, self.seed, self.views = augment, seed, views
        self.color = ColorAugmentation() if augment else None

    def check(self, name: str, value: int, low: int) -> None:
        """Refuses an argument below `low`."""
        if value < low:
            raise UserError(f"{type(self).__name__}: {name} is {value}, at least {low} is needed")

    def options(self) -> dict[str, Any]:
        """Arguments of a loader of these faces."""
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": collate_samples,
        }

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> FaceBatch:
        """Recolours training batches on their device."""
        if self.color is None or self.trainer is None or not self.trainer.training:
            return batch
        augmented: FaceBatch = self.color.to(batch.image.device)(batch)
        return augmented
