"""ShardedFaces: prepared faces in shards as training batches, equal to those that `PhotoFolder` makes of the faces."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from datamodules.augmentation import GeometryAugmentation
from datamodules.batch import FaceBatch, MultiViewBatch
from datamodules.collate import group_sample
from datamodules.datasets.number_files import NPY_ERRORS
from datamodules.preparation.photo_file import decode_png
from datamodules.preparation.prepared_folder import Split
from datamodules.prepared_data import LandmarkChoice, PreparedData, face_sample
from datamodules.sampler import SeededSamples, evaluation_loader, training_loader
from datamodules.sharding.shard_sampler import ShardSampler
from datamodules.sharding.shards import PARTS, Sample, ShardedSamples, complete_folder, shards_hint
from renderers.io.errors import UserError

IMAGE, SKIN, LANDMARKS, CONTOUR_LANDMARKS = "png", "skin.png", "landmarks.npy", "contour.landmarks.npy"
"""Endings of a face's members in a shard; the number of the sample's view comes before them. Landmarks whose jaw marks
the visible contour have an ending of their own."""
KINDS_SETTING = "landmarks"
"""Where `shards.json` says which kinds of landmarks there are."""
POINTS = 68


def encoded_landmarks(landmarks: Sequence[Sequence[float]]) -> bytes:
    """68 points in the crop's pixels as a .npy file of (68, 2) float32."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(landmarks, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


class DecodedFaces(Dataset[FaceBatch]):
    """A part's samples in shards as batches: of one face, or of a target between its views.

    Args:
        samples: as `prepare shards` writes them.
        size: side of the returned images in pixels.
        geometry: moves faces that are returned without views.
        views: whether a face is returned with its views.
    """

    def __init__(
        self, samples: ShardedSamples, size: int, geometry: GeometryAugmentation | None = None, views: bool = False
    ) -> None:
        self.samples, self.size, self.geometry, self.views = samples, size, geometry, views

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> FaceBatch:
        sample = self.samples[index]
        count = sum(name.endswith(f".{LANDMARKS}") for name in sample)
        try:
            if self.views and count > 1:
                return group_sample([self._face(sample, view, None) for view in range(count)])
            return self._face(sample, count // 2, self.geometry)
        except (KeyError, EOFError, TypeError, *NPY_ERRORS, cv2.error) as error:
            path = self.samples.path(self.samples.shard_of(index))
            raise UserError(
                f"{path}: sample {index} is no prepared face ({error}): {shards_hint(path.parent)}"
            ) from None

    def _face(self, sample: Sample, view: int, geometry: GeometryAugmentation | None) -> FaceBatch:
        image, skin = (
            decode_png(sample[f"{view}.{name}"], mode)
            for name, mode in ((IMAGE, cv2.IMREAD_COLOR), (SKIN, cv2.IMREAD_GRAYSCALE))
        )
        contour = f"{view}.{CONTOUR_LANDMARKS}" in sample
        stored = sample[f"{view}.{CONTOUR_LANDMARKS if contour else LANDMARKS}"]
        landmarks: Any = np.load(io.BytesIO(stored), allow_pickle=False)
        if image is None or skin is None or np.shape(landmarks) != (POINTS, 2) or not np.isfinite(landmarks).all():
            raise ValueError("its pictures or landmarks are not what they should be")
        scaled = landmarks * (self.size / len(image))
        return face_sample(np.ascontiguousarray(image[..., ::-1]), skin, scaled, contour, self.size, geometry)


class ShardedFaces(PreparedData):
    """Prepared faces in shards, written by `python -m experiments prepare shards`: for data sets of millions.

    Yields the same `MultiViewBatch`es as `PhotoFolder` of the same faces, with the same augmentation. Shards are read
    one after the other, from a local or a mounted folder. Memory and start-up time do not grow with their number. The
    split into training, validation and testing was fixed when the shards were written. Prediction uses all faces.

    Args:
        root, size, batch_size, num_workers, augment, seed, landmarks: see `PreparedData`. A folder is the `--out` of
            the command; it must hold one kind of landmarks if `landmarks` names one. Each sample counts alike.
        views: whether a training face comes with its views; the shards must have been written with `--views`.
        streams: number of streams of shards that all processes together read side by side. Give a multiple of the
            number of processes, so that each process, and each machine, reads shards of its own.
    """

    def __init__(
        self,
        root: str | list[str],
        size: int = 224,
        batch_size: int = 8,
        num_workers: int = 2,
        augment: bool = True,
        seed: int = 0,
        views: bool = False,
        streams: int = 8,
        landmarks: LandmarkChoice = None,
    ) -> None:
        super().__init__(root, size, batch_size, num_workers, augment, seed, views, landmarks)
        self.check("streams", streams, 1)
        self.streams = streams

    def setup(self, stage: str | None = None) -> None:
        """Check the description of every folder.

        Raises:
            UserError: a folder holds no shards or incomplete ones, they lack views, or their landmarks are of another
                kind.
        """
        kinds: dict[Path, list[str]] = {}
        for root in self.roots:
            settings = complete_folder(root).settings
            if not settings.get("views") and self.views:
                raise UserError(f"{root} holds no views of a face: {shards_hint(root)}, with --views")
            held: Any = settings.get(KINDS_SETTING)
            if held not in (["2d"], ["3d"], ["2d", "3d"]):
                raise UserError(f"{root} does not say which landmarks it holds: delete it, and {shards_hint(root)}")
            if self.landmarks in ("2d", "3d") and len(held) > 1:
                raise UserError(f"{root} has 2d and 3d landmarks together: say `landmarks: mixed`")
            kinds[root] = held
        self.check_landmarks(kinds)

    def _faces(self, part: Split) -> DecodedFaces:
        self.setup()
        # A window is as long as two shards. It touches three of them, or four if one of these is short.
        samples = ShardedSamples(self.roots, part, opened=4 * self.streams)
        if not len(samples):
            purpose = {"train": "training", "val": "validation", "test": "testing"}[part]
            raise UserError(f"{', '.join(map(str, self.roots))}: no face in it is for {purpose}")
        geometry = GeometryAugmentation() if part == "train" and self.augment else None
        return DecodedFaces(samples, self.size, geometry, views=part == "train" and self.views)

    # The loaders' types do not know that the collate turns samples into batches: hence `Any` below.
    def _in_order(self, faces: Any) -> DataLoader[MultiViewBatch]:
        return evaluation_loader(faces, self.batch_size, **self.options())

    def train_dataloader(self) -> DataLoader[MultiViewBatch]:
        faces = self._faces("train")
        order = ShardSampler(faces.samples, self.seed, self.streams)
        seeded: Any = SeededSamples(faces, self.seed)
        return training_loader(seeded, order, self.batch_size, **self.options())

    def val_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._in_order(self._faces("val"))

    def test_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._in_order(self._faces("test"))

    def predict_dataloader(self) -> DataLoader[MultiViewBatch]:
        """Every face once, those for training first."""
        stored = [(root, part) for part in PARTS for root in self.roots if complete_folder(root).is_own(part)]
        faces = [DecodedFaces(ShardedSamples([root], part), self.size) for root, part in stored]
        return self._in_order(ConcatDataset(faces))
