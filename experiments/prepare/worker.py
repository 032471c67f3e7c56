"""One photograph -> its aligned faces, ready to be written. Worker processes import this: no torch, no Lightning."""

from __future__ import annotations

import hashlib
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datamodules.alignment import align
from datamodules.landmarks import DetectedFace, FaceAlignmentDetector, LandmarkDetector, best_detector
from datamodules.photos import PreparedFace, PreparedPhoto, read_photo
from datamodules.skin import skin_probability
from renderers.errors import UserError


@dataclass(frozen=True, eq=False)
class Settings:
    """What every photograph is prepared with.

    Attributes:
        source: the folder of photographs.
        detector: a name that `best_detector` knows.
        template: (5, 2) crop pixels.
        size: side of the crops.
        largest: whether only the largest face is taken.
    """

    source: Path
    detector: str
    template: np.ndarray
    size: int
    largest: bool


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one photograph: its entry in the index and, for each face, two PNG files (crop, skin)."""

    name: str
    photo: PreparedPhoto
    files: list[tuple[bytes, bytes]]


class Preparer:
    """Prepares photographs one after another with one detector."""

    def __init__(self, settings: Settings, detector: LandmarkDetector | None = None) -> None:
        self.settings = settings
        self.detector = detector or best_detector(settings.detector)

    def __call__(self, name: str) -> Outcome:
        """Prepares the photograph of that relative path; whatever is wrong with it becomes the outcome's reason."""
        path = self.settings.source / name
        size = modified = 0
        try:
            status = path.stat()
            size, modified = status.st_size, status.st_mtime_ns
            faces, files = self._faces(name, read_photo(path))
        except UserError as error:
            reason = str(error).removeprefix(f"{path}: ")
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            return Outcome(name, PreparedPhoto(size, modified, faces), files)
        return Outcome(name, PreparedPhoto(size, modified, [], " ".join(reason.split())), [])

    def _faces(self, name: str, photo: np.ndarray) -> tuple[list[PreparedFace], list[tuple[bytes, bytes]]]:
        found = self.detector.detect(photo)
        if not found:
            raise UserError("no face found")
        if self.settings.largest:
            found = [max(found, key=lambda face: face.area)]
        pairs = [self._face(face_name(name, number), photo, face) for number, face in enumerate(found)]
        return [face for face, _ in pairs], [files for _, files in pairs]

    def _face(self, name: str, photo: np.ndarray, face: DetectedFace) -> tuple[PreparedFace, tuple[bytes, bytes]]:
        alignment = align(face.landmarks, self.settings.template, self.settings.size)
        crop, landmarks = alignment.crop(photo), alignment.to_crop(face.landmarks)
        skin = skin_probability(crop, landmarks) * alignment.coverage(*photo.shape[:2])
        prepared = PreparedFace(
            name=name,
            box=face.box.round(2).tolist(),
            score=round(face.score, 4),
            landmarks=landmarks.round(3).tolist(),
            matrix=alignment.matrix.tolist(),
        )
        return prepared, (_png(crop[..., ::-1]), _png((skin * 255).round().astype(np.uint8)))


def face_name(photo: str, number: int) -> str:
    """A file name that is readable, plain ASCII, and different for every (photograph, face number)."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(photo).stem).strip("-")[:40]
    return f"{stem or 'photo'}-{hashlib.sha256(photo.encode()).hexdigest()[:10]}-{number}"


def _png(pixels: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", pixels)
    return encoded.tobytes()


_state: dict[str, Any] = {}


def start_worker(settings: Settings) -> None:
    """Prepares a worker process; Ctrl-C is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One thread each: the processes share the cores.
    cv2.setNumThreads(1)
    if settings.detector == FaceAlignmentDetector.name:
        import torch

        torch.set_num_threads(1)
    _state["preparer"] = Preparer(settings)


def prepare_in_worker(name: str) -> Outcome:
    """`Preparer.__call__` of the worker's own preparer."""
    outcome: Outcome = _state["preparer"](name)
    return outcome
