"""A face model of one person, and of a part of the face: what solving many frames of one person needs, and no more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderers.face_models.linear import LinearModel


@torch.no_grad()
def of_person(face_model: LinearModel, identity: Tensor, albedo: Tensor) -> LinearModel:
    """The face model of somebody whose shape and colours are known: its expressions are all that is left to vary.

    Args:
        face_model: of everybody.
        identity: (I,).
        albedo: (A,).
    """
    arrays = face_model.arrays()
    still = torch.zeros(1, face_model.expression_size).to(identity)
    arrays["mean_shape"] = face_model.shape(identity[None], still)[0].cpu().numpy()
    arrays["mean_albedo"] = face_model.albedo(albedo[None])[0].cpu().numpy()
    return _model(face_model, arrays, {name: rows.numpy() for name, rows in face_model.regions.items()})


def part_of(face_model: LinearModel, vertices: np.ndarray) -> LinearModel:
    """The triangles whose corners are all among some vertices; its landmarks are meaningless.

    Args:
        face_model: of a person, see `of_person`.
        vertices: rows of its vertices, ascending.
    """
    place = np.full(face_model.vertex_count, -1)
    place[vertices] = np.arange(len(vertices))
    arrays = face_model.arrays()
    for name in ("mean_shape", "expression_basis", "mean_albedo", "uv"):
        arrays[name] = arrays[name][vertices]
    faces = place[arrays["faces"]]
    arrays["faces"] = faces[(faces >= 0).all(axis=1)]
    arrays["landmark_indices"] = np.zeros_like(arrays["landmark_indices"])
    regions = {name: place[rows.numpy()] for name, rows in face_model.regions.items()}
    return _model(face_model, arrays, {name: rows[rows >= 0] for name, rows in regions.items()})


def _model(face_model: LinearModel, arrays: dict[str, np.ndarray], regions: dict[str, np.ndarray]) -> LinearModel:
    count = len(arrays["mean_shape"])
    return LinearModel(
        name=face_model.name,
        mean_shape=arrays["mean_shape"],
        identity_basis=np.zeros((count, 3, 0), np.float32),
        expression_basis=arrays["expression_basis"],
        mean_albedo=arrays["mean_albedo"],
        albedo_basis=np.zeros((count, 3, 0), np.float32),
        faces=arrays["faces"],
        landmark_indices=arrays["landmark_indices"],
        uv=arrays["uv"],
        regions=regions,
        expression_names=face_model.expression_names,
    )
