"""Pictures of synthetic heads turned aside, with where their landmarks are."""

from __future__ import annotations

import numpy as np
import torch

from datamodules.synthesis.scenes import sample_background
from experiments.commands.sheet import portrait, studio_light
from renderers.face_models.base import MorphableModel
from renderers.face_models.sampling import sample_shape_coefficients
from renderers.face_renderer import FaceRenderer

SIZE = 224


@torch.no_grad()
def turned_head(face_model: MorphableModel, seed: int, yaw: float) -> tuple[np.ndarray, np.ndarray]:
    """(S, S, 3) uint8, one random person at that yaw in degrees, and the (68, 2) exact landmarks in its pixels."""
    generator = np.random.default_rng([7, seed])
    person = sample_shape_coefficients(face_model, 1, generator)
    coefficients = portrait(face_model, person, np.radians([[0.0, yaw, 0.0]]), studio_light(generator)[None])
    coefficients.translation[:, 2] -= 1.0
    rendering = FaceRenderer(face_model, SIZE)(coefficients)
    behind = torch.as_tensor(sample_background(SIZE, generator))
    picture = torch.where(rendering.mask[0], rendering.image[0].clamp(0, 1), behind)
    return (picture.permute(1, 2, 0) * 255).round().byte().numpy(), rendering.landmarks[0].double().numpy()
