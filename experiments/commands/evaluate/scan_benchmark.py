"""The common part of the benchmarks with scans, each of which is a `ScanBenchmark`: predict, measure, show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from rich.table import Table
from torch import Tensor

from datamodules.datasets.scans import ScanSubject, read_scan, read_scan_landmarks
from datamodules.preparation.landmarks import LandmarkDetector
from experiments.commands.evaluate.pictures import CumulativeCurve, cumulative_curve, extremes, labelled
from experiments.commands.evaluate.predictions import Crop, Predictor, ready
from experiments.commands.evaluate.published import Figure, benchmark_table
from experiments.commands.evaluate.results import Evaluation, Request
from experiments.commands.evaluate.scan_landmarks import find_scan_landmarks
from experiments.commands.reconstruct.results import progress_bar
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import face_panels
from losses.metrics.scan import INNER_LANDMARKS, NOW_LANDMARKS, PredictedFace, ScanErrors, ScannedFace
from renderers.io.errors import UserError, reason
from renderers.landmarks68 import LANDMARKS

KNOWN_LANDMARKS = (len(NOW_LANDMARKS), len(INNER_LANDMARKS), LANDMARKS)
ALL = "all"
LISTED = 5  # left-out subjects that are printed; all are in `evaluation.json`
METRICS = {"mean_mm": "mean", "rmse_mm": "rmse", "median_mm": "median"}  # metric: attribute of `ScanErrors`


@dataclass
class Measured:
    """The results of one pass over the subjects.

    Attributes:
        sets: set -> metric -> one value per subject.
        names: set -> the subjects.
        images: name -> the first photograph that was used.
        left_out: name -> why.
    """

    sets: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, group: str, name: str, errors: ScanErrors) -> None:
        """Take in one subject."""
        metrics = self.sets.setdefault(group, {})
        for metric, figure in METRICS.items():
            metrics.setdefault(metric, []).append(getattr(errors, figure))
        self.names.setdefault(group, []).append(name)


@dataclass(frozen=True)
class ScanBenchmark:
    """A data set of photographs and scans with its protocol, as a `Suite`.

    Attributes:
        title: of the table.
        caption: the protocol in words, and how it differs from the papers'.
        tables: of `published.json`.
        rows: our rows of the table -> the metric that they show.
        read_subjects: the data set's reader.
        measure: compares a prediction with a scan.
        neutral: whether the scans show neutral faces. Then the predicted expression is left out.
        column: the one column of the table that all groups share; None gives each group its own.
        each_image: whether every photograph is a subject of its own; else a subject's predictions are averaged.
        views: number of a subject's first photographs that are used; None means all.
        headline: the metric by which the worst, middle and best subjects are chosen for the pictures.
    """

    title: str
    caption: str
    tables: tuple[str, ...]
    rows: Mapping[str, str]
    read_subjects: Callable[[Path], Sequence[ScanSubject]]
    measure: Callable[[PredictedFace, ScannedFace], ScanErrors]
    neutral: bool
    headline: str
    column: str | None = None
    each_image: bool = False
    views: int | None = None

    def evaluate(self, module: FaceModule, request: Request, tell: Callable[[str], None]) -> Evaluation:
        """See `experiments.commands.evaluate.command.Suite`."""
        predictor, measured = Predictor(ready(module)), Measured()
        for group, name, face, scan in self.predictions(predictor, request, measured):
            try:
                measured.add(group, name, self.measure(face, scan))
            except Exception as error:  # one failing scan must not end the evaluation
                measured.left_out[name] = reason(error)
        return self.evaluation(predictor, measured, tell)

    def predictions(
        self, predictor: Predictor, request: Request, measured: Measured
    ) -> Iterator[tuple[str, str, PredictedFace, ScannedFace]]:
        """(group, name, predicted face, scan) of every subject that can be measured, with a progress bar.

        Other subjects are noted in `measured.left_out`, and the photographs that are used in `measured.images`.

        Raises:
            UserError: no folder was given, or it is no copy of the data set.
        """
        subjects, scans = self.subjects(request), ScanReader(predictor)
        with progress_bar(len(subjects)) as (bar, task):
            for subject in subjects:
                name = subject_name(subject, self.each_image)
                bar.update(task, description=name)
                try:
                    face = self._predict(predictor, subject, name, request.batch_size, measured)
                    scan = scans.read(subject)
                except Exception as error:
                    measured.left_out[name] = reason(error)
                else:
                    yield self._group(subject), name, face, scan
                bar.advance(task)

    def subjects(self, request: Request) -> list[ScanSubject]:
        """The subjects of a request.

        Raises:
            UserError: no folder was given, or it is no copy of the data set.
        """
        if request.data is None:
            raise UserError("this suite needs --data DIR, the data set's folder as its owner distributes it")
        subjects = list(self.read_subjects(request.data))
        if self.each_image:
            subjects = [
                ScanSubject(subject.name, (image,), subject.scan, subject.scan_landmarks, subject.group)
                for subject in subjects
                for image in subject.images
            ]
        return subjects[: request.subjects]

    def _predict(
        self, predictor: Predictor, subject: ScanSubject, name: str, batch_size: int, measured: Measured
    ) -> PredictedFace:
        crops: list[Crop] = []
        reasons: list[str] = []
        for image in subject.images[: self.views]:
            try:
                crops.append(predictor.find(image))
            except Exception as error:
                reasons.append(reason(error))
            else:
                measured.images.setdefault(name, image)
        if not crops:
            raise UserError(f"none of its {len(reasons)} photographs shows a face ({reasons[0]})")
        if reasons:
            measured.left_out[f"{name}: {len(reasons)} of {len(reasons) + len(crops)} photographs"] = reasons[0]
        return predictor.mean_face(torch.stack([crop.image for crop in crops]), self.neutral, batch_size)

    def _group(self, subject: ScanSubject) -> str:
        """The group's name in the papers' tables, without the owner's number before an expression's name."""
        if self.column is not None:
            return ALL
        return re.sub(r"^\d+_", "", subject.group).replace("_", " ")

    def evaluation(
        self,
        predictor: Predictor,
        measured: Measured,
        tell: Callable[[str], None],
        pooled: Mapping[str, Mapping[str, float]] | None = None,
        curves: Sequence[CumulativeCurve] = (),
    ) -> Evaluation:
        """The results with their pictures.

        Raises:
            UserError: nothing could be measured.
        """
        tell_left_out(measured.left_out, tell)
        if not measured.sets:
            why = next(iter(measured.left_out.values()), "there are no subjects")
            raise UserError(f"nothing could be measured: {why}")
        unit = f"{self.headline.removesuffix('_mm')} of a subject, mm"
        own = [cumulative_curve(group, unit, metrics[self.headline]) for group, metrics in measured.sets.items()]
        panels = self.panels(predictor, measured)
        return Evaluation(
            "scans", measured.sets, panels, measured.names, pooled or {}, tuple(curves) or own, measured.left_out
        )

    def panels(self, predictor: Predictor, measured: Measured) -> dict[str, Tensor]:
        """Pictures of the worst, the middle and the best subject of all groups by the headline."""
        errors = [value for metrics in measured.sets.values() for value in metrics[self.headline]]
        names = [name for group in measured.sets for name in measured.names[group]]
        chosen = [
            (f"{kind} {errors[row]:.2f} mm", measured.images[names[row]]) for kind, row in extremes(errors).items()
        ]
        return overlay_panels(predictor, [(text, predictor.find(image)) for text, image in chosen])

    def table(self, evaluation: Evaluation) -> Table:
        """See `experiments.commands.evaluate.command.Suite`."""
        summary = evaluation.summary()
        ours: dict[str, dict[str, Figure]] = {
            row: {
                self.column or group: (metrics[metric]["mean"], metrics[metric]["std"])
                for group, metrics in summary.items()
            }
            for row, metric in self.rows.items()
        }
        count = sum(evaluation.counts.values())
        return benchmark_table(f"{self.title}, {count} measured, mm", self.caption, ours, self.tables)


def subject_name(subject: ScanSubject, each_image: bool) -> str:
    """PERSON/GROUP, or PERSON/GROUP/IMAGE."""
    base = f"{subject.name}/{subject.group}"
    return f"{base}/{subject.images[0].stem}" if each_image else base


class DetectorOwner(Protocol):
    """An object with a landmark detector, which may be loaded on first use."""

    @property
    def detector(self) -> LandmarkDetector: ...


class ScanReader:
    """Reads scans with landmarks: the owner's, or, without known ones, those found in a picture of the scan.

    Args:
        owner: its detector looks at pictures of scans.
    """

    def __init__(self, owner: DetectorOwner) -> None:
        self.owner = owner
        self._last: tuple[Path, ScannedFace] | None = None  # consecutive subjects often have the same scan

    def read(self, subject: ScanSubject) -> ScannedFace:
        """A subject's scan.

        Raises:
            UserError: it has none, or one that cannot be read or shows no face.
        """
        if subject.scan is None:
            raise UserError("its owner keeps the scan")
        if self._last is None or self._last[0] != subject.scan:
            self._last = subject.scan, self._read(subject.scan, subject.scan_landmarks)
        return self._last[1]

    def _read(self, path: Path, landmarks_path: Path | None) -> ScannedFace:
        scan = read_scan(path)
        landmarks = None if landmarks_path is None else read_scan_landmarks(landmarks_path)
        if landmarks is None or len(landmarks) not in KNOWN_LANDMARKS:
            try:
                landmarks = find_scan_landmarks(scan.vertices, scan.faces, self.owner.detector)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
        return ScannedFace(scan.vertices, scan.faces, landmarks)


def overlay_panels(predictor: Predictor, chosen: Sequence[tuple[str, Crop]]) -> dict[str, Tensor]:
    """Photograph, overlay and shape of some faces. The text is written on the photograph."""
    images = torch.stack([crop.image for _, crop in chosen])
    panels = face_panels(images.to(predictor.device), predictor.draw(images))
    columns: dict[str, Tensor] = {}
    for name in ("input", "overlay", "shape"):
        texts = [text if name == "input" else "" for text, _ in chosen]
        columns[name] = torch.stack([labelled(*pair) for pair in zip(panels[name], texts, strict=True)])
    return columns


def tell_left_out(left_out: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """Print a few lines about the subjects that were not measured."""
    if left_out:
        tell(f"left out {len(left_out)}, listed in evaluation.json:")
        for name, reason in list(left_out.items())[:LISTED]:
            tell(f"  {name}: {reason}")
