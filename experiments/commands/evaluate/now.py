"""The NoW challenge: scan to mesh, pooled over all vertices of all scans (Finegrained, table 4 and figure 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from datamodules.datasets.now import read_subjects
from experiments.commands.evaluate.pictures import CumulativeCurve
from experiments.commands.evaluate.predictions import Predictor, ready
from experiments.commands.evaluate.published import Figure, benchmark_table
from experiments.commands.evaluate.results import Evaluation, Request
from experiments.commands.evaluate.scan_benchmark import ALL, Measured, ScanBenchmark
from experiments.training.run_folder import write_text
from lightning_modules.base import FaceModule
from losses.metrics import PooledDistances
from losses.metrics.scan import NOW_LANDMARKS, PredictedFace, now_errors
from renderers.io.errors import reason

PREDICTIONS = "predictions"  # the folder to submit to the benchmark
CURVE_LIMIT, CURVE_STEP = 7.0, 10  # millimetres, and thousandths of one between the curve's points
BENCHMARK = ScanBenchmark(
    title="NoW",
    caption="Distances from the scan's vertices round the face to the predicted triangles, pooled over all "
    "photographs; aligned by seven landmarks, then by the rotation, shift and scale that minimise squared distances. "
    "Shapes are without expression, because the scans are neutral. The paper's rows and ours are of the validation "
    "set. The challenge's are of the test set, whose scans are not public.",
    tables=("now", "now test"),
    rows={},
    read_subjects=read_subjects,
    measure=now_errors,
    neutral=True,
    headline="median_mm",
    each_image=True,
)


def evaluate(module: FaceModule, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Predict, export, measure; see `experiments.commands.evaluate.command.Suite`.

    If there is a `request.output`, the predictions are written there in the benchmark's own layout.
    """
    predictor, measured = Predictor(ready(module)), Measured()
    pooled: dict[str, PooledDistances] = {}
    for group, name, face, scan in BENCHMARK.predictions(predictor, request, measured):
        if request.output is not None:
            export_prediction(face, request.output / PREDICTIONS / name)
        try:
            errors = now_errors(face, scan)
        except Exception as error:
            measured.left_out[name] = reason(error)
            continue
        measured.add(group, name, errors)
        for key in (ALL, group):
            pooled.setdefault(key, PooledDistances()).update(torch.from_numpy(errors.distances))
    figures = {
        key: {f"{metric}_mm": float(value) for metric, value in distances.compute().items()}
        for key, distances in pooled.items()
    }
    curves = [_curve(key, distances) for key, distances in pooled.items()]
    if request.output is not None and measured.images:
        tell(f"predictions in the benchmark's own layout: {request.output / PREDICTIONS}")
    return BENCHMARK.evaluation(predictor, measured, tell, figures, curves)


def _curve(name: str, distances: PooledDistances) -> CumulativeCurve:
    values, share = (tensor.numpy()[::CURVE_STEP] for tensor in distances.cumulative(CURVE_LIMIT))
    return CumulativeCurve(name, "distance from scan to mesh, mm", values, share)


def export_prediction(face: PredictedFace, path: Path) -> None:
    """Write PATH.obj in millimetres and PATH.txt, 7 landmarks. The owner's loader refuses vertex colours."""
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in face.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in face.faces + 1]
    write_text(path.with_name(f"{path.name}.obj"), "\n".join(lines) + "\n")
    points = np.asarray(face.landmarks[list(NOW_LANDMARKS)])
    write_text(path.with_name(f"{path.name}.txt"), "".join(f"{x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in points))


def table(evaluation: Evaluation) -> Table:
    """See `experiments.commands.evaluate.command.Suite`."""
    ours: dict[str, Mapping[str, Figure]] = {
        "ours" if name == ALL else f"ours, {name}": {
            column: (figures[f"{column}_mm"],) for column in ("median", "mean", "std")
        }
        for name, figures in evaluation.pooled.items()
    }
    count = sum(evaluation.counts.values())
    return benchmark_table(f"NoW, {count} photographs, mm", BENCHMARK.caption, ours, BENCHMARK.tables)
