"""Faces found in one picture of a person, drawn as another picture of that person shows them."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from datamodules.batch import FaceBatch, MultiViewBatch, Truth
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.uv.detail import DetailedFaceRendering, add_detail


@torch.no_grad()
def in_held_out_views(
    batch: FaceBatch,
    layout: CoefficientLayout,
    renderer: FaceRenderer,
    coefficients: Coefficients,
    fine: DetailedFaceRendering,
) -> tuple[FaceBatch, Rendering, DetailedFaceRendering] | None:
    """Draw each face in the true pose and the true light of another picture, from which nothing was taken.

    A photograph pasted on a face is no gain there: its shadows fall wrong in another light, and its errors of shape
    turn with the head. Pose and light are given, so that only shape, albedo and relief are judged.

    Args:
        batch: B pictures, groups of views of a person. The target of a group is drawn as every source, and the reverse.
        layout: of the true coefficients.
        renderer: of the coarse faces.
        coefficients: of the B coarse faces.
        fine: the B fine faces.

    Returns:
        The P held-out pictures, and the coarse and the fine faces in them; None if the batch has no two views of a
        person, or no truth.
    """
    target, source = batch.pairs() if isinstance(batch, MultiViewBatch) else (torch.empty(0), torch.empty(0))
    if batch.truth is None or not len(target):
        return None
    found, shown = torch.cat([target, source]), torch.cat([source, target])
    truth = Truth(**{field.name: _rows(getattr(batch.truth, field.name), shown) for field in fields(Truth)})
    pictures = FaceBatch(
        batch.image[shown], batch.landmarks[shown], batch.skin[shown], batch.intrinsics[shown], truth
    )
    true, own = layout.split(truth.coefficients), layout.split(layout.join(coefficients)[found])
    posed = replace(own, angles=true.angles, translation=true.translation, illumination=true.illumination)
    coarse = renderer(posed, pictures.intrinsics)
    detail = fine.albedo_map[found], _rows(fine.displacement, found)
    return pictures, coarse, add_detail(coarse, fine.chart, posed.illumination, *detail)


def _rows(values: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
    return None if values is None else values[rows]
