"""PhotoFolder: a folder of prepared photographs as training batches."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from datamodules.augmentation import GeometryAugmentation
from datamodules.batch import FaceBatch, MultiViewBatch
from datamodules.collate import collate_faces, group_sample
from datamodules.preparation.prepared_folder import PhotoIndex, PreparedFace, Split, prepared_index, read_face
from datamodules.preparation.splits import group_views, split_prepared
from datamodules.prepared_data import LandmarkChoice, PreparedData, face_sample, kind_of
from datamodules.sampler import MixedSampler, SeededSampler, SeededSamples, evaluation_loader, training_loader
from renderers.io.errors import UserError


class PreparedFaces(Dataset[FaceBatch]):
    """Faces of a prepared folder, one image a sample.

    Args:
        root: the prepared folder.
        faces: the faces to read.
        prepared_size: side of the stored crops in pixels.
        size: side of the returned images in pixels.
        geometry: moves each sample. Its seed comes from torch's generator, which `SeededSamples` seeds for each sample.
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
        self.checksums = [tuple(face.checksums) for face in faces]
        self.landmarks = np.array([face.landmarks for face in faces], dtype=np.float32) * (size / prepared_size)
        self.contour = [face.contour for face in faces]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> FaceBatch:
        image, skin = read_face(self.root, self.names[index], self.checksums[index])
        return face_sample(image, skin, self.landmarks[index], self.contour[index], self.size, self.geometry)


class PreparedViews(Dataset[MultiViewBatch]):
    """Prepared faces with their views: samples of three images where a face has views, else of one.

    Args:
        single: the faces for samples of one.
        shared: the same faces for samples of three. They are not moved, or they would lose their relative poses.
        rows: each sample's faces: (face,), or (view, target, view).
    """

    def __init__(self, single: PreparedFaces, shared: PreparedFaces, rows: Sequence[tuple[int, ...]]) -> None:
        self.single, self.shared, self.rows = single, shared, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> MultiViewBatch:
        rows = self.rows[index]
        if len(rows) == 1:
            return collate_faces([self.single[rows[0]]])
        return group_sample([self.shared[row] for row in rows])


class PhotoFolder(PreparedData):
    """Real photographs, prepared by `python -m experiments prepare`: a folder of them, or any data set that it knows.

    Yields `MultiViewBatch`: (B, 3, size, size) images, landmarks, skin weights and the default camera's intrinsics.
    Images are moved, mirrored and recoloured in training only. A data set's own split is kept. If it has no validation
    part, some of its training people become one. A folder of photographs has no split: some photographs are kept for
    validation, and tests use the same. Prediction uses all photographs.

    Args:
        root, size, batch_size, num_workers, augment, seed, landmarks: see `PreparedData`; a folder is the `--out` of
            the command.
        val_fraction: share of the photographs, or of a data set's people, that is kept for validation; at least one is.
            The faces of a photograph stay together.
        views: whether a training photograph comes with two that show the same face from further left and right, as a
            group of three (MGCNet, section 4.1). Groups are not moved, mirrored or recoloured.
        shares: of each folder of `root` in a training epoch, as proportions, see `MixedSampler`. By default each sample
            counts alike.
    """

    def __init__(
        self,
        root: str | list[str],
        size: int = 224,
        batch_size: int = 8,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        augment: bool = True,
        seed: int = 0,
        views: bool = False,
        shares: list[float] | None = None,
        landmarks: LandmarkChoice = None,
    ) -> None:
        super().__init__(root, size, batch_size, num_workers, augment, seed, views, landmarks)
        self.shares = shares
        if not 0 <= val_fraction < 1:
            raise UserError(f"PhotoFolder: val_fraction is {val_fraction}, expected 0 <= val_fraction < 1")
        self.val_fraction = val_fraction
        self._indexes: list[PhotoIndex] = []
        self._splits: list[dict[Split, set[str]]] = []

    def setup(self, stage: str | None = None) -> None:
        """Reads the index of every folder.

        Raises:
            UserError: a folder is not prepared, its index is damaged, it holds no face, or other landmarks than are
                asked for.
        """
        if self._indexes:
            return
        indexes = [prepared_index(root) for root in self.roots]
        kinds = {
            root: Counter(kind_of(face.contour) for _, face in index.faces())
            for root, index in zip(self.roots, indexes, strict=True)
        }
        self.check_landmarks(kinds)
        for root, counts in kinds.items():
            if self.landmarks in ("2d", "3d") and len(counts) > 1:
                left = counts.total() - counts[self.landmarks]
                told = f"{left} of {counts.total()} faces are left out, which have no {self.landmarks} landmarks"
                warnings.warn(f"{root}: {told}", stacklevel=2)
        self._splits = [split_prepared(index, self.val_fraction) for index in indexes]
        self._indexes = indexes
        for root, split in zip(self.roots, self._splits, strict=True):
            shared = split["train"] & split["val"]
            if shared:
                held = "one photograph" if len(shared) == 1 else "one person"
                warnings.warn(f"{root} holds {held}: it serves for training and for validation", stacklevel=2)

    def _faces(self, part: Split | None) -> ConcatDataset[FaceBatch]:
        """The faces of one part of the data, or of all parts if `part` is None."""
        self.setup()
        train = part == "train"
        sets: list[Dataset[FaceBatch]] = []
        for root, index, split in zip(self.roots, self._indexes, self._splits, strict=True):
            chosen = [
                (source, face)
                for source, face in index.faces()
                if (part is None or source in split[part]) and self.landmarks in (None, "mixed", kind_of(face.contour))
            ]
            faces = [face for _, face in chosen]
            geometry = GeometryAugmentation() if train and self.augment else None
            single = PreparedFaces(root, faces, index.size, self.size, geometry)
            if train and self.views:
                rows = group_views([index.photos[source].label for source, _ in chosen])
                sets.append(PreparedViews(single, PreparedFaces(root, faces, index.size, self.size), rows))
            else:
                sets.append(single)
        joined: ConcatDataset[FaceBatch] = ConcatDataset(sets)
        if not len(joined):
            where = ", ".join(
                f"{root} ({index.dataset})" for root, index in zip(self.roots, self._indexes, strict=True)
            )
            purpose = {"train": "training", "val": "validation", "test": "testing"}[part or "test"]
            raise UserError(
                f"{where} holds no photographs for {purpose}: its owner's split keeps none for that: "
                "name another folder for it"
            )
        return joined

    def _loader(self, faces: ConcatDataset[FaceBatch], train: bool) -> DataLoader[MultiViewBatch]:
        # The loaders' types do not know that the collate turns samples into batches.
        loader: Any
        if train:
            order = SeededSampler(faces, self.seed)
            if self.shares is not None:
                sizes = [len(part) for part in faces.datasets]  # type: ignore[arg-type]
                order = MixedSampler(faces, sizes, self.shares, self.seed)
            loader = training_loader(SeededSamples(faces, self.seed), order, self.batch_size, **self.options())
        else:
            loader = evaluation_loader(faces, self.batch_size, **self.options())
        made: DataLoader[MultiViewBatch] = loader
        return made

    def train_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self._faces("train"), train=True)

    def val_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self._faces("val"), train=False)

    def test_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self._faces("test"), train=False)

    def predict_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader(self._faces(None), train=False)
