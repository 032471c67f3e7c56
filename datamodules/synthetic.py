"""The embedded default data: renders of the default face model, several views of a face, with exact truth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import MultiViewBatch, Truth
from datamodules.camera_effects import CameraEffects, CameraRanges
from datamodules.detected_landmarks import DetectedLandmarks
from datamodules.sampler import EpochSampler, evaluation_loader, run_seed, training_loader
from datamodules.synthesis.facial_detail import FacialDetail, detail_key
from datamodules.synthesis.scenes import (
    INTENSITY,
    LAMP_SPREAD,
    SHININESS,
    SceneSettings,
    sample_background,
    sample_scene,
)
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.io.atomic_file import folder_written_atomically
from renderers.io.cache import cache_dir, made_once
from renderers.io.errors import UserError
from renderers.reflectance import blinn_phong, ggx
from renderers.specular_renderer import Lamp, lit
from renderers.uv.detail import draw_detail

if TYPE_CHECKING:
    from datamodules.head_cache import CachedHeads

logger = logging.getLogger(__name__)

GENERATION_VERSION = 1
HEADS_VERSION = 2  # goes up with every change of what whole heads look like
CHUNK = 64  # identities drawn at once
DEPTH_UNIT = 20.0 / 65535  # decimetres a step of the 16-bit depth maps: 0.03 mm
LAMP = ("light_position", "shininess", "intensity")  # the fields of `Truth` for faces that have highlights
HIGHLIGHTS = (*LAMP, "diffuse", "specular")
DETAIL = ("vertex_albedo", "normals")  # likewise
STORED = ("image", "landmarks", "skin", "coefficients", "depth")  # the files of every cache
DETAIL_SIZE = 128  # texels along each side of the maps
NORMAL_UNIT = 1 / 32767  # of a stored normal's component
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Split = Literal["train", "val", "test"]


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

    @cached_property
    def detail(self) -> FacialDetail | None:
        """Built when the first face is drawn: faces that are in a cache do not need it."""
        if not self.settings.detailed:
            return None
        assert isinstance(self.face_model, LinearModel)
        return FacialDetail(self.face_model, DETAIL_SIZE)

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
        truth: dict[str, Tensor] = {}
        if self.settings.specular:
            face, truth = self._highlights(rendering, coefficients)
        elif self.detail is not None:
            face, truth = self._detailed(self.detail, indices, rendering, coefficients)
        else:
            face = rendering.image
        image = torch.where(rendering.mask, face.clamp(0, 1), torch.as_tensor(backgrounds))
        skin = rendering.draw(self.skin.expand(len(image), -1, -1))
        return MultiViewBatch(
            image=image,
            landmarks=rendering.landmarks,
            skin=skin,
            intrinsics=default_intrinsics(self.size).repeat(len(image), 1, 1),
            truth=Truth(coefficients=self.layout.join(coefficients), depth=rendering.depth, **truth),
            views=torch.arange(len(image)).view(len(indices), views),
        )

    def _highlights(self, rendering: Rendering, coefficients: Coefficients) -> tuple[Tensor, dict[str, Tensor]]:
        """The shiny faces (B, 3, H, W), and the truth's fields `HIGHLIGHTS`."""
        lamp = {name: coefficients.extra[name] for name in LAMP}
        albedo = self.face_model.specular(coefficients.albedo)
        lobe = ggx if self.settings.ggx else blinn_phong
        shiny = lit(rendering, albedo, coefficients.illumination, Lamp(*lamp.values()), lobe)
        truth = {**lamp, "diffuse": shiny.diffuse.clamp(0, 1), "specular": shiny.specular.clamp(0, 1)}
        return shiny.image, truth

    def _detailed(
        self, detail: FacialDetail, indices: list[int], rendering: Rendering, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The faces with their detail (B, 3, H, W), and the truth's fields `DETAIL`."""
        views, size = self.settings.views, detail.chart.size
        texture, relief = torch.zeros(len(indices), 3, size, size), None
        # Each has a random stream of its own, so that a change in one leaves everything else of a seed as it was.
        first, second = (
            [np.random.default_rng([self.seed, SPLITS.index(self.split), index, stream]) for index in indices]
            for stream in (1, 2)
        )
        if self.settings.texture_detail:
            strength = self.settings.texture_detail
            texture = strength * torch.stack([detail.texture(generator) for generator in first])
        if self.settings.displacement:
            expressions = coefficients.expression[::views].numpy()
            relief = torch.stack([detail.displacement(*person) for person in zip(second, expressions, strict=True)])
            relief = relief.repeat_interleave(views, dim=0)
        chart, illumination = detail.chart, coefficients.illumination
        drawn = draw_detail(chart, rendering, illumination, texture.repeat_interleave(views, dim=0), relief)
        places = chart.uv.expand(len(texture), -1, -1)
        added = chart.sample(texture, places).repeat_interleave(views, dim=0)
        # The linear part is drawn from the vertices and not from a map, which would blur eyes and brows.
        face = (rendering.albedo + drawn.albedo).clamp(0, 1) * drawn.shading
        return face, {"vertex_albedo": (rendering.vertex_albedo + added).clamp(0, 1), "normals": drawn.normals}


class CachedFaces(Dataset[MultiViewBatch]):
    """The faces of `SyntheticFaces`, read from memory-mapped files (8-bit colour and skin, 16-bit depth).

    Args:
        folder: what `write_cache` wrote.
        faces: what was written.

    Raises:
        DamagedCacheError: a file is missing, cut short, or holds another number of faces.
    """

    def __init__(self, folder: Path, faces: SyntheticFaces) -> None:
        shape = (len(faces), faces.settings.views)
        self.arrays = {name: _mapped(folder / f"{name}.npy", shape) for name in _stored(faces)}
        self.size = faces.size

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, index: int) -> MultiViewBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        rows = {name: torch.as_tensor(array[indices]).flatten(0, 1) for name, array in self.arrays.items()}
        image = rows["image"].float() / 255
        stored = {name: rows[name] for name in HIGHLIGHTS if name in rows}
        extra = {name: value if value.is_floating_point() else value / 255 for name, value in stored.items()}
        if "normals" in rows:
            extra |= {"vertex_albedo": rows["vertex_albedo"] / 255, "normals": rows["normals"] * NORMAL_UNIT}
        return MultiViewBatch(
            image=image,
            landmarks=rows["landmarks"],
            skin=rows["skin"].float() / 255,
            intrinsics=default_intrinsics(self.size).repeat(len(image), 1, 1),
            truth=Truth(rows["coefficients"], rows["depth"].float() * DEPTH_UNIT, **extra),
            views=torch.arange(len(image)).view(len(indices), -1),
        )


class DamagedCacheError(Exception):
    """A file of a cache is not what was written; the message names it."""


def _stored(faces: SyntheticFaces) -> list[str]:
    """The names of the files that hold these faces; training never reads the truth of detail."""
    names = [*STORED, *(HIGHLIGHTS if faces.settings.specular else ())]
    return names + list(DETAIL if faces.settings.detailed and faces.split != "train" else ())


def _mapped(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DamagedCacheError(f"{path}: missing, damaged or cut short ({type(error).__name__})") from error
    if array.shape[:2] != shape:
        raise DamagedCacheError(f"{path}: holds {array.shape[:2]} faces and views where {shape} were drawn")
    return array


def _encode(batch: MultiViewBatch, faces: int, training: bool) -> dict[str, np.ndarray]:
    """One chunk as it is stored: (faces, views, ...) arrays; training never reads the truth of detail."""
    assert batch.truth is not None
    columns: dict[str, Tensor] = {
        "image": _eight_bit(batch.image),
        "landmarks": batch.landmarks,
        "skin": _eight_bit(batch.skin),
        "coefficients": batch.truth.coefficients,
        "depth": (batch.truth.depth / DEPTH_UNIT).round().clamp(0, 65535).to(torch.uint16),
    }
    held = {name: getattr(batch.truth, name) for name in HIGHLIGHTS}
    columns |= {name: _eight_bit(v) if v.ndim == 4 else v for name, v in held.items() if v is not None}
    if batch.truth.vertex_albedo is not None and batch.truth.normals is not None and not training:
        columns["vertex_albedo"] = _eight_bit(batch.truth.vertex_albedo)
        columns["normals"] = (batch.truth.normals / NORMAL_UNIT).round().to(torch.int16)
    return {name: value.unflatten(0, (faces, -1)).numpy() for name, value in columns.items()}


def _eight_bit(picture: Tensor) -> Tensor:
    return (picture * 255).round().to(torch.uint8)


def write_cache(faces: SyntheticFaces, folder: Path) -> None:
    """Draw every face into `folder`, which appears whole or not at all.

    Raises:
        UserError: the cache cannot be written.
    """
    from rich.progress import track

    named = f"{len(faces)} synthetic faces ({faces.split})"
    with made_once(folder, named):
        if folder.is_dir():
            return
        # Appended to, not mapped into memory: writing to a mapped file on a full disk would kill the process.
        with folder_written_atomically(folder) as temporary, contextlib.ExitStack() as opened:
            files: dict[str, BinaryIO] = {}
            for start in track(range(0, len(faces), CHUNK), description=f"drawing {named}"):
                indices = list(range(start, min(start + CHUNK, len(faces))))
                for name, rows in _encode(faces.__getitems__(indices), len(indices), faces.split == "train").items():
                    if name not in files:
                        files[name] = opened.enter_context((temporary / f"{name}.npy").open("wb"))
                        header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(rows))
                        np.lib.format.write_array_header_1_0(
                            files[name], {**header, "shape": (len(faces), *rows.shape[1:])}
                        )
                    files[name].write(rows.tobytes())


class SyntheticMultiView(LightningDataModule):
    """Views of synthetic faces, drawn once and cached on disk, so that the trainer never waits for data.

    Yields `MultiViewBatch` with `batch_size * settings.views` images; of many processes each has its share.

    Args:
        face_model: draws the faces.
        size: image side in pixels.
        batch_size: faces (not images) a step, of all processes together.
        train_faces, val_faces, test_faces: identities in each split; they never meet.
        seed: item `index` of a split is a function of (seed, split, index) alone.
        settings: what the scenes vary over.
        num_workers: processes that read the cache; 0 reads it in the trainer's.
        camera_effects: what cameras do to the pictures of training, drawn anew every time on their device.
        landmark_noise: how wrong the landmarks of all splits are: 1 as wrong as dlib's were measured to be (some 3 % of
            their box, correlated, with a bias that depends on yaw), 0 exact. The truth stays exact.

    Raises:
        UserError: highlights are wanted of a face model without a specular albedo, or together with detail.
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
        camera_effects: CameraRanges | None = None,
        landmark_noise: float = 0.0,
    ) -> None:
        super().__init__()
        if settings.specular and not face_model.has_specular:
            raise UserError(
                f"settings.specular: face model {face_model.name} has no specular albedo to draw highlights with; "
                "use one that has, such as `default`, or leave the setting off"
            )
        if settings.ggx and not settings.specular:
            raise UserError("settings.ggx: it is the lobe of highlights; set settings.specular with it")
        if settings.detailed and not isinstance(face_model, LinearModel):
            raise UserError(f"settings: detail is painted on linear face models alone; {face_model.name} is not one")
        if settings.heads is not None and (settings.specular or settings.detailed):
            raise UserError(
                "settings.heads: whole heads have skin and highlights of their own; leave specular, texture_detail and "
                "displacement off"
            )
        if settings.specular and settings.detailed:
            raise UserError(
                "settings.specular: highlights are not drawn on faces with texture_detail or displacement; "
                "leave one or the other off"
            )
        self.face_model, self.size, self.batch_size, self.seed = face_model, size, batch_size, seed
        self.counts: dict[Split, int] = {"train": train_faces, "val": val_faces, "test": test_faces}
        self.settings, self.num_workers = settings, num_workers
        if not 0 <= landmark_noise < math.inf:
            raise UserError(f"landmark_noise {landmark_noise}: give a number from 0, exact, to 1, as wrong as dlib's")
        self.landmark_noise = landmark_noise
        self.camera_effects = None if camera_effects is None else CameraEffects(camera_effects)

    def on_after_batch_transfer(self, batch: MultiViewBatch, dataloader_idx: int) -> MultiViewBatch:
        """The batch as cameras give it, in training."""
        if self.camera_effects is None or self.trainer is None or not self.trainer.training:
            return batch
        changed = self.camera_effects(batch)
        assert isinstance(changed, MultiViewBatch)
        return changed

    def folder(self, split: Split) -> Path:
        """Where this split's faces are cached; the name changes with anything that changes them."""
        key: dict[str, Any] = {
            "version": GENERATION_VERSION,
            "face_model": self.face_model.fingerprint(),
            "size": self.size,
            "count": self.counts[split],
            "seed": self.seed,
            "settings": self.settings.key(),
        }
        if self.settings.specular:
            # These arrays are not part of the model's fingerprint.
            tensors = [self.face_model.get_buffer(name) for name in ("mean_specular", "flat_specular_basis")]
            content = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors)
            key["specular_albedo"] = hashlib.sha256(content).hexdigest()[:12]
            key["highlights"] = {"lamp": LAMP_SPREAD, "shininess": SHININESS, "intensity": INTENSITY}
        if self.settings.detailed:
            key["detail"] = detail_key(self.face_model)
        if self.settings.heads is not None:
            key["heads"] = HEADS_VERSION
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cache_dir() / "synthetic" / f"{split}-{digest}"

    def prepare_data(self) -> None:
        for split in SPLITS[:2]:
            self._draw(split)

    def faces(self, split: Split) -> CachedFaces | CachedHeads | DetectedLandmarks:
        """A split's faces from the cache, with landmarks as they were asked for."""
        faces = self._draw(split)
        if not self.landmark_noise:
            return faces
        layout, key = self.face_model.layout(), (self.seed, SPLITS.index(split))
        return DetectedLandmarks(faces, layout, self.landmark_noise, key)

    def _draw(self, split: Split) -> CachedFaces | CachedHeads:
        """A split's faces, drawn if they are not in the cache, or if what is there is damaged."""
        folder = self.folder(split)
        arguments = (self.face_model, split, self.counts[split], self.size, self.seed, self.settings)
        read: Callable[[], CachedFaces | CachedHeads]
        if self.settings.heads is None:
            faces = SyntheticFaces(*arguments)
            read, write = (lambda: CachedFaces(folder, faces)), (lambda: write_cache(faces, folder))
        else:
            from datamodules.head_cache import CachedHeads, write_heads
            from datamodules.synthetic_heads import SyntheticHeads

            heads = SyntheticHeads(*arguments)
            read, write = (lambda: CachedHeads(folder, heads)), (lambda: write_heads(heads, folder))
        if folder.is_dir():
            try:
                return read()
            except (DamagedCacheError, UserError) as error:
                logger.warning("%s; drawing these faces again", error)
                shutil.rmtree(folder, ignore_errors=True)
        write()
        return read()

    def _loader(self, split: Split) -> DataLoader[MultiViewBatch]:
        faces = self.faces(split)
        # The data set builds whole batches.
        options: dict[str, Any] = {"num_workers": self.num_workers, "collate_fn": _as_it_is}
        if split == "train":
            return training_loader(faces, EpochSampler(faces, run_seed()), self.batch_size, **options)
        return evaluation_loader(faces, self.batch_size, **options)

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
