"""The owners' annotations of photographs, in one form for every data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.datasets.scans import ScanSubject
from datamodules.preparation.prepared_folder import PhotoLabel


@dataclass(frozen=True)
class FaceRecord:
    """One photograph of a data set.

    Attributes:
        name: its path relative to the data set's folder, with forward slashes.
        label: split, person, and group of views.
    """

    name: str
    label: PhotoLabel


@dataclass(frozen=True, eq=False)
class Annotation:
    """The owner's annotation of one photograph. A field is None where the owner's files do not give it.

    Attributes:
        landmarks: (68, 2) iBUG points in the photograph's continuous pixels.
        contour: whether their jaw marks the visible outline of the face; else it marks fixed points of the head.
        skin: (h, w) float32 in [0, 1] of any size, which covers the whole photograph.
        yaw: degrees.
    """

    landmarks: np.ndarray | None = None
    contour: bool = False
    skin: np.ndarray | None = None
    yaw: float | None = None


@dataclass(frozen=True)
class Layout:
    """The layout of one data set on disk. Its functions are a module's own, so that worker processes can import them.

    Attributes:
        name: on the command line and in a prepared folder's index.
        title: for people.
        records: data set's folder -> its photographs. Raises UserError if the folder has another layout.
        annotate: (folder, photograph's name) -> annotation; None if the owner gives no annotations.
        annotation_files: (folder, photograph's name) -> all files that `annotate` may read; some may not exist.
        gives_landmarks: whether `annotate` always has landmarks, so that no detector is needed.
    """

    name: str
    title: str
    records: Callable[[Path], list[FaceRecord]]
    annotate: Callable[[Path, str], Annotation] | None = None
    annotation_files: Callable[[Path, str], list[Path]] | None = None
    gives_landmarks: bool = False


def subject_records(root: Path, subjects: Iterable[ScanSubject]) -> list[FaceRecord]:
    """The photographs of a benchmark's subjects, all of them for testing.

    Args:
        root: the data set's folder, which the photographs' names are relative to.
        subjects: the benchmark.
    """
    labels = {
        path.relative_to(root).as_posix(): PhotoLabel("test", subject.name)
        for subject in subjects
        for path in subject.images
    }
    return [FaceRecord(name, label) for name, label in sorted(labels.items())]
