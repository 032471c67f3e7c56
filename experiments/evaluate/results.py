"""What a suite is asked, what it finds, and the files that say so."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from experiments.run_folder import write_json, write_text, written_atomically

SHOWN = 6  # subjects in the picture


@dataclass(frozen=True)
class Request:
    """What to evaluate on.

    Attributes:
        checkpoint: the file the network came from.
        data: a folder of prepared photographs; synthetic faces where absent.
        subjects: how many faces.
        seed: of the faces, where they are synthetic, and of what is done to them.
        batch_size: faces at a time; no figure depends on it.
    """

    checkpoint: Path
    data: Path | None
    subjects: int
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Evaluation:
    """What a suite found.

    Attributes:
        truth: what the network was measured against.
        sets: set -> metric -> one value per subject.
        panels: name -> (at most `SHOWN`, 3, H, W) pictures, the columns of `evaluation.png`.
    """

    truth: Literal["exact", "fitted"]
    sets: Mapping[str, Mapping[str, list[float]]]
    panels: Mapping[str, Tensor]

    @property
    def subjects(self) -> int:
        """How many faces every set holds."""
        return len(next(iter(next(iter(self.sets.values())).values())))

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """set -> metric -> mean and standard deviation over the subjects; of a single subject the latter is 0."""
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


def write_results(output: Path, suite: str, checkpoint: Path, evaluation: Evaluation) -> list[Path]:
    """Writes `evaluation.json`, `.csv` and `.png`, each whole or not at all; returns their paths."""
    from experiments.callbacks import panel_grid

    summary = evaluation.summary()
    record: dict[str, Any] = {
        "suite": suite,
        "checkpoint": str(checkpoint),
        "truth": evaluation.truth,
        "subjects": evaluation.subjects,
        "sets": summary,
    }
    paths = [output / f"evaluation.{kind}" for kind in ("json", "csv", "png")]
    write_json(paths[0], record)
    write_text(paths[1], _csv(summary, evaluation.subjects))
    with written_atomically(paths[2]) as temporary:
        panel_grid(evaluation.panels, SHOWN).save(temporary)
    return paths


def _csv(summary: Mapping[str, Mapping[str, Mapping[str, float]]], subjects: int) -> str:
    """One line a set and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "metric", "mean", "std", "subjects"])
    for name, metrics in summary.items():
        for metric, value in metrics.items():
            writer.writerow([name, metric, value["mean"], value["std"], subjects])
    return text.getvalue()
