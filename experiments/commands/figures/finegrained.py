"""Fine-grained's figures 6 to 12: coarse and fine faces, their normals, and both in the light of another picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batch import FaceBatch, MultiViewBatch
from experiments.commands.figures.people import Picture, Request, enlarged, lines, on_picture, per_face
from experiments.commands.figures.sheet import Sheet, draw_sheet
from lightning_modules.finegrained import Finegrained
from lightning_modules.finegrained.held_out import in_held_out_views
from lightning_modules.finegrained.module import normal_picture
from losses.metrics import MaskedPSNR, NormalAngularError
from renderers.face_renderer import Rendering
from renderers.uv.chart import unit

MODULE = Finegrained


def figures(request: Request) -> Iterator[Picture]:
    """`detail` and `relit`."""
    module, batch = request.module, request.batch()
    assert isinstance(module, Finegrained)
    with torch.no_grad():
        first, second = sheets(module, batch)
    labels = [f"person {request.first + row}" for row in range(first.count)]
    yield "detail", draw_sheet(replace(first, rows=labels))
    yield "relit", draw_sheet(replace(second, rows=labels))


def sheets(module: Finegrained, batch: MultiViewBatch) -> tuple[Sheet, Sheet]:
    """Each person's face in the picture that it was found in, and in another picture, from which nothing was taken.

    Args:
        module: of the fine-grained paper.
        batch: of two views of each person.
    """
    coefficients = module.eval()(batch.image)
    coarse = module.renderer(coefficients, batch.intrinsics)
    fine = module.refine(batch.image, batch.skin, coefficients, coarse).rendering
    target, _ = batch.pairs()
    elsewhere = in_held_out_views(batch, module.renderer, coefficients, fine)
    assert elsewhere is not None
    pictures, coarse_there, fine_there = elsewhere
    first = torch.arange(len(target))  # of the held-out pictures, whose other half shows the sources' faces
    here = {"picture": batch.image[target]}
    there = {"found in": batch.image[target], "held-out picture": pictures.image[first]}
    return (
        _sheet("detail", batch, coarse, fine, target, here),
        _sheet("relit", pictures, coarse_there, fine_there, first, there),
    )


def _sheet(
    name: str, pictures: FaceBatch, coarse: Rendering, fine: Rendering, rows: Tensor, before: dict[str, Tensor]
) -> Sheet:
    """After what stands before: the faces over some rows of the pictures, and their normals beside the true ones."""
    truth = pictures.truth
    assert truth is not None and truth.normals is not None
    large = [enlarged(rendering) for rendering in (coarse, fine)]
    face = truth.depth > 0
    columns = {
        "coarse": on_picture(large[0], pictures.image),
        "fine": on_picture(large[1], pictures.image),
        "coarse normals": normal_picture(unit(large[0].normals), large[0].mask),
        "fine normals": normal_picture(large[1].normals, large[1].mask),
        "true normals": normal_picture(truth.normals, face),
    }
    notes = {}
    for heading, rendering in (("coarse", coarse), ("fine", fine)):
        near = per_face(MaskedPSNR, rendering.image, pictures.image, face & coarse.mask)
        off = per_face(NormalAngularError, rendering.normals, truth.normals)
        notes[heading] = lines("{:.1f} dB", near[rows])
        notes[f"{heading} normals"] = lines("{:.1f}\N{DEGREE SIGN} off", off[rows])
    return Sheet(name, before | {heading: panels[rows] for heading, panels in columns.items()}, notes=notes)
