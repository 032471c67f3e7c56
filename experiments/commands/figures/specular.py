"""Specular's figure: diffuse and specular light apart, and the mask that keeps highlights out of the skin (3 to 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch

from datamodules.batch import MultiViewBatch
from datamodules.preparation.skin_classifier import SkinClassifier
from experiments.commands.figures.people import Picture, Request, enlarged, lines, on_picture, per_face, targets
from experiments.commands.figures.sheet import Sheet, draw_sheet
from lightning_modules.base import FaceModule
from lightning_modules.specular import Specular
from losses.metrics import MaskedPSNR, SpecularCorrelation
from losses.photometric import saturate_skin
from renderers.color import decode
from renderers.specular_renderer import SpecularRendering

MODULE = Specular
PRIOR = 0.5  # share of skin among a face's pixels, as in training
HIGHLIGHT = 0.35  # display value from which a true highlight counts as one


def figures(request: Request) -> Iterator[Picture]:
    """`highlights`."""
    yield "highlights", draw_sheet(highlights_sheet(request.module, targets(request.batch()), request.first))


def highlights_sheet(module: FaceModule, batch: MultiViewBatch, first: int = 0) -> Sheet:
    """The picture, the answer, its two lights and the mask of equation (9), each beside the truth.

    The mask is white where the diffuse render is compared with the picture: on skin without highlights. The true one is
    white on the face's skin outside true highlights.

    Args:
        module: of the specular paper.
        batch: of shiny faces.
        first: the number of the first person.
    """
    truth = batch.truth
    assert truth is not None and truth.diffuse is not None and truth.specular is not None
    rendering = cast(SpecularRendering, module.reconstruct(batch.image, batch.skin, batch.intrinsics).rendering)
    large, face = enlarged(rendering), truth.depth > 0
    weights = saturate_skin(SkinClassifier.load(None).probability(batch.image, PRIOR)) * batch.skin * rendering.mask
    dull = face & (batch.skin > 0.5) & (truth.specular.mean(dim=1, keepdim=True) < HIGHLIGHT)
    columns = {
        "picture": batch.image,
        "answer": on_picture(large, batch.image),
        "diffuse": large.diffuse.clamp(0, 1),
        "true diffuse": torch.where(face, truth.diffuse, 0.0),
        "specular": large.specular.clamp(0, 1),
        "true specular": truth.specular,
        "mask": weights.expand(-1, 3, -1, -1),
        "true mask": dull.float().expand(-1, 3, -1, -1),
    }
    shared = face & rendering.mask
    alike = per_face(SpecularCorrelation, decode(rendering.specular), decode(truth.specular), shared)
    notes = {
        "answer": lines("{:.1f} dB", per_face(MaskedPSNR, rendering.image, batch.image, shared)),
        "diffuse": lines("{:.1f} dB", per_face(MaskedPSNR, rendering.diffuse, truth.diffuse, shared)),
        "specular": lines("correlation {:.2f}", alike),
    }
    return Sheet("highlights", columns, [f"person {first + row}" for row in range(len(batch))], notes)
