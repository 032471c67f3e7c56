"""The embedded default data: renders of the default face model, several views of a face, with exact truth."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import MultiViewBatch, Truth
from renderers.cache import cache_dir
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer
from renderers.morphable_model.model import MorphableModel
from renderers.morphable_model.sampling import sample_shape_coefficients

GENERATION_VERSION = 1
CHUNK = 64  # identities drawn at once
DEPTH_UNIT = 20.0 / 65535  # decimetres a step of the 16-bit depth maps: 0.03 mm
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class SceneSettings:
    """What the synthetic scenes vary over.

    Attributes:
        views: images of each face (one identity, one expression), the target in the middle.
        max_yaw: degrees; no view turns further.
        view_gap: degrees; (least, most) yaw between the target and a source view.
        light_strength: standard deviation of the directional light against the ambient 0.8.
        light_change: how much of the light is drawn anew for each view; 0 keeps one light, 1 keeps nothing.
    """

    views: int = 3
    max_yaw: float = 80.0
    view_gap: tuple[float, float] = (10.0, 40.0)
    light_strength: float = 0.35
    light_change: float = 0.3


def sample_scene(
    face_model: MorphableModel, settings: SceneSettings, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Coefficients of one face in every view, drawn from `generator` alone.

    Returns:
        name -> (views, n) float32, for every name of the face model's layout.
    """
    views = settings.views
    face = sample_shape_coefficients(face_model, 1, generator)
    named = {name: np.repeat(value, views, axis=0) for name, value in face.items()}
    target_yaw = generator.uniform(-settings.max_yaw, settings.max_yaw)
    steps = np.arange(views) - views // 2
    yaw = target_yaw + steps * generator.uniform(*settings.view_gap, size=views)
    # A view that would turn too far is reflected back, so that profile views stay as frequent as the others.
    yaw = np.where(np.abs(yaw) > settings.max_yaw, np.sign(yaw) * 2 * settings.max_yaw - yaw, yaw)
    pitch = generator.normal(0, 10, size=views).clip(-25, 25)
    roll = generator.normal(0, 7, size=views).clip(-20, 20)
    named["angles"] = np.deg2rad(np.stack([pitch, yaw, roll], axis=-1))
    named["translation"] = generator.normal(0, (0.08, 0.08, 0.35), size=(views, 3)).clip(-1, 1)
    kept = np.sqrt(1 - settings.light_change**2)
    common = _sample_light(settings, generator)
    lights = [kept * common + settings.light_change * _sample_light(settings, generator) for _ in range(views)]
    named["illumination"] = np.stack(lights).reshape(views, 27)
    return {name: value.astype(np.float32) for name, value in named.items()}


def _sample_light(settings: SceneSettings, generator: np.random.Generator) -> np.ndarray:
    """(3, 9) spherical-harmonics weights: a brightness, one soft light from the front, a little colour."""
    weights = np.zeros((3, 9))
    weights[:, 0] = generator.normal(0.15, 0.15)
    x, y = generator.normal(0, 0.6), generator.normal(0.25, 0.5)
    direction = np.array([x, y, 1.0]) / np.sqrt(x * x + y * y + 1)
    strength = abs(generator.normal(0, settings.light_strength))
    # The basis holds -y, z, -x in its first band (renderers/illumination.py).
    weights[:, 1:4] = strength * np.array([-direction[1], direction[2], -direction[0]])
    weights[:, 4:] = generator.normal(0, 0.04, size=5)
    tint = 1 + generator.normal(0, 0.06, size=(3, 1))
    return weights * tint + generator.normal(0, 0.015, size=(3, 9))


def sample_background(size: int, generator: np.random.Generator) -> np.ndarray:
    """(3, size, size) in [0, 1]: soft patches of colour, some with bars, and fine grain."""
    cells = int(generator.integers(2, 9))
    coarse = torch.as_tensor(generator.uniform(0, 1, size=(1, 3, cells, cells)))
    mode = "bicubic" if generator.random() < 0.6 else "nearest"
    picture = torch.nn.functional.interpolate(coarse, size=(size, size), mode=mode)[0].numpy()
    if generator.random() < 0.3:
        axis = np.linspace(0, generator.uniform(3, 20) * np.pi, size)
        bars = (np.sin(axis + generator.uniform(0, 6)) > 0) * generator.uniform(-0.4, 0.4)
        picture = picture + (bars[None, :] if generator.random() < 0.5 else bars[:, None])
    contrast = generator.uniform(0.2, 1.0)
    picture = 0.5 + contrast * (picture - 0.5) + generator.normal(0, 0.03, size=picture.shape)
    return picture.clip(0, 1).astype(np.float32)


class SyntheticFaces(Dataset[MultiViewBatch]):
    """Item `index` is a function of (seed, split, index) alone: all views of one face.

    Images are float, drawn when asked for. `CachedFaces` reads the same items from disk.

    Args:
        face_model: draws the faces.
        split: identities of different splits never meet.
        count: how many faces.
        size: image side in pixels.
    """

    def __init__(
        self, face_model: MorphableModel, split: Split, count: int, size: int, seed: int, settings: SceneSettings
    ) -> None:
        self.face_model, self.split, self.count, self.size, self.seed = face_model, split, count, size, seed
        self.settings = settings
        self.renderer = FaceRenderer(face_model, size)
        self.layout = face_model.layout()
        skin = torch.zeros(face_model.vertex_count, 1)
        skin[face_model.regions["skin"]] = 1
        self.skin = skin

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> MultiViewBatch:
        return self.__getitems__([index])

    @torch.no_grad()
    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        generators = [np.random.default_rng([self.seed, SPLITS.index(self.split), index]) for index in indices]
        scenes = [sample_scene(self.face_model, self.settings, generator) for generator in generators]
        joined = {name: np.concatenate([scene[name] for scene in scenes]) for name in scenes[0]}
        coefficients = Coefficients.from_named({name: torch.as_tensor(value) for name, value in joined.items()})
        rendering = self.renderer(coefficients)
        views = self.settings.views
        backgrounds = np.stack([sample_background(self.size, g) for g in generators for _ in range(views)])
        image = torch.where(rendering.mask, rendering.image.clamp(0, 1), torch.as_tensor(backgrounds))
        skin = rendering.draw(self.skin.expand(len(image), -1, -1))
        return MultiViewBatch(
            image=image,
            landmarks=rendering.landmarks,
            skin=skin,
            intrinsics=default_intrinsics(self.size).repeat(len(image), 1, 1),
            truth=Truth(coefficients=self.layout.join(coefficients), depth=rendering.depth),
            views=torch.arange(len(image)).view(len(indices), views),
        )


class CachedFaces(Dataset[MultiViewBatch]):
    """The faces of `SyntheticFaces`, read from memory-mapped files (8-bit colour and skin, 16-bit depth)."""

    def __init__(self, folder: Path, size: int) -> None:
        self.arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        self.size = size

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, index: int) -> MultiViewBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        rows = {name: torch.as_tensor(array[indices]).flatten(0, 1) for name, array in self.arrays.items()}
        image = rows["image"].float() / 255
        return MultiViewBatch(
            image=image,
            landmarks=rows["landmarks"],
            skin=rows["skin"].float() / 255,
            intrinsics=default_intrinsics(self.size).repeat(len(image), 1, 1),
            truth=Truth(coefficients=rows["coefficients"], depth=rows["depth"].float() * DEPTH_UNIT),
            views=torch.arange(len(image)).view(len(indices), -1),
        )


def _encode(batch: MultiViewBatch, faces: int) -> dict[str, np.ndarray]:
    """One chunk as it is stored: (faces, views, ...) arrays."""
    assert batch.truth is not None
    columns: dict[str, Tensor] = {
        "image": (batch.image * 255).round().to(torch.uint8),
        "landmarks": batch.landmarks,
        "skin": (batch.skin * 255).round().to(torch.uint8),
        "coefficients": batch.truth.coefficients,
        "depth": (batch.truth.depth / DEPTH_UNIT).round().clamp(0, 65535).to(torch.uint16),
    }
    return {name: value.unflatten(0, (faces, -1)).numpy() for name, value in columns.items()}


def write_cache(faces: SyntheticFaces, folder: Path) -> None:
    """Draw every face into `folder`, which appears whole or not at all."""
    from rich.progress import track

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        files: dict[str, np.ndarray] = {}
        starts = range(0, len(faces), CHUNK)
        for start in track(starts, description=f"drawing {len(faces)} synthetic faces ({faces.split})"):
            indices = list(range(start, min(start + CHUNK, len(faces))))
            for name, rows in _encode(faces.__getitems__(indices), len(indices)).items():
                if name not in files:
                    path = temporary / f"{name}.npy"
                    shape = (len(faces), *rows.shape[1:])
                    files[name] = np.lib.format.open_memmap(path, mode="w+", dtype=rows.dtype, shape=shape)
                files[name][indices] = rows
        for array in files.values():
            array.flush()  # type: ignore[attr-defined]
        try:
            temporary.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise  # Else another process drew the same faces first.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class SyntheticMultiView(LightningDataModule):
    """Views of synthetic faces, drawn once and cached on disk, so that the trainer never waits for data.

    Yields `MultiViewBatch` with `batch_size * settings.views` images.

    Args:
        face_model: draws the faces.
        size: image side in pixels.
        batch_size: faces (not images) a batch.
        train_faces, val_faces, test_faces: identities in each split; they never meet.
        seed: item `index` of a split is a function of (seed, split, index) alone.
        settings: what the scenes vary over.
        num_workers: processes that read the cache; 0 reads it in the trainer's.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        size: int = 64,
        batch_size: int = 8,
        train_faces: int = 4000,
        val_faces: int = 64,
        test_faces: int = 128,
        seed: int = 0,
        settings: SceneSettings = SceneSettings(),
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.face_model, self.size, self.batch_size, self.seed = face_model, size, batch_size, seed
        self.counts: dict[Split, int] = {"train": train_faces, "val": val_faces, "test": test_faces}
        self.settings, self.num_workers = settings, num_workers

    def folder(self, split: Split) -> Path:
        """Where this split's faces are cached; the name changes with anything that changes them."""
        key = {
            "version": GENERATION_VERSION,
            "face_model": self.face_model.fingerprint(),
            "size": self.size,
            "count": self.counts[split],
            "seed": self.seed,
            "settings": asdict(self.settings),
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cache_dir() / "synthetic" / f"{split}-{digest}"

    def prepare_data(self) -> None:
        for split in SPLITS[:2]:
            self._draw(split)

    def _draw(self, split: Split) -> Path:
        folder = self.folder(split)
        if not folder.is_dir():
            count = self.counts[split]
            write_cache(SyntheticFaces(self.face_model, split, count, self.size, self.seed, self.settings), folder)
        return folder

    def _loader(self, split: Split) -> DataLoader[MultiViewBatch]:
        return DataLoader(
            CachedFaces(self._draw(split), self.size),
            batch_size=self.batch_size,
            shuffle=split == "train",
            drop_last=split == "train",
            num_workers=self.num_workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # CachedFaces builds whole batches
        )

    def train_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[MultiViewBatch]:
        return self._loader("test")


def _as_it_is(batch: MultiViewBatch) -> MultiViewBatch:
    return batch
