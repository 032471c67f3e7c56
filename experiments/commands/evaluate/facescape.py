"""FaceScape: each expression's registered mesh against the mean face of its first 40 views (Specular, table 4)."""

from __future__ import annotations

from functools import partial

from datamodules.datasets.facescape import read_subjects
from experiments.commands.evaluate.scan_benchmark import ScanBenchmark
from losses.metrics.scan import ScanRule, prediction_errors

VIEWS = 40
RULE = ScanRule("plane", scale=True)
BENCHMARK = ScanBenchmark(
    title="FaceScape",
    caption="Mean distance from the predicted skin's vertices to the mesh's nearest triangles' planes, over the "
    "subjects. The shapes of a subject's first 40 views are averaged with their expression; aligned by landmarks, then "
    "by ICP with isotropic scale. The paper takes 50 men and 50 women, but does not say whom.",
    tables=("facescape",),
    rows={"ours": "mean_mm"},
    read_subjects=read_subjects,
    measure=partial(prediction_errors, rule=RULE),
    neutral=False,
    headline="mean_mm",
    views=VIEWS,
)
evaluate, table = BENCHMARK.evaluate, BENCHMARK.table
