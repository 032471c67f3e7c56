"""Hundreds of points of a face, where exact coefficients say where they are."""

from __future__ import annotations

from torch import Tensor

from datamodules.batch import FaceBatch
from renderers.camera import euler_to_rotation, project, transform
from renderers.face_models.base import MorphableModel


def dense_landmarks(face_model: MorphableModel, batch: FaceBatch, vertices: Tensor) -> Tensor:
    """Where vertices lie in synthetic pictures.

    Args:
        face_model: that drew them.
        batch: of B pictures, with their truth.
        vertices: (N,) of the face model; the default's are those of `load_dense_landmarks`.

    Returns:
        (B, N, 2) pixels.
    """
    assert batch.truth is not None
    true = face_model.layout().split(batch.truth.coefficients)
    shape = face_model.shape(true.identity, true.expression)[:, vertices]
    posed = transform(shape, euler_to_rotation(true.angles), true.translation)
    return project(posed, batch.intrinsics)[..., :2]
