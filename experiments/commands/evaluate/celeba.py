"""Likeness of photographs: PSNR, SSIM, RMSE and identity (Finegrained, tables 1 to 3; Self-augmentation, table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from datamodules.batch import MultiViewBatch
from datamodules.collate import collate_faces
from datamodules.photo_folder import PreparedFaces
from datamodules.preparation.prepared_folder import prepared_index
from datamodules.preparation.splits import split_prepared
from experiments.commands.evaluate.pictures import cumulative_curve, extremes, labelled
from experiments.commands.evaluate.predictions import ready
from experiments.commands.evaluate.published import benchmark_table
from experiments.commands.evaluate.results import Evaluation, Request
from experiments.commands.reconstruct.results import progress_bar
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import face_panels
from losses.metrics import MaskedPSNR, MaskedRMSE, MaskedSSIM
from renderers.face_renderer import Rendering
from renderers.io.errors import UserError

VAL_FRACTION = 0.1  # the default of `PhotoFolder`, for folders without a split
COLUMNS = {"PSNR": "psnr", "SSIM": "ssim", "RMSE": "rmse", "identity": "identity_similarity"}
CAPTION = (
    "PSNR in dB, SSIM, RMSE of 8-bit colours over the drawn face; cosine of identity features between photograph and "
    "drawing, by the checkpoint's own encoder. Ours: mean ± deviation over the test photographs. The papers crop, mask "
    "and encode differently (identity: FaceNet's, or that of the named network), so only the order of methods can be "
    "compared. Fine-grained's tables are of CelebA, LS3D-W and LFW. Self-augmentation's are of "
    "pictures with a part hidden, against the same without: 1a CelebA, 1b AFLW2000."
)


def evaluate(module: FaceModule, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Measure `module` on the test photographs of a prepared folder; see `command.Suite`."""
    if request.data is None:
        raise UserError("this suite needs --data DIR, photographs prepared by `python -m experiments prepare`")
    ready(module)
    faces = _test_faces(module, request)
    sets: dict[str, dict[str, list[float]]] = {}
    names = [faces.names[row] for row in range(len(faces))]
    with progress_bar(len(faces)) as (bar, task):
        bar.update(task, description="evaluating")
        for batch in _batches(faces, request.batch_size):
            batch = batch.to(module.device)
            rendering, pictures = draw_stages(module, batch)
            for stage, picture in pictures.items():
                for metric, values in likeness(module, batch, rendering, picture).items():
                    sets.setdefault(stage, {}).setdefault(metric, []).extend(values)
            bar.advance(task, len(batch))
    shown = list(sets)[-1]
    curves = [cumulative_curve(stage, "RMSE of a face, of 255", metrics["rmse"]) for stage, metrics in sets.items()]
    panels = _panels(module, faces, sets[shown]["rmse"])
    return Evaluation("photographs", sets, panels, dict.fromkeys(sets, names), curves=curves)


def _test_faces(module: FaceModule, request: Request) -> PreparedFaces:
    """The photographs of the data set's test part, or of that which the data module keeps for tests.

    Raises:
        UserError: no prepared folder, or one without a face to test on.
    """
    assert request.data is not None
    index = prepared_index(request.data)
    chosen = split_prepared(index, VAL_FRACTION)["test"]
    faces = [face for source, face in index.faces() if source in chosen][: request.subjects]
    if not faces:
        raise UserError(f"{request.data} keeps no photographs for testing: prepare the data set's test part")
    return PreparedFaces(request.data, faces, index.size, module.image_size)


def _batches(faces: PreparedFaces, size: int) -> Iterator[MultiViewBatch]:
    for start in range(0, len(faces), size):
        yield collate_faces([faces[row] for row in range(start, min(start + size, len(faces)))])


def draw_stages(module: FaceModule, batch: MultiViewBatch) -> tuple[Rendering, dict[str, Tensor]]:
    """The coarse faces, and stage -> (B, 3, H, W) the faces that each stage draws, over the same pixels."""
    found = module.reconstruct(batch.image, batch.skin, batch.intrinsics)
    if found.coarse is None:
        return found.rendering, {"coarse": found.rendering.image}
    return found.coarse, {"coarse": found.coarse.image, "fine": found.rendering.image}


@torch.no_grad()
def likeness(
    module: FaceModule, batch: MultiViewBatch, rendering: Rendering, picture: Tensor
) -> dict[str, list[float]]:
    """Metric -> one value for each of B faces.

    Args:
        module: its identity encoder compares the faces.
        batch: photographs.
        rendering: the coarse faces, whose pixels count.
        picture: (B, 3, H, W) the drawn faces, which are compared with the photographs.
    """
    metrics = {"psnr": MaskedPSNR(), "ssim": MaskedSSIM(), "rmse": MaskedRMSE()}
    values: dict[str, list[float]] = {name: [] for name in metrics}
    for row in range(len(batch)):
        one = slice(row, row + 1)
        for name, metric in metrics.items():
            metric = metric.to(picture.device)
            values[name].append(float(metric(picture[one], batch.image[one], rendering.mask[one])))
    rendered_features = module.identity_encoder(picture.clamp(0, 1), rendering.landmarks)
    target_features = module.identity_encoder(batch.image, batch.landmarks)
    return values | {"identity_similarity": F.cosine_similarity(rendered_features, target_features, dim=-1).tolist()}


def _panels(module: FaceModule, faces: PreparedFaces, errors: list[float]) -> dict[str, Tensor]:
    """The worst, the middle and the best face of the last stage, as each stage draws it."""
    rows = extremes(errors)
    batch = collate_faces([faces[row] for row in rows.values()]).to(module.device)
    rendering, pictures = draw_stages(module, batch)
    shown = face_panels(batch.image, rendering)
    columns = {"input": shown["input"]}
    columns |= {
        stage: torch.where(rendering.mask, picture.clamp(0, 1), batch.image) for stage, picture in pictures.items()
    }
    columns["shape"] = shown["shape"]
    texts = [f"{kind} RMSE {errors[row]:.1f}" for kind, row in rows.items()]
    return {
        name: torch.stack(
            [labelled(picture, text if name == "input" else "") for picture, text in zip(column, texts, strict=True)]
        )
        for name, column in columns.items()
    }


def table(evaluation: Evaluation) -> Table:
    """See `experiments.commands.evaluate.command.Suite`."""
    ours = {
        "ours" if len(evaluation.sets) == 1 else f"ours, {stage}": {
            column: (metrics[metric]["mean"], metrics[metric]["std"]) for column, metric in COLUMNS.items()
        }
        for stage, metrics in evaluation.summary().items()
    }
    return benchmark_table(f"Likeness of {evaluation.subjects} photographs", CAPTION, ours, ("celeba",))
