"""The people of the papers' figures, what is found of them, and the exact truth, drawn large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torchmetrics import Metric

from datamodules.batch import MultiViewBatch, Truth
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticFaces, SyntheticMultiView
from experiments.commands.evaluate.subjects import innermost_arguments
from experiments.commands.figures.sheet import PANEL, fitted
from experiments.papers import paper_folder
from experiments.training.plain_yaml import read_yaml
from experiments.training.stored_module import Builder
from lightning_modules.base import FaceModule
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer, Rendering

LARGE = 2 * PANEL  # pixels; faces are drawn so large, and then averaged, for smooth edges
MANY = 1_000_000  # people of the test part, each drawn when asked for

R = TypeVar("R", bound=Rendering)
Picture = tuple[str, Image.Image]
"""A file's name without suffix, and what it shows."""


@dataclass(frozen=True)
class Request:
    """What a paper's figures are drawn from.

    Attributes:
        module: the trained network.
        faces: the test people of the paper's default data, as the network's face model and image size draw them.
        first: the number of the first person shown.
        people: how many are shown where a figure shows several.
        compared: another network of the same paper, for figures of two.
    """

    module: FaceModule
    faces: SyntheticFaces
    first: int = 0
    people: int = 3
    compared: FaceModule | None = None

    def batch(self, people: int | None = None) -> MultiViewBatch:
        """All pictures of the first people; `self.people` of them by default."""
        return self.faces.__getitems__(list(range(self.first, self.first + (people or self.people))))


class Figures(Protocol):
    """A paper's module of this package."""

    MODULE: type[FaceModule]

    def figures(self, request: Request) -> Iterator[Picture]:
        """Every figure of the paper."""
        ...


def people_of(paper: str, module: FaceModule) -> SyntheticFaces:
    """The test people of a paper's `default.yaml`, which no training has seen.

    Person `index` is a function of that file's seed and scenes, and of the network's face model and image size.

    Args:
        paper: its name.
        module: the network that will look at them.

    Raises:
        UserError: the face model lacks what the scenes need.
    """
    path = paper_folder(paper, "default.yaml") / "default.yaml"
    told = innermost_arguments(read_yaml(path)["data"])
    settings: SceneSettings = Builder(str(path)).build(told.get("settings", {}), SceneSettings)
    # Its constructor refuses face models that lack what the scenes need.
    data = SyntheticMultiView(module.face_model, module.image_size, seed=told.get("seed", 0), settings=settings)
    return SyntheticFaces(data.face_model, "test", MANY, data.size, data.seed, data.settings)


def targets(batch: MultiViewBatch) -> MultiViewBatch:
    """The batch with the target of each group of views alone."""
    assert batch.truth is not None
    rows = batch.targets()
    kept: dict[str, Any] = {name: None if held is None else held[rows] for name, held in vars(batch.truth).items()}
    pictures = batch.image[rows], batch.landmarks[rows], batch.skin[rows], batch.intrinsics[rows]
    return MultiViewBatch(*pictures, Truth(**kept))


def true_coefficients(face_model: MorphableModel, batch: MultiViewBatch) -> Coefficients:
    """Those that drew the batch."""
    assert batch.truth is not None
    return face_model.layout().split(batch.truth.coefficients)


def true_faces(face_model: MorphableModel, batch: MultiViewBatch) -> Rendering:
    """The faces that the batch shows, `LARGE`, with their own colours where these are no face model's."""
    assert batch.truth is not None
    rendering = FaceRenderer(face_model, batch.size)(true_coefficients(face_model, batch), batch.intrinsics)
    albedo = batch.truth.vertex_albedo
    return enlarged(rendering if albedo is None else replace(rendering, vertex_albedo=albedo))


def enlarged(rendering: R) -> R:
    """The same faces, drawn `LARGE`."""
    scale = LARGE / rendering.mask.shape[-1]
    return rendering.warped(rendering.vertices.new_tensor([[scale, 0, 0], [0, scale, 0]]), (LARGE, LARGE))


def on_picture(rendering: Rendering, picture: Tensor) -> Tensor:
    """(B, 3, `LARGE`, `LARGE`): large faces over the pictures (B, 3, H, W) that they were found in."""
    return torch.where(rendering.mask, rendering.image.clamp(0, 1), fitted(picture, LARGE))


def on_white(picture: Tensor, rendering: Rendering) -> Tensor:
    """(B, 3, H, W): what the large faces show of a drawn picture, on white."""
    return torch.where(rendering.mask, picture.clamp(0, 1), 1.0)


def lines(form: str, values: Tensor) -> list[str]:
    """A line of text for each of (N,) values, such as "{:.2f} mm"."""
    return [form.format(value) for value in values.tolist()]


def per_face(metric: type[Metric], *pictures: Tensor) -> Tensor:
    """(B,): a metric of each face alone, from arguments of B rows."""
    return torch.stack([metric()(*(picture[row : row + 1] for picture in pictures)) for row in range(len(pictures[0]))])
