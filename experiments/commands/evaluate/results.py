"""The request to an evaluation suite, its results, and the files that they are written to."""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from experiments.commands.evaluate.pictures import CumulativeCurve, draw_curves
from experiments.training.run_folder import write_json, write_text
from renderers.io.atomic_file import written_atomically

SHOWN = 6  # subjects in the picture
EVERYONE = sys.maxsize  # for `Request.subjects`: no limit


@dataclass(frozen=True)
class Request:
    """The task of a suite.

    Attributes:
        checkpoint: file of the network; None if the suite measures no checkpoint.
        data: a folder of prepared photographs, or a benchmark's own; None means synthetic faces.
        subjects: number of faces at most.
        seed: of synthetic faces, and of corruptions.
        batch_size: faces at a time; no figure depends on it.
        output: folder for files to submit to a benchmark.
        fitted_truth: of synthetic faces, fit the truth to the clean pictures as if it were unknown.
    """

    checkpoint: Path | None
    data: Path | None
    subjects: int
    seed: int
    batch_size: int
    output: Path | None = None
    fitted_truth: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The results of a suite.

    Attributes:
        truth: kind of truth with which the network was compared.
        sets: set -> metric -> one value per subject.
        panels: name -> (at most `SHOWN`, 3, H, W) pictures, the columns of `evaluation.png`.
        names: set -> the subjects' names in the order of the values, if they have names.
        pooled: set -> metric -> one value for the whole set, if that is not a mean over subjects.
        curves: of `curve.png`.
        left_out: subject -> why it was not measured.
    """

    truth: Literal["exact", "fitted", "photographs", "annotations", "scans"]
    sets: Mapping[str, Mapping[str, list[float]]]
    panels: Mapping[str, Tensor]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pooled: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Sequence[CumulativeCurve] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of faces in each set."""
        return {name: len(next(iter(metrics.values()))) for name, metrics in self.sets.items()}

    @property
    def subjects(self) -> int:
        """The number of faces in the largest set."""
        return max(self.counts.values(), default=0)

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """set -> metric -> mean and standard deviation over the subjects; the latter is 0 for a single subject."""
        return {
            name: {
                metric: {
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else 0.0,
                }
                for metric, values in metrics.items()
            }
            for name, metrics in self.sets.items()
        }


def write_results(output: Path, suite: str, checkpoint: Path | None, evaluation: Evaluation) -> list[Path]:
    """Write the results, each file whole or not at all, and return the files' paths.

    There are `evaluation.json` and `evaluation.csv` (a line for each set and metric); `evaluation.png`, if there are
    pictures; `subjects.csv` (a line for each subject and metric), if subjects have names; and `curve.png`, if there are
    curves.
    """
    from experiments.training.callbacks import panel_grid

    summary = evaluation.summary()
    record: dict[str, Any] = {
        "suite": suite,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "truth": evaluation.truth,
        "subjects": evaluation.subjects,
        "sets": summary,
    }
    if len(set(evaluation.counts.values())) > 1:
        record["counts"] = evaluation.counts
    record |= {name: value for name in ("pooled", "left_out") if (value := getattr(evaluation, name))}
    paths = [output / f"evaluation.{kind}" for kind in ("json", "csv")]
    write_json(paths[0], record)
    write_text(paths[1], _csv(evaluation))
    if evaluation.names:
        paths.append(output / "subjects.csv")
        write_text(paths[-1], _subjects_csv(evaluation))
    if evaluation.panels:
        paths.append(output / "evaluation.png")
        with written_atomically(paths[-1]) as temporary:
            panel_grid(evaluation.panels, SHOWN).save(temporary)
    if evaluation.curves:
        paths.append(output / "curve.png")
        with written_atomically(paths[-1]) as temporary:
            draw_curves(evaluation.curves).save(temporary)
    return paths


def _csv(evaluation: Evaluation) -> str:
    """A line for each set and metric. Pooled figures have no deviation over subjects."""
    rows: list[list[object]] = [["set", "metric", "mean", "std", "subjects"]]
    for name, metrics in evaluation.summary().items():
        count = evaluation.counts[name]
        rows += [[name, metric, value["mean"], value["std"], count] for metric, value in metrics.items()]
    for name, figures in evaluation.pooled.items():
        rows += [[name, metric, value, "", ""] for metric, value in figures.items()]
    return _lines(rows)


def _subjects_csv(evaluation: Evaluation) -> str:
    """A line for each subject and metric."""
    rows: list[list[object]] = [["set", "subject", "metric", "value"]]
    for name, metrics in evaluation.sets.items():
        for metric, values in metrics.items():
            pairs = zip(evaluation.names[name], values, strict=True)
            rows += [[name, subject, metric, value] for subject, value in pairs]
    return _lines(rows)


def _lines(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
