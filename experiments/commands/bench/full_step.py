"""A whole training step of each paper at full size, against the bare backbone on the same images.

35,721 vertices, 70,688 faces, 224 px, the paper's backbone and weights. A step is what the trainer runs: forward,
backward, and the optimizer's; the backbone alone runs forward and backward before each, on every image that the paper's
network is shown. The frozen encoders stand apart: a row without the terms that look through them, and one with. Of
self-augmentation they are a part: what its refiner is fed. On CUDA the batches are larger, for six images do not fill
a GPU (17 GiB are held, in bfloat16), and backbones multiply in bfloat16 first, alone and in the step, then in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from torch.optim import Adam, Optimizer

from datamodules.batch import CorruptedBatch, FaceBatch, MultiViewBatch
from datamodules.corrupted_faces import TRAINING, corrupt
from datamodules.corruption import DelusionalOcclusion
from experiments.commands.bench.measure import Row
from experiments.commands.bench.meshes import face_like_model
from experiments.commands.bench.training import always, backbone_alone, seen_images, step_row, timed_fit
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import VGG, ResNet
from lightning_modules.finegrained import Finegrained
from lightning_modules.finegrained.weights import CoarseWeights, FineWeights
from lightning_modules.mgcnet import MGCNet
from lightning_modules.mgcnet.weights import MGCNetWeights
from lightning_modules.rogue import ROGUE
from lightning_modules.rogue.weights import ROGUEWeights
from lightning_modules.self_augmentation import SelfAugmentation
from lightning_modules.specular import Specular
from lightning_modules.specular.weights import SpecularWeights
from losses.encoders import AttributeEncoder, DlibEncoder, DlibLayers
from renderers.camera import default_intrinsics
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer

FACES = 70_789
SIZE = 224
DEPTH: Literal[18, 34, 50] = 50
NEVER = 10**9  # the first step of a stage that is not measured

optimizer: Callable[[Iterable], Optimizer] = partial(Adam, lr=1e-4, fused=True)


@dataclass(frozen=True)
class Case:
    """One paper's step.

    Attributes:
        name: what is printed.
        make: the module, with or without the terms that look through a frozen encoder.
        batch: from the face model and a number of images to what the module is trained with.
        encoders: a row for each: without those terms, with them.
        images: shown to the paper's network on the CPU.
        images_on_cuda: likewise on a GPU.
        steps: counted; the median of few says little.
    """

    name: str
    make: Callable[[bool], FaceModule]
    batch: Callable[[MorphableModel, int], FaceBatch]
    encoders: tuple[bool, ...] = (False, True)
    images: int = 6
    images_on_cuda: int = 192
    steps: int = 8


def views_of_faces(model: MorphableModel, images: int, views: int = 1) -> MultiViewBatch:
    """Renders of random faces on grey, `views` of each, turned by up to 25 degrees aside; where the model is."""
    generator = torch.Generator().manual_seed(0)
    layout = model.layout()
    faces = max(1, images // views)
    vector = 0.3 * torch.randn(faces, 1, layout.length, generator=generator).repeat(1, views, 1).flatten(0, 1)
    coefficients = layout.split(vector)
    coefficients.angles.zero_()[:, 1] = torch.linspace(-0.45, 0.45, views).repeat(faces) if views > 1 else 0.2
    coefficients.translation.zero_()
    device = model.mean_shape.device
    with torch.no_grad():
        rendering = FaceRenderer(model, SIZE).to(device)(layout.split(vector.to(device)))
        image = torch.where(rendering.mask, rendering.image.clamp(0, 1), 0.5)
    return MultiViewBatch(
        image=image,
        landmarks=rendering.landmarks,
        skin=rendering.mask.float(),
        intrinsics=default_intrinsics(SIZE, device).repeat(len(image), 1, 1),
        skin_probability=rendering.mask.float(),
        views=torch.arange(len(image), device=device).view(faces, views),
    )


def single_faces(model: MorphableModel, images: int) -> FaceBatch:
    """One picture of each face."""
    batch = views_of_faces(model, images)
    return FaceBatch(**{field.name: getattr(batch, field.name) for field in fields(FaceBatch)})


def corrupted_faces(model: MorphableModel, images: int) -> CorruptedBatch:
    """One picture of each face, and its occluded and its noisy copy among the `images`."""
    return corrupt(single_faces(model, images // 3), {name: make() for name, make in TRAINING.items()})


def cases(model: MorphableModel, shiny: MorphableModel, bfloat16: bool = False) -> list[Case]:
    """The papers, each with its own weights.

    Args:
        model: without a specular albedo, of BFM 2009's coefficients.
        shiny: with one, of BFM 2017's and AlbedoMM's.
        bfloat16: whether backbones multiply in bfloat16.
    """
    resnet, vgg = partial(ResNet, DEPTH, mixed_precision=bfloat16), partial(VGG, 16, mixed_precision=bfloat16)
    common: dict[str, Any] = {"image_size": SIZE, "optimizer": optimizer}

    def mgcnet(encoders: bool) -> FaceModule:
        weights = MGCNetWeights() if encoders else MGCNetWeights(identity=0.0)
        return MGCNet(model, resnet(), DlibEncoder(), weights=weights, **common)

    def rogue(encoders: bool) -> FaceModule:
        weights = ROGUEWeights() if encoders else ROGUEWeights(perceptual=0.0)
        judges = partial(Adam, lr=1e-8, fused=True)
        return ROGUE(model, resnet(), DlibEncoder(), weights=weights, discriminator_optimizer=judges, **common)

    def specular(encoders: bool) -> FaceModule:
        weights = SpecularWeights() if encoders else SpecularWeights(identity=0.0)
        return Specular(shiny, resnet(), DlibEncoder(), weights=weights, **common)

    def finegrained(encoders: bool, fine_start: int) -> FaceModule:
        coarse = CoarseWeights() if encoders else CoarseWeights(identity=0.0)
        fine = FineWeights() if encoders else FineWeights(identity=0.0)
        return Finegrained(
            model, vgg(), DlibEncoder(), coarse=coarse, fine=fine, fine_start=fine_start,
            channels=(16, 32, 64, 128), **common,
        )  # fmt: skip

    def self_augmentation(encoders: bool, coarse_steps: int) -> FaceModule:
        return SelfAugmentation(
            model, resnet(), DlibEncoder(), AttributeEncoder(), DelusionalOcclusion(), DlibLayers(),
            coarse_steps=coarse_steps, channels=32, **common,
        )  # fmt: skip

    return [
        Case("MGCNet", mgcnet, partial(views_of_faces, views=3)),
        Case("ROGUE", rogue, corrupted_faces),
        Case("specular", specular, single_faces),
        *(
            Case(
                f"fine-grained, {stage} stage",
                partial(finegrained, fine_start=start),
                single_faces,
                (False,),
                images_on_cuda=24,
                steps=2,
            )
            for stage, start in (("coarse", NEVER), ("fine", 0))
        ),
        Case(
            "self-augmentation, fine stage",
            partial(self_augmentation, coarse_steps=0),
            single_faces,
            (True,),
            images=2,
            images_on_cuda=16,
            steps=3,
        ),
    ]


def run(device: torch.device) -> Iterator[Row]:
    """One or two rows a paper, twice as many on CUDA."""
    model, shiny = face_like_model(FACES), face_like_model(FACES, 199, 100, 145, specular=True)
    for bfloat16 in (True, False) if device.type == "cuda" else (False,):
        for case in cases(model, shiny, bfloat16):
            for encoders in case.encoders:
                yield measured(case, encoders, device, ", bfloat16 backbone" if bfloat16 else "")


def measured(case: Case, encoders: bool, device: torch.device, remark: str) -> Row:
    """Whole steps of a case beside its backbone alone; `remark` ends the row's description."""
    torch.manual_seed(0)
    module = case.make(encoders).to(device)
    batch = case.batch(module.face_model, case.images_on_cuda if device.type == "cuda" else case.images)
    images, backbone = seen_images(batch), module.regressor.backbone
    timings = timed_fit(module, always(batch, case.steps), case.steps, device, backbone_alone(module))
    told = "with" if encoders else "without"
    text = f"{case.name}: {len(images)} images of {SIZE} px, {told} frozen encoders{remark}"
    return step_row("full_step", text, device, timings, type(backbone).__name__)
