"""PhotoFolder: a folder of prepared photographs as training batches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from datamodules.augmentation import ColorAugmentation, GeometryAugmentation
from datamodules.batch import FaceBatch, MultiViewBatch
from datamodules.photos import PhotoIndex, PreparedFace, prepare_hint, read_face
from renderers.camera import default_intrinsics
from renderers.errors import UserError


class PreparedFaces(Dataset[FaceBatch]):
    """Faces of a prepared folder, one image a sample.

    Args:
        root: the prepared folder.
        faces: which of them.
        prepared_size: side of the stored crops in pixels.
        size: side of what comes out.
        geometry: moves each sample; its seed is drawn from torch's generator, which every loader process seeds anew.
    """

    def __init__(
        self,
        root: Path,
        faces: Sequence[PreparedFace],
        prepared_size: int,
        size: int,
        geometry: GeometryAugmentation | None = None,
    ) -> None:
        self.root, self.size, self.geometry = root, size, geometry
        self.names = [face.name for face in faces]
        self.landmarks = np.array([face.landmarks for face in faces], dtype=np.float32) * (size / prepared_size)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> FaceBatch:
        image, skin = (self._resized(pixels) for pixels in read_face(self.root, self.names[index]))
        landmarks = self.landmarks[index]
        if self.geometry is not None:
            seed = int(torch.randint(2**31, ()))
            image, skin, landmarks = self.geometry(image, skin, landmarks, seed)
        return FaceBatch(
            image=torch.from_numpy(image).movedim(-1, 0)[None].float() / 255,
            landmarks=torch.from_numpy(landmarks)[None],
            skin=torch.from_numpy(skin)[None, None].float() / 255,
            intrinsics=default_intrinsics(self.size)[None],
        )

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) == self.size:
            return pixels
        interpolation = cv2.INTER_AREA if self.size < len(pixels) else cv2.INTER_LINEAR
        return cv2.resize(pixels, (self.size, self.size), interpolation=interpolation)


def collate_faces(samples: Sequence[FaceBatch]) -> MultiViewBatch:
    """Samples -> one batch of single views: `views` is (0, 3), so only the 2D terms see them."""
    return MultiViewBatch(
        image=torch.cat([sample.image for sample in samples]),
        landmarks=torch.cat([sample.landmarks for sample in samples]),
        skin=torch.cat([sample.skin for sample in samples]),
        intrinsics=torch.cat([sample.intrinsics for sample in samples]),
        views=torch.zeros(0, 3, dtype=torch.long),
    )


def split_photos(names: Sequence[str], val_fraction: float) -> tuple[set[str], set[str]]:
    """Photographs for training and for validation, by a hash of their names: adding some moves none of the others.

    Args:
        names: N different names.
        val_fraction: in [0, 1].

    Returns:
        Two disjoint sets that together are `names`, neither of them empty; of a single photograph, both hold it.
    """
    ranks = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(names, key=lambda name: (ranks[name], name))
    if len(order) == 1:
        return set(order), set(order)
    count = sum(ranks[name] < val_fraction for name in order)
    count = min(max(count, 1), len(order) - 1)
    return set(order[count:]), set(order[:count])


class PhotoFolder(LightningDataModule):
    """Real photographs, prepared by `python -m experiments prepare photos`.

    Yields `MultiViewBatch` with no groups of views: (B, 3, size, size) images, landmarks, skin weights and the default
    camera's intrinsics. Training images are moved, mirrored and recolored; validation, test and prediction ones are
    not. Test uses the validation photographs, prediction all of them.

    Args:
        root: the prepared folder (the `--out` of the command).
        size: image side in pixels; crops of another size are resampled.
        batch_size: images a batch.
        num_workers: processes that read; 0 reads in the trainer's.
        val_fraction: share of the photographs kept for validation, at least one; a photograph's faces stay together.
        augment: whether training images are augmented.
        seed: of the order and the augmentation.
    """

    def __init__(
        self,
        root: str,
        size: int = 224,
        batch_size: int = 8,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, low in (("size", size, 16), ("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < low:
                raise UserError(f"PhotoFolder: {name} is {value}, at least {low} is needed")
        if not 0 <= val_fraction < 1:
            raise UserError(f"PhotoFolder: val_fraction is {val_fraction}, expected 0 <= val_fraction < 1")
        self.root, self.size, self.batch_size, self.num_workers = Path(root), size, batch_size, num_workers
        self.val_fraction, self.augment, self.seed = val_fraction, augment, seed
        self.color = ColorAugmentation() if augment else None
        self._index: PhotoIndex | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads the index.

        Raises:
            UserError: the folder is not prepared, its index is damaged, or it holds no face.
        """
        if self._index is not None:
            return
        try:
            index = PhotoIndex.load(self.root)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.root} is not a folder of prepared faces: {prepare_hint(self.root)}") from None
        if not index.faces():
            raise UserError(f"{self.root} holds no face: {prepare_hint(self.root)}")
        self._index = index
        if len(self._names()) == 1:
            warnings.warn(f"{self.root} holds one photograph: it serves for training and for validation", stacklevel=2)

    def _names(self) -> list[str]:
        """The photographs that gave a face."""
        return [key for key, photo in self._loaded().photos.items() if photo.faces]

    def _loaded(self) -> PhotoIndex:
        self.setup()
        assert self._index is not None  # setup raises otherwise
        return self._index

    def _faces(self, chosen: set[str] | None, augment: bool) -> PreparedFaces:
        index = self._loaded()
        faces = [face for source, face in index.faces() if chosen is None or source in chosen]
        return PreparedFaces(self.root, faces, index.size, self.size, GeometryAugmentation() if augment else None)

    def _loader(self, faces: PreparedFaces, train: bool) -> DataLoader[MultiViewBatch]:
        return DataLoader(
            faces,  # type: ignore[arg-type]  # the collate turns samples into batches
            batch_size=self.batch_size,
            shuffle=train,
            # A last batch of one image would be nothing to normalise over; a small folder keeps what it has.
            drop_last=train and len(faces) >= self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate_faces,
            # Also the source of every loader process's own seed.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader[MultiViewBatch]:
        train, _ = split_photos(self._names(), self.val_fraction)
        return self._loader(self._faces(train, self.augment), train=True)

    def val_dataloader(self) -> DataLoader[MultiViewBatch]:
        _, val = split_photos(self._names(), self.val_fraction)
        return self._loader(self._faces(val, False), train=False)

    def test_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self._faces(None, False), train=False)

    def on_after_batch_transfer(self, batch: FaceBatch, dataloader_idx: int) -> FaceBatch:
        """Recolours training batches on their device."""
        if self.color is None or self.trainer is None or not self.trainer.training:
            return batch
        augmented: FaceBatch = self.color.to(batch.image.device)(batch)
        return augmented
