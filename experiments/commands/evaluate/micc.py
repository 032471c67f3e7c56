"""MICC Florence: a neutral scan against the mean face of each video (MGCNet, table 1b; Specular, table 3)."""

from __future__ import annotations

from functools import partial

from datamodules.datasets.micc import read_subjects
from experiments.commands.evaluate.scan_benchmark import ScanBenchmark
from losses.metrics.scan import ScanRule, prediction_errors

RULE = ScanRule("plane", scale=True, radius=95.0)
BENCHMARK = ScanBenchmark(
    title="MICC Florence",
    caption="Distances from the predicted skin's vertices to the planes of the scan's nearest triangles, over the "
    "subjects: compare RMSE with MGCNet's rows, the mean distance with Specular's. The shapes of a clip's frames are "
    "averaged without expression; the scan is cut to 95 mm round its nose tip; aligned by landmarks, then by ICP with "
    "a scale for each mesh. The papers cut scans and choose frames by hand: there is no common protocol.",
    tables=("micc", "micc mean"),
    rows={"ours, RMSE": "rmse_mm", "ours, mean": "mean_mm"},
    read_subjects=read_subjects,
    measure=partial(prediction_errors, rule=RULE),
    neutral=True,
    headline="rmse_mm",
)
evaluate, table = BENCHMARK.evaluate, BENCHMARK.table
