"""The common part of the data modules of prepared faces, whether these lie in a folder or in shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from lightning import LightningDataModule

from datamodules.augmentation import ColorAugmentation, GeometryAugmentation
from datamodules.batch import FaceBatch
from datamodules.collate import collate_faces
from renderers.camera import default_intrinsics
from renderers.io.errors import UserError

LandmarkChoice = Literal["3d", "2d", "mixed"] | None
KINDS = "3d are fixed points of the head, 2d mark the visible contour of the jaw"


def kind_of(contour: bool) -> str:
    """The name of a kind of landmarks on the command line and in messages."""
    return "2d" if contour else "3d"


def face_sample(
    image: np.ndarray,
    skin: np.ndarray,
    landmarks: np.ndarray,
    contour: bool,
    size: int,
    geometry: GeometryAugmentation | None = None,
) -> FaceBatch:
    """A prepared crop as a batch of one.

    Args:
        image: (S, S, 3) uint8 sRGB.
        skin: (S, S) uint8, 255 where skin is.
        landmarks: (68, 2) float32 in pixels of the batch's image.
        contour: whether the jaw's landmarks mark the visible outline of the face.
        size: side of the batch's image in pixels.
        geometry: moves the crop. Its seed comes from torch's generator.
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
        contour=torch.tensor([contour]),
    )


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    if len(pixels) == size:
        return pixels
    interpolation = cv2.INTER_AREA if size < len(pixels) else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=interpolation)


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
        landmarks: "3d" takes the faces whose landmarks are fixed points of the head, "2d" those whose jaw marks the
            visible contour, "mixed" all of them; absent: all, which must be of one kind.

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
        landmarks: LandmarkChoice,
    ) -> None:
        super().__init__()
        for name, value, low in (("size", size, 16), ("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            self.check(name, value, low)
        if not root:
            raise UserError(f"{type(self).__name__}: root names no folder")
        self.roots = [Path(folder) for folder in ([root] if isinstance(root, str) else root)]
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.augment, self.seed, self.views, self.landmarks = augment, seed, views, landmarks
        self.color = ColorAugmentation() if augment else None

    def check(self, name: str, value: int, low: int) -> None:
        """Refuses an argument below `low`."""
        if value < low:
            raise UserError(f"{type(self).__name__}: {name} is {value}, at least {low} is needed")

    def check_landmarks(self, kinds: Mapping[Path, Collection[str]]) -> None:
        """Check that every folder has the kind of landmarks that was asked for, and all the same unless `mixed` was.

        Args:
            kinds: "3d", "2d" or both, for every folder.

        Raises:
            UserError: a folder lacks that kind, or there are two kinds.
        """
        if self.landmarks is None and len({kind for held in kinds.values() for kind in held}) > 1:
            told = "; ".join(f"{root} has {' and '.join(sorted(held))}" for root, held in kinds.items())
            raise UserError(
                f"{told}: {KINDS}; choose one with `landmarks: 3d` or `2d`, or train on both with `landmarks: mixed`"
            )
        for root, held in kinds.items():
            if self.landmarks in ("2d", "3d") and self.landmarks not in held:
                other = "face-alignment" if self.landmarks == "3d" else "dlib"
                raise UserError(
                    f"{root} has {' and '.join(sorted(held))} landmarks, not the {self.landmarks} that are asked for "
                    f"({KINDS}): prepare it again with --detector {other}, or say `landmarks: mixed`"
                )

    def options(self) -> dict[str, Any]:
        """The arguments for a loader that reads these faces."""
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": collate_faces,
        }

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> FaceBatch:
        """Recolours training batches on their device."""
        if self.color is None or self.trainer is None or not self.trainer.training:
            return batch
        augmented: FaceBatch = self.color.to(batch.image.device)(batch)
        return augmented
