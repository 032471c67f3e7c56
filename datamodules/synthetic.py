"""The embedded default data: renders of the default face model, several views of a face, with exact truth."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import MultiViewBatch, Truth
from datamodules.sampler import EpochSampler, evaluation_loader, run_seed, training_loader
from datamodules.synthesis.facial_detail import FacialDetail, detail_key
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.face_models.sampling import sample_shape_coefficients
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.illumination import AMBIENT
from renderers.io.atomic_file import folder_written_atomically
from renderers.io.cache import cache_dir, made_once
from renderers.io.errors import UserError
from renderers.specular_renderer import Lamp, lit
from renderers.uv.detail import draw_detail

logger = logging.getLogger(__name__)

GENERATION_VERSION = 1
CHUNK = 64  # identities drawn at once
DEPTH_UNIT = 20.0 / 65535  # decimetres a step of the 16-bit depth maps: 0.03 mm
LAMP = ("light_position", "shininess", "intensity")  # the fields of `Truth` for faces that have highlights
HIGHLIGHTS = (*LAMP, "diffuse", "specular")
DETAIL = ("vertex_albedo", "normals")  # likewise
STORED = ("image", "landmarks", "skin", "coefficients", "depth")  # the files of every cache
DETAIL_SIZE = 128  # texels along each side of the maps
NORMAL_UNIT = 1 / 32767  # of a stored normal's component
LATER_SETTINGS = ("side_light", "specular", "texture_detail", "displacement")
LAMP_ANGLE = 60.0  # degrees from the viewing axis, at most
LAMP_DISTANCE = (6.0, 20.0)  # decimetres from the origin
SHININESS = (6.0, 32.0)  # of skin: a roughness of about 0.25 to 0.5
INTENSITY = (1.0, 4.0)
EXPOSURE = 0.7  # of the diffuse light where there are highlights, so that these seldom end in white
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
        side_light: what is added to the standard deviation, 0.6, of the light's place aside (1 is 45 degrees): light
            that grazes the skin shows its relief. The ambient light is dimmed with it, or much would end in white.
        specular: a lamp puts highlights on the faces, which the truth then holds beside the diffuse pictures; the
            diffuse light is dimmed to `EXPOSURE` of what it is without. Light is linear there (`renderers.color`).
        texture_detail: how strongly every person's skin is painted with what no linear albedo holds, freckles, beard
            shadow, make-up: 1 as people have it, 0 not at all.
        displacement: every person has wrinkles that deepen with the expression. With this or the one before, images are
            shaded pixel by pixel, and the truth of val and test holds the vertices' albedo and the normals.
    """

    views: int = 3
    max_yaw: float = 80.0
    view_gap: tuple[float, float] = (10.0, 40.0)
    light_strength: float = 0.35
    light_change: float = 0.3
    side_light: float = 0.0
    specular: bool = False
    texture_detail: float = 0.0
    displacement: bool = False

    @property
    def detailed(self) -> bool:
        """Whether faces have detail beyond the face model's."""
        return self.texture_detail > 0 or self.displacement

    def key(self) -> dict[str, Any]:
        """What the scenes depend on; a setting that came later is named only where it changes something."""
        return {name: value for name, value in asdict(self).items() if value or name not in LATER_SETTINGS}


def sample_scene(
    face_model: MorphableModel, settings: SceneSettings, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Coefficients of one face in every view, drawn from `generator` alone.

    Returns:
        name -> (views, n) float32, for every name of the face model's layout; with `settings.specular` also
        light_position in decimetres, shininess and intensity.
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
    if settings.specular:
        weights = named["illumination"].reshape(views, 3, 9)
        weights[..., 0] += AMBIENT
        weights *= EXPOSURE
        weights[..., 0] -= AMBIENT
        # Last, so that the same seed draws the same people with and without highlights.
        change, common = settings.light_change, generator.standard_normal(3)
        lamps = [kept * common + change * generator.standard_normal(3) for _ in range(views)]
        named["light_position"] = np.stack([lamp_position(lamp) for lamp in lamps])
        for name, limits in (("shininess", SHININESS), ("intensity", INTENSITY)):
            named[name] = np.full((views, 1), np.exp(generator.uniform(*np.log(limits))))
    return {name: value.astype(np.float32) for name, value in named.items()}


def _sample_light(settings: SceneSettings, generator: np.random.Generator) -> np.ndarray:
    """(3, 9) spherical-harmonics weights: a brightness, one soft light from the front, a little colour."""
    weights = np.zeros((3, 9))
    weights[:, 0] = generator.normal(0.15 - 0.4 * settings.side_light, 0.15)
    x, y = generator.normal(0, 0.6 + settings.side_light), generator.normal(0.25, 0.5)
    direction = np.array([x, y, 1.0]) / np.sqrt(x * x + y * y + 1)
    strength = abs(generator.normal(0, settings.light_strength))
    # The basis holds -y, z, -x in its first band (renderers/illumination.py).
    weights[:, 1:4] = strength * np.array([-direction[1], direction[2], -direction[0]])
    weights[:, 4:] = generator.normal(0, 0.04, size=5)
    tint = 1 + generator.normal(0, 0.06, size=(3, 1))
    return weights * tint + generator.normal(0, 0.015, size=(3, 9))


def lamp_position(lamp: np.ndarray) -> np.ndarray:
    """(3,) standard normal numbers -> (3,) decimetres, in front of the face and more often above it than below.

    Within `LAMP_ANGLE` of the viewing axis; the distance is log-uniform in `LAMP_DISTANCE`.
    """
    aside = np.array([0.8 * lamp[0], 0.35 + 0.6 * lamp[1]])
    aside *= min(1.0, math.tan(math.radians(LAMP_ANGLE)) / float(np.hypot(*aside)))
    near, far = LAMP_DISTANCE
    distance = near * (far / near) ** (0.5 + 0.5 * math.erf(lamp[2] / math.sqrt(2)))
    return distance * np.append(aside, 1.0) / np.hypot(1.0, np.hypot(*aside))


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
        shiny = lit(rendering, albedo, coefficients.illumination, Lamp(*lamp.values()))
        truth = {**lamp, "diffuse": shiny.diffuse.clamp(0, 1), "specular": shiny.specular.clamp(0, 1)}
        return shiny.image, truth

    def _detailed(
        self, detail: FacialDetail, indices: list[int], rendering: Rendering, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The faces with their detail (B, 3, H, W), and the truth's fields `DETAIL`."""
        views, size = self.settings.views, detail.chart.size
        texture, relief = torch.zeros(len(indices), 3, size, size), None
        # Streams of their own: nothing else of a seed changes with them, nor one of them with the other.
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
        # Appended to, not mapped into memory: a full disk is an error then, and not the process's end.
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
    ) -> None:
        super().__init__()
        if settings.specular and not face_model.has_specular:
            raise UserError(
                f"settings.specular: face model {face_model.name} has no specular albedo to draw highlights with; "
                "use one that has, such as `default`, or leave the setting off"
            )
        if settings.detailed and not isinstance(face_model, LinearModel):
            raise UserError(f"settings: detail is painted on linear face models alone; {face_model.name} is not one")
        if settings.specular and settings.detailed:
            raise UserError(
                "settings.specular: highlights are not drawn on faces with texture_detail or displacement; "
                "leave one or the other off"
            )
        self.face_model, self.size, self.batch_size, self.seed = face_model, size, batch_size, seed
        self.counts: dict[Split, int] = {"train": train_faces, "val": val_faces, "test": test_faces}
        self.settings, self.num_workers = settings, num_workers

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
            # No part of the model's fingerprint.
            tensors = [self.face_model.get_buffer(name) for name in ("mean_specular", "flat_specular_basis")]
            content = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors)
            key["specular_albedo"] = hashlib.sha256(content).hexdigest()[:12]
            key["highlights"] = {"added in": "linear light", "shininess": SHININESS, "intensity": INTENSITY}
        if self.settings.detailed:
            key["detail"] = detail_key(self.face_model)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cache_dir() / "synthetic" / f"{split}-{digest}"

    def prepare_data(self) -> None:
        for split in SPLITS[:2]:
            self._draw(split)

    def _draw(self, split: Split) -> CachedFaces:
        """A split's faces, drawn if they are not in the cache, or if what is there is damaged."""
        folder = self.folder(split)
        faces = SyntheticFaces(self.face_model, split, self.counts[split], self.size, self.seed, self.settings)
        if folder.is_dir():
            try:
                return CachedFaces(folder, faces)
            except DamagedCacheError as error:
                logger.warning("%s; drawing these faces again", error)
                shutil.rmtree(folder, ignore_errors=True)
        write_cache(faces, folder)
        return CachedFaces(folder, faces)

    def _loader(self, split: Split) -> DataLoader[MultiViewBatch]:
        faces = self._draw(split)
        # `CachedFaces` builds whole batches.
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
