"""One photograph -> its aligned faces, ready to be written. Worker processes import this: no torch, no Lightning."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import threading
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datamodules.datasets.face_records import Annotation, Layout
from datamodules.preparation.alignment import Alignment, align, warp
from datamodules.preparation.landmarks import DetectedFace, FaceAlignmentDetector, LandmarkDetector, best_detector
from datamodules.preparation.photo_file import read_photo
from datamodules.preparation.prepared_folder import PhotoLabel, PreparedFace, PreparedPhoto
from datamodules.preparation.skin import skin_probability
from renderers.io.errors import UserError, reason

GIVEN = "given"  # used instead of a detector's name if a data set has landmarks of its own
SMALLEST = 8.0  # pixels that given landmarks must at least be apart


@dataclass(frozen=True, eq=False)
class Settings:
    """What every photograph is prepared with.

    Attributes:
        source: the folder of photographs.
        detector: a name that `best_detector` knows, or `GIVEN`.
        template: (5, 2) crop pixels.
        size: side of the crops.
        largest: whether only the largest face is taken.
        layout: how the data set lies on disk, None for a folder of photographs.
    """

    source: Path
    detector: str
    template: np.ndarray
    size: int
    largest: bool
    layout: Layout | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one photograph: its entry in the index and, for each face, two PNG files (crop, skin)."""

    name: str
    photo: PreparedPhoto
    files: list[tuple[bytes, bytes]]


def stamp(source: Path, name: str, layout: Layout | None) -> tuple[int, int]:
    """Size in bytes and latest change in nanoseconds of a photograph and what is written about it.

    Raises:
        OSError: the photograph is not there; a missing annotation counts as empty.
    """
    status = (source / name).stat()
    size, modified = status.st_size, status.st_mtime_ns
    for file in layout.annotation_files(source, name) if layout and layout.annotation_files else []:
        if file.is_file():
            status = file.stat()
            size, modified = size + status.st_size, max(modified, status.st_mtime_ns)
    return size, modified


class Preparer:
    """Prepares photographs one after another with one detector, which is loaded when the first of them needs it."""

    def __init__(self, settings: Settings, detector: LandmarkDetector | None = None) -> None:
        self.settings, self._given = settings, detector

    @cached_property
    def detector(self) -> LandmarkDetector:
        return self._given or best_detector(self.settings.detector)

    def __call__(self, name: str, label: PhotoLabel | None = None) -> Outcome:
        """Prepares the photograph of that relative path; whatever is wrong with it becomes the outcome's reason."""
        path = self.settings.source / name
        size = modified = 0
        try:
            size, modified = stamp(self.settings.source, name, self.settings.layout)
            photo, annotation = read_photo(path), self._annotation(name)
            faces, files, doubtful = self._faces(name, photo, annotation)
            if label is not None and annotation.yaw is not None:
                label = replace(label, yaw=annotation.yaw)
        except FileNotFoundError:
            told = "no such file"
        except Exception as error:  # dlib and torch, too, answer some pictures with errors of their own
            told = reason(error).removeprefix(f"{path}: ")
        else:
            return Outcome(name, PreparedPhoto(size, modified, faces, label=label, doubtful=doubtful), files)
        return Outcome(name, PreparedPhoto(size, modified, [], told, label), [])

    def _annotation(self, name: str) -> Annotation:
        layout = self.settings.layout
        return layout.annotate(self.settings.source, name) if layout and layout.annotate else Annotation()

    def _faces(
        self, name: str, photo: np.ndarray, annotation: Annotation
    ) -> tuple[list[PreparedFace], list[tuple[bytes, bytes]], int]:
        """The faces, their files, and the number of faces that were skipped because their landmarks are doubtful."""
        if annotation.landmarks is not None:
            found, contour = [_given_face(annotation.landmarks, photo)], annotation.contour
        else:
            found, contour = self.detector.detect(photo), self.detector.contour
        if not found:
            raise UserError("no face found")
        sure = [face for face in found if face.doubt is None]
        if not sure:
            raise UserError("; ".join(f"doubtful face: {face.doubt}" for face in found))
        found, doubtful = sure, len(found) - len(sure)
        if self.settings.largest:
            found = [max(found, key=lambda face: face.area)]
        pairs = [
            self._face(face_name(name, number), photo, face, annotation, contour) for number, face in enumerate(found)
        ]
        return [face for face, _ in pairs], [files for _, files in pairs], doubtful

    def _face(
        self, name: str, photo: np.ndarray, face: DetectedFace, annotation: Annotation, contour: bool
    ) -> tuple[PreparedFace, tuple[bytes, bytes]]:
        alignment = align(face.landmarks, self.settings.template, self.settings.size)
        crop, landmarks = alignment.crop(photo), alignment.to_crop(face.landmarks)
        if annotation.skin is None:
            skin = skin_probability(crop, landmarks) * alignment.coverage(*photo.shape[:2])
        else:
            skin = _aligned_mask(annotation.skin, photo.shape[:2], alignment)
        files = _png(crop[..., ::-1]), _png((skin * 255).round().astype(np.uint8))
        prepared = PreparedFace(
            name=name,
            box=face.box.round(2).tolist(),
            score=round(face.score, 4),
            landmarks=landmarks.round(3).tolist(),
            matrix=alignment.matrix.tolist(),
            checksums=[zlib.crc32(content) for content in files],
            contour=contour,
        )
        return prepared, files


def _given_face(landmarks: np.ndarray, photo: np.ndarray) -> DetectedFace:
    """A data set's own landmarks as if they had been detected.

    Raises:
        UserError: they span next to nothing, or lie outside the (H, W, 3) photograph.
    """
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    if (high - low).max() < SMALLEST:
        raise UserError(f"its landmarks are {(high - low).max():.1f} pixels apart, too small a face")
    if (high <= 0).any() or (low >= photo.shape[1::-1]).any():
        raise UserError("its landmarks lie outside the photograph")
    return DetectedFace(np.concatenate([low, high]), landmarks, 1.0)


def _aligned_mask(mask: np.ndarray, size: tuple[int, ...], alignment: Alignment) -> np.ndarray:
    """(S, S) float32: a mask of any size that covers a photograph of `size` (H, W), as the crop shows it."""
    factors = np.array([size[1] / mask.shape[1], size[0] / mask.shape[0], 1.0])
    return warp(mask, alignment.matrix * factors, (alignment.size, alignment.size)).clip(0, 1)


def face_name(photo: str, number: int) -> str:
    """A file name that is readable, plain ASCII, and different for every (photograph, face number)."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(photo).stem).strip("-")[:40]
    return f"{stem or 'photo'}-{hashlib.sha256(os.fsencode(photo)).hexdigest()[:10]}-{number}"


def _png(pixels: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", pixels)
    return encoded.tobytes()


_state: dict[str, Any] = {}


def start_worker(settings: Settings) -> None:
    """Prepares a worker process; Ctrl-C is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    # One thread each: the processes share the cores.
    cv2.setNumThreads(1)
    if settings.detector == FaceAlignmentDetector.name:
        import torch

        torch.set_num_threads(1)
    _state["preparer"] = Preparer(settings)


def leave_with_parent() -> None:
    """Ends this process when its parent is killed, or it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def prepare_in_worker(name: str, label: PhotoLabel | None) -> Outcome:
    """`Preparer.__call__` of the worker's own preparer."""
    outcome: Outcome = _state["preparer"](name, label)
    return outcome
