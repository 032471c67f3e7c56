"""Self-augmentation's figures: the refiners' textures, and faces whose hidden part is recovered (figures 5 to 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from datamodules.batch import MultiViewBatch
from experiments.commands.figures.people import (
    LARGE,
    Picture,
    Request,
    enlarged,
    lines,
    on_picture,
    on_white,
    per_face,
    targets,
    true_faces,
)
from experiments.commands.figures.sheet import Sheet, draw_sheet, fitted
from lightning_modules.self_augmentation import SelfAugmentation
from losses.metrics import MaskedPSNR, texture_rmse

MODULE = SelfAugmentation


def figures(request: Request) -> Iterator[Picture]:
    """`textures` and `hidden`."""
    module, batch = request.module, targets(request.batch())
    assert isinstance(module, SelfAugmentation)
    labels = [f"person {request.first + row}" for row in range(len(batch))]
    with torch.no_grad():
        yield "textures", draw_sheet(replace(textures_sheet(module, batch), rows=labels))
        yield "hidden", draw_sheet(replace(hidden_sheet(module, batch), rows=labels))


def textures_sheet(module: SelfAugmentation, batch: MultiViewBatch) -> Sheet:
    """The colours, without light, of the coarse model, of each refiner alone and of both, beside the true ones."""
    faces = module.eval().reconstruction(batch.image, batch.intrinsics)
    coarse = faces.coarse.vertex_albedo
    code, _ = module.codes(batch.image, faces.coarse.landmarks)
    by_mesh, by_features = module.fine_model.corrections(coarse, code)
    textures = {
        "coarse": coarse,
        "mesh-wise refiner": coarse + by_mesh,
        "decoder": coarse + by_features,
        "final texture": faces.fine.vertex_albedo,
    }
    large, true = enlarged(faces.coarse), true_faces(module.face_model, batch)
    columns = {"picture": batch.image}
    columns |= {heading: on_white(large.draw(colors), large) for heading, colors in textures.items()}
    columns["truth"] = on_white(true.albedo, true)
    off = {name: texture_rmse(colors, true.vertex_albedo) for name, colors in textures.items()}
    return Sheet("textures", columns, notes={name: lines("{:.3f} off", values) for name, values in off.items()})


def hidden_sheet(module: SelfAugmentation, batch: MultiViewBatch) -> Sheet:
    """Pictures with a part hidden, the answers to them, and the hidden part filled in from the fine face."""
    occluded, hidden = module.eval().occluded(batch, 0)
    faces = module.reconstruction(occluded, batch.intrinsics)
    coarse, fine = enlarged(faces.coarse), enlarged(faces.fine)
    hole = torch.nn.functional.interpolate(hidden.float(), size=(LARGE, LARGE)) > 0.5
    columns = {
        "picture": batch.image,
        "part hidden": occluded,
        "coarse answer": on_picture(coarse, occluded),
        "final answer": on_picture(fine, occluded),
        "hidden part recovered": torch.where(hole, on_picture(fine, occluded), fitted(occluded, LARGE)),
    }
    assert batch.truth is not None
    part = hidden & (batch.truth.depth > 0) & faces.fine.mask
    found = {"coarse answer": faces.coarse.image, "final answer": faces.fine.image}
    near = {name: per_face(MaskedPSNR, image, batch.image, part) for name, image in found.items()}
    return Sheet(
        "hidden", columns, notes={name: lines("hidden part {:.1f} dB", values) for name, values in near.items()}
    )
