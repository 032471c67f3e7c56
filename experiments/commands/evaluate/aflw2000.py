"""AFLW2000-3D: 68 landmarks by yaw (MGCNet, table 1a), and the inner mouth's (Specular, table 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from datamodules.datasets.aflw2000 import AFLWAnnotation, read_annotation, read_records
from datamodules.preparation.photo_file import read_photo
from experiments.commands.evaluate.pictures import cumulative_curve, extremes
from experiments.commands.evaluate.predictions import Crop, Predictor, ready
from experiments.commands.evaluate.published import Figure, benchmark_table
from experiments.commands.evaluate.results import Evaluation, Request
from experiments.commands.evaluate.scan_benchmark import overlay_panels, tell_left_out
from experiments.commands.reconstruct.results import progress_bar
from lightning_modules.base import FaceModule
from losses.metrics import YawBinnedNME, inner_mouth_error, landmark_nme
from losses.metrics.landmark import YAW_BINS, yaw_bin
from losses.metrics.similarity import umeyama
from renderers.io.errors import UserError, reason
from renderers.landmarks68 import LANDMARKS

BALANCED = "mean of the bins"
CAPTION = (
    "NME in percent: mean distance of the 68 points over the root of the area of the true points' box, by the true "
    "yaw. The mean weighs the three bins alike. Inner mouth in mm: mean distance of its eight points in 3D, after the "
    "similarity that takes all 68 annotated points to ours. Faces are cropped by the annotated landmarks."
)


def evaluate(module: FaceModule, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Measure `module` on every annotated photograph; see `experiments.commands.evaluate.command.Suite`."""
    predictor = Predictor(ready(module))
    sets: dict[str, dict[str, list[float]]] = {name: {"nme": [], "inner_mouth_mm": []} for name in YAW_BINS}
    names: dict[str, list[str]] = {name: [] for name in YAW_BINS}
    left_out: dict[str, str] = {}
    metric = YawBinnedNME()
    for path, annotation, crop in _faces(predictor, request, left_out):
        rendering = predictor.draw(crop.image[None])
        points = crop.alignment.to_photo(rendering.landmarks[0].cpu().double().numpy())
        predicted, true = (torch.from_numpy(array)[None] for array in (points, annotation.landmarks[:, :2]))
        yaw = torch.tensor([annotation.pose[1]])
        metric.update(predicted, true, yaw)
        name = YAW_BINS[int(yaw_bin(yaw))]
        names[name].append(path.stem)
        sets[name]["nme"].append(float(landmark_nme(predicted, true)))
        corners = rendering.vertices[0, module.face_model.landmark_indices].cpu().double()
        sets[name]["inner_mouth_mm"].append(mouth_error(corners, annotation.landmarks))
    tell_left_out(left_out, tell)
    sets = {name: metrics for name, metrics in sets.items() if metrics["nme"]}
    if not sets:
        raise UserError(f"nothing could be measured: {next(iter(left_out.values()), 'there are no photographs')}")
    return Evaluation(
        "annotations",
        sets,
        _panels(predictor, request, sets, names),
        {name: names[name] for name in sets},
        {BALANCED: {"nme": float(metric.compute()[-1])}},
        [cumulative_curve(name, "NME of a face, %", metrics["nme"]) for name, metrics in sets.items()],
        left_out,
    )


def mouth_error(predicted: Tensor, annotated: np.ndarray) -> float:
    """Mean distance of the inner mouth's points in millimetres, at the prediction's size.

    Args:
        predicted: (68, 3) posed, decimetres.
        annotated: (68, 3) pixels with y downwards and z towards the viewer.
    """
    upright = annotated * [1.0, -1.0, 1.0]
    placed = umeyama(upright, predicted.numpy()).apply(upright)
    return float(inner_mouth_error(predicted[None], torch.from_numpy(placed)[None], torch.arange(LANDMARKS)))


def _faces(
    predictor: Predictor, request: Request, left_out: dict[str, str]
) -> Iterator[tuple[Path, AFLWAnnotation, Crop]]:
    """Every readable photograph, with a progress bar. Others are noted in `left_out`."""
    if request.data is None:
        raise UserError("this suite needs --data DIR, the data set's folder as its owner distributes it")
    paths = [request.data / record.name for record in read_records(request.data)][: request.subjects]
    with progress_bar(len(paths)) as (bar, task):
        for path in paths:
            bar.update(task, description=path.name)
            try:
                face = _face(predictor, path)
            except Exception as error:
                left_out[path.stem] = reason(error)
            else:
                yield path, *face
            bar.advance(task)


def _face(predictor: Predictor, path: Path) -> tuple[AFLWAnnotation, Crop]:
    annotation = read_annotation(path.with_suffix(".mat"))
    if not (np.ptp(annotation.landmarks[:, :2], axis=0) > 0).all():
        raise UserError(f"{path.with_suffix('.mat')}: its landmarks span no area")
    return annotation, predictor.crop(read_photo(path), annotation.landmarks[:, :2])


def _panels(
    predictor: Predictor, request: Request, sets: dict[str, dict[str, list[float]]], names: dict[str, list[str]]
) -> dict[str, Tensor]:
    assert request.data is not None
    errors = [error for metrics in sets.values() for error in metrics["nme"]]
    stems = [stem for name in sets for stem in names[name]]
    paths = {Path(record.name).stem: request.data / record.name for record in read_records(request.data)}
    chosen = [(f"{kind} {errors[row]:.2f} %", paths[stems[row]]) for kind, row in extremes(errors).items()]
    return overlay_panels(predictor, [(text, _face(predictor, path)[1]) for text, path in chosen])


def table(evaluation: Evaluation) -> Table:
    """See `experiments.commands.evaluate.command.Suite`."""
    ours: dict[str, Figure] = {name: (metrics["nme"]["mean"],) for name, metrics in evaluation.summary().items()}
    ours["mean"] = (evaluation.pooled[BALANCED]["nme"],)
    mouth = np.array([error for metrics in evaluation.sets.values() for error in metrics["inner_mouth_mm"]])
    ours["inner mouth"] = (float(mouth.mean()), float(mouth.std()))
    title = f"AFLW2000-3D, {len(mouth)} photographs"
    return benchmark_table(title, CAPTION, {"ours": ours}, ("aflw2000", "aflw2000 mouth"))
