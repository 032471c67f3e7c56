"""Dense landmarks lie where the renderer puts their vertices."""

from __future__ import annotations

import torch

from lightning_modules.dense_face.targets import DensePoints
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer
from tests.conf.scenes import exact_batch, small_face_model


def test_points_are_the_drawn_vertices_and_the_68_among_them() -> None:
    model = small_face_model()
    batch, coefficients = exact_batch(model, 1, 32)
    chosen = torch.cat([model.landmark_indices, torch.arange(0, model.vertex_count, 7)])
    assert isinstance(model, LinearModel) and batch.truth is not None
    found = DensePoints(model, chosen)(model.layout().split(batch.truth.coefficients), batch.intrinsics)
    torch.testing.assert_close(found[:, :68], batch.landmarks, atol=1e-3, rtol=0)
    drawn = FaceRenderer(model, 32)(coefficients).vertices_image
    torch.testing.assert_close(found, drawn[:, chosen, :2], atol=1e-3, rtol=0)
