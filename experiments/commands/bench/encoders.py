"""The frozen encoders: what losses that look through them cost, beside dlib itself and beside a backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torchvision
from torch import Tensor

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import landmark_places
from experiments.commands.bench.render import forward_and_backward
from losses.encoders import AttributeEncoder, DlibEncoder, FaceEncoder
from losses.encoders.dlib_resnet import WEIGHTS
from renderers.camera import default_intrinsics, project
from renderers.io.packaged_files import packaged_file

SIZE = 224
BATCH = 8


def face_landmarks(size: int, batch: int) -> Tensor:
    """(B, 68, 2) pixels: the landmarks of a face in the default camera."""
    places = torch.as_tensor(landmark_places(), dtype=torch.float32)
    points = torch.cat([places, torch.full((68, 1), 0.5)], dim=1)[None]
    return project(points, default_intrinsics(size)[None])[..., :2].expand(batch, -1, -1).contiguous()


def look(encoder: FaceEncoder, photographs: Tensor, renders: Tensor, landmarks: Tensor) -> Callable[[], None]:
    """What a perceptual loss pays: the features of photographs, and those of renders with their gradient."""

    def step() -> None:
        with torch.no_grad():
            target_features = encoder(photographs, landmarks)
        rendered_features = encoder(renders, landmarks)
        torch.autograd.grad((rendered_features * target_features).sum(), renders)

    return step


def dlib_features() -> Callable[[Tensor], np.ndarray]:
    """dlib's own network: (B, 3, 150, 150) chips in [0, 1] -> (B, 128)."""
    import dlib

    network = dlib.face_recognition_model_v1(str(packaged_file(WEIGHTS)))

    def features(chips: Tensor) -> np.ndarray:
        faces = (chips * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return np.array(network.compute_face_descriptor([np.ascontiguousarray(face) for face in faces]))

    return features


def run(device: torch.device) -> Iterator[Row]:
    """Three rows: recognition features beside dlib's own network, and what each encoder costs beside ResNet-50."""
    generator = torch.Generator().manual_seed(0)
    photographs = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator).to(device)
    renders = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator).to(device).requires_grad_()
    landmarks = face_landmarks(SIZE, BATCH).to(device)
    identity = DlibEncoder().to(device)
    chips = identity.chips(photographs, landmarks)

    @torch.no_grad()
    def features() -> Tensor:
        return identity.encode_chips(chips)

    reference = dlib_features()
    case = f"recognition features: {BATCH} chips of 150 px"
    yield race("encoders", case, device, features, "dlib", lambda: reference(chips))

    last = torch.channels_last
    backbone = torchvision.models.resnet50(weights=None).to(device, memory_format=last)
    images = photographs.contiguous(memory_format=last)
    for name, encoder in (("recognition", identity), ("attributes", AttributeEncoder().to(device))):
        yield race(
            "encoders",
            f"{name}: photographs, and renders with gradients: {BATCH} images of {SIZE} px",
            device,
            look(encoder, photographs, renders, landmarks),
            "ResNet-50",
            forward_and_backward(backbone, images),
            budget_s=6.0,
            repeats=6,
        )
