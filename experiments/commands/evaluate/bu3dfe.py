"""BU-3DFE: each scan against the face of its frontal photograph (MGCNet, table 2b)."""

from __future__ import annotations

from functools import partial

from datamodules.datasets.bu3dfe import read_subjects
from experiments.commands.evaluate.scan_benchmark import ScanBenchmark
from losses.metrics.scan import ScanRule, prediction_errors

RULE = ScanRule("point", scale=True)
BENCHMARK = ScanBenchmark(
    title="BU-3DFE",
    caption="RMSE of the distances from the predicted skin's vertices to the nearest points of the scan's "
    "triangles, over the scans; aligned by landmarks, then by ICP with isotropic scale. The papers align and measure "
    "by a dense map between BFM and the scans, which is not public. Theirs are distances to corresponding points, "
    "which are never shorter.",
    tables=("bu3dfe",),
    rows={"ours": "rmse_mm"},
    read_subjects=read_subjects,
    measure=partial(prediction_errors, rule=RULE),
    neutral=False,
    headline="rmse_mm",
    column="RMSE",
)
evaluate, table = BENCHMARK.evaluate, BENCHMARK.table
