"""Small exact scenes: a stand-in face model and batches drawn from it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from datamodules.batch import MultiViewBatch, Truth
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer
from tests.conf.fake_bfm import write_fake_bfm


@cache
def small_face_model(seed: int = 0) -> LinearModel:
    """Eight hundred vertices of random numbers in the layout of BFM 2009."""
    with TemporaryDirectory() as folder:
        return load_bfm2009(write_fake_bfm(Path(folder) / "model.mat", seed=seed))


def exact_batch(
    face_model: LinearModel, faces: int, size: int, views: int = 3, seed: int = 0, noise: float = 0.3
) -> tuple[MultiViewBatch, Coefficients]:
    """`faces` groups of exact views under one unchanging ambient light, and what they were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    layout = face_model.layout()
    vector = torch.zeros(faces, views, layout.length)
    shape = layout.sizes["identity"] + layout.sizes["expression"] + layout.sizes["albedo"]
    vector[..., :shape] = noise * torch.randn(faces, 1, shape, generator=generator)
    vector = vector.flatten(0, 1)
    coefficients = layout.split(vector)
    yaw = torch.linspace(-0.4, 0.4, views).repeat(faces)
    coefficients.angles.copy_(0.1 * torch.randn(len(vector), 3, generator=generator))
    coefficients.angles[:, 1] += yaw
    coefficients.translation.copy_(0.05 * torch.randn(len(vector), 3, generator=generator))
    rendering = FaceRenderer(face_model, size)(coefficients)
    batch = MultiViewBatch(
        image=rendering.image.clamp(0, 1),
        landmarks=rendering.landmarks,
        skin=rendering.mask.float(),
        intrinsics=default_intrinsics(size).repeat(len(vector), 1, 1),
        truth=Truth(vector, rendering.depth),
        views=torch.from_numpy(np.arange(len(vector)).reshape(faces, views)),
    )
    return batch, coefficients
