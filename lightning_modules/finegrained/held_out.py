"""Faces found in one picture of a person, drawn as another picture of that person shows them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import FaceBatch, MultiViewBatch, Truth
from losses.metrics.similarity import umeyama
from renderers.camera import CAMERA_DISTANCE, euler_to_rotation, rotation_to_euler
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.uv.detail import DetailedFaceRendering, add_detail


@torch.no_grad()
def in_held_out_views(
    batch: FaceBatch, renderer: FaceRenderer, coefficients: Coefficients, fine: DetailedFaceRendering
) -> tuple[FaceBatch, Rendering, DetailedFaceRendering] | None:
    """Draw each face in the true pose and the true light of another picture, from which nothing was taken.

    A photograph pasted on a face is no gain there: its shadows fall wrong in another light, and its errors of shape
    turn with the head. Pose and light are given, so that only shape, albedo and relief are judged.

    Args:
        batch: B pictures, groups of views of a person. The target of a group is drawn as every source, and the reverse.
        renderer: of the coarse faces.
        coefficients: of the B coarse faces.
        fine: the B fine faces.

    Returns:
        The P held-out pictures, and the coarse and the fine faces in them; None if the batch has no two views of a
        person, or no truth.
    """
    if batch.truth is None or not isinstance(batch, MultiViewBatch) or not len(batch.pairs()[0]):
        return None
    target, source = batch.pairs()
    found, shown = torch.cat([target, source]), torch.cat([source, target])
    rows: dict[str, Any] = {field.name: _rows(getattr(batch.truth, field.name), shown) for field in fields(Truth)}
    truth = Truth(**rows)
    pictures = FaceBatch(batch.image[shown], batch.landmarks[shown], batch.skin[shown], batch.intrinsics[shown], truth)
    layout = renderer.face_model.layout()
    own = layout.split(layout.join(coefficients)[found])
    posed = in_true_place(renderer.face_model, own, layout.split(truth.coefficients))
    coarse = renderer(posed, pictures.intrinsics)
    detail = fine.albedo_map[found], _rows(fine.displacement, found)
    return pictures, coarse, add_detail(coarse, fine.chart, posed.illumination, *detail)


def in_true_place(face_model: MorphableModel, found: Coefficients, true: Coefficients) -> Coefficients:
    """Found faces in true light, where they lie on the true faces best: by the similarity of least squares.

    One picture shows neither the size of a face nor its frame. A face that is drawn too large would have all its
    details beside those of the picture. The similarity's scale s becomes a part of the translation: a shape s times as
    large, s times as far from the camera, gives the same picture.

    Args:
        face_model: of the faces.
        found: of P faces, with their shape and albedo.
        true: of P faces, with their shape, pose and light.
    """
    shapes = [face_model.shape(face.identity, face.expression) for face in (found, true)]
    pairs = zip(*(shape.double().cpu().numpy() for shape in shapes), strict=True)
    fits = [umeyama(own, wanted) for own, wanted in pairs]

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(fit, name) for fit in fits])).to(true.translation)

    rotation, camera = euler_to_rotation(true.angles), true.translation.new_tensor([0, 0, CAMERA_DISTANCE])
    moved = (rotation @ stacked("translation")[..., None])[..., 0] + true.translation
    return replace(
        found,
        angles=rotation_to_euler(rotation @ stacked("rotation")),
        translation=camera + (moved - camera) / stacked("scale")[:, None],
        illumination=true.illumination,
    )


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]
