"""FRGC v2: each range image against the face of the photograph taken with it (MGCNet, table 2a)."""

from __future__ import annotations

from functools import partial

from datamodules.datasets.frgc import read_subjects
from experiments.commands.evaluate.scan_benchmark import ScanBenchmark
from losses.metrics.scan import ScanRule, prediction_errors

RULE = ScanRule("point", scale=True, radius=95.0)
BENCHMARK = ScanBenchmark(
    title="FRGC v2",
    caption="Mean distance from the predicted skin's vertices to the nearest points of the scan's triangles, "
    "over the scans. The scan is cut to 95 mm round its nose tip; aligned by landmarks, then by ICP with isotropic "
    "scale. The paper does not mention a scale. It draws 1,335 of 4,007 scans at random and does not say which.",
    tables=("frgc",),
    rows={"ours": "mean_mm"},
    read_subjects=read_subjects,
    measure=partial(prediction_errors, rule=RULE),
    neutral=False,
    headline="mean_mm",
    column="MAE",
)
evaluate, table = BENCHMARK.evaluate, BENCHMARK.table
