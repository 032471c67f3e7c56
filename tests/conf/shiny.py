"""Small face models with a specular albedo."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from renderers.face_models.linear import LinearModel
from tests.conf.scenes import small_face_model


def rebuilt(model: LinearModel, **changes: Any) -> LinearModel:
    """The same face model but for some of its constructor's arguments."""
    content: dict[str, Any] = {
        "name": "shiny",
        "mean_shape": model.mean_shape.numpy(),
        "identity_basis": model.identity_basis.numpy(),
        "expression_basis": model.expression_basis.numpy(),
        "mean_albedo": model.mean_albedo.numpy(),
        "albedo_basis": model.albedo_basis.numpy(),
        "faces": model.faces.numpy(),
        "landmark_indices": model.landmark_indices.numpy(),
        "uv": model.uv.numpy(),
        "regions": {name: indices.numpy() for name, indices in model.regions.items()},
    }
    return LinearModel(**{**content, **changes})


@cache
def small_shiny_model(seed: int = 0) -> LinearModel:
    """`small_face_model` with a specular albedo of about 0.3."""
    model, generator = small_face_model(), np.random.default_rng(seed)
    mean = generator.uniform(0.2, 0.4, size=(model.vertex_count, 3))
    basis = generator.normal(0, 0.01, size=(model.vertex_count, 3, model.albedo_size))
    return rebuilt(model, mean_specular=mean, specular_basis=basis)
