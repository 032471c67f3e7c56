"""Face boxes and the iBUG 68 points in photographs, behind one interface.

Detectors return whole pixels. Half a pixel is added here, and nowhere else, to make them continuous.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np

from datamodules.preparation.alignment import transform_points
from datamodules.preparation.face_points import (
    SURE_DISAGREEMENT,
    SURE_SPREAD,
    TURNS,
    FacePoints,
    PointPredictor,
    corners,
    face_patch,
    square_back,
    turned_picture,
)
from renderers.io.errors import UserError
from renderers.io.packaged_files import packaged_file

Confidence = Literal["sure", "doubtful", "not measured"]


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face in a photograph, in continuous pixels with the origin at the top-left corner.

    Attributes:
        box: (4,) left, top, right, bottom.
        landmarks: (68, 2) iBUG points.
        score: the detector's confidence that this is a face; higher is surer.
        spread: distance by which the landmarks move if the box is shifted a little, percent of the landmarks'
            sqrt(w * h); None if not measured.
        disagreement: distance to the landmarks of a second predictor, or of a wider box, in the same unit; None if not
            measured.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    spread: float | None = None
    disagreement: float | None = None

    @property
    def confidence(self) -> Confidence:
        """Whether the landmarks can be trusted. Doubtful ones seldom lie on the face's features."""
        if self.spread is None or self.disagreement is None:
            return "not measured"
        return "sure" if self.spread < SURE_SPREAD and self.disagreement < SURE_DISAGREEMENT else "doubtful"

    @property
    def doubt(self) -> str | None:
        """Why the landmarks are doubtful, in words; None if they are not."""
        if self.spread is None or self.confidence != "doubtful":
            return None
        moved = self.spread if self.spread >= SURE_SPREAD else self.disagreement
        return f"its landmarks move by {moved:.1f} % of the face in a second look: they may miss the face"

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class LandmarkDetector(Protocol):
    """Finds faces and their 68 points.

    Attributes:
        name: on the command line and in a prepared folder's index.
        contour: whether its jaw points mark the visible outline of the face ("2D" landmarks). Else they mark fixed
            points of the head, as a face model's vertices are ("3D" landmarks).
    """

    name: str
    contour: bool

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of an (H, W, 3) uint8 sRGB image, the surest first."""
        ...

    def follow(self, image: np.ndarray, landmarks: np.ndarray) -> DetectedFace | None:
        """Find a face again in an (H, W, 3) uint8 sRGB frame, much faster than by `detect`. `landmarks` are its (68, 2)
        landmarks in the frame before. None if it is gone."""
        ...

    def smallest_face(self, height: int, width: int) -> float:
        """Side in pixels of the smallest face box that `detect` looks for in every picture of that size."""
        ...


class DlibDetector:
    """dlib's HOG detector and 68-point predictor, on the CPU, from the files of `face_recognition_models`.

    The predictor was trained on 300-W, whose terms exclude commercial use: see the README's licences.

    The HOG detector finds faces of 80 pixels and more. It searches a shrunk picture, where large faces are clearest,
    and finer ones up to `finest_scale`. Huge pictures are searched in pieces. It also finds things that are no faces,
    with low scores. Boxes of high scores are taken. Of the others dlib's detection network decides, which sees the box
    alone. If nothing is found, small pictures are enlarged further, then the picture is turned, and at last the network
    searches the whole picture, where it mostly finds profiles.

    Raises:
        UserError: dlib or its model files are not installed.
    """

    name, contour = "dlib", True
    SURE = 0.9  # HOG score above which a box needs no second opinion
    DOUBTFUL = 0.0  # boxes with a lower HOG score are dropped at once
    HOG_SIDE = 80  # pixels of the smallest face that HOG finds
    SEARCH_SIDE = 1280  # longest side in pixels of the picture that HOG searches first
    SEARCH_AREA = 6e6  # pixels up to which a picture is enlarged for HOG, which take it half a second on one core
    TILE_SIDE = 4096  # side of the pieces that HOG sees, pixels; bounds its memory to about 0.4 GB
    TILE_OVERLAP = 320  # pixels that pieces share; larger faces are found at a coarser scale
    NETWORK_SIDE = 400  # side of a square picture that the network searches, pixels; it is slower than HOG

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise UserError("dlib is not installed: run `make setup`, or `pip install dlib-bin`") from error
        self._dlib = dlib
        self._hog = dlib.get_frontal_face_detector()
        predictors = [str(packaged_file(f"shape_predictor_{count}_face_landmarks.dat")) for count in (68, 5)]
        self._points = PointPredictor(dlib, self._hog, *predictors)

    @cached_property
    def _network(self) -> Any:
        return self._dlib.cnn_face_detection_model_v1(str(packaged_file("mmod_human_face_detector.dat")))

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """See `LandmarkDetector.detect`."""
        upright = [(self._points.find(image, box), score) for box, score in self._upright(image)]
        faces = [_detected(points, score) for points, score in upright]
        # HOG finds only some of the faces in a picture that is rotated.
        if all(abs(points.roll) > 45 for points, _ in upright):
            faces += self._turned(image)
        if not faces:
            height, width = image.shape[:2]
            found = self._ask_network(image, min(2.0, self.NETWORK_SIDE / math.sqrt(height * width)))
            faces = [_detected(self._points.find(image, box), score) for box, score in found]
        # In a rotated picture two boxes may belong to one face.
        kept = suppress_overlaps(
            np.array([face.box for face in faces]), np.array([-(face.spread or 0.0) for face in faces])
        )
        return sorted((faces[k] for k in kept), key=lambda face: -face.score)

    def follow(self, image: np.ndarray, landmarks: np.ndarray) -> DetectedFace | None:
        """See `LandmarkDetector.follow`."""
        points = self._points.follow(image, landmarks)
        return None if points is None else DetectedFace(points.box, points.landmarks, 1.0)

    def smallest_face(self, height: int, width: int) -> float:
        """See `LandmarkDetector.smallest_face`."""
        return self.HOG_SIDE / self.finest_scale(height, width)

    def finest_scale(self, height: int, width: int) -> float:
        """Factor, from 1 to 2, by which a picture is enlarged to find its smallest faces."""
        return min(2.0, max(1.0, math.sqrt(self.SEARCH_AREA / (height * width))))

    def _upright(self, image: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """HOG's boxes and scores at all scales."""
        height, width = image.shape[:2]
        finest = self.finest_scale(height, width)
        scales = [min(finest, side / max(height, width)) for side in (self.SEARCH_SIDE, self.TILE_SIDE)]
        while scales[-1] < finest:
            scales.append(min(2 * scales[-1], finest))
        found = self._search(image, *scales)
        last = min(4.0, math.sqrt(self.SEARCH_AREA / (height * width)))
        return found if found or last <= finest else self._search(image, last)

    def _turned(self, image: np.ndarray) -> list[DetectedFace]:
        """The faces of a picture in which none is upright, by the first turn that makes HOG find some."""
        small, factors = _resized(image, min(2.0, self.SEARCH_SIDE / max(image.shape[:2])))
        for turn in TURNS:
            picture, matrix = turned_picture(small, turn)
            found = self._search(picture, 1.0)
            if found:
                boxes = [(square_back(box, matrix) / factors, score) for box, score in found]
                return [_detected(self._points.find(image, box, turn), score) for box, score in boxes]
        return []

    def _search(self, image: np.ndarray, *scales: float) -> list[tuple[np.ndarray, float]]:
        """HOG's boxes (left, top, right, bottom) at these scales with their scores, without false ones."""
        found = [pair for scale in dict.fromkeys(scales) for pair in self._hog_boxes(image, scale)]
        boxes, scores = np.array([box for box, _ in found]).reshape(-1, 4), np.array([score for _, score in found])
        kept = suppress_overlaps(boxes, scores)
        return [(boxes[k], scores[k]) for k in kept if scores[k] >= self.SURE or self._confirm(image, boxes[k])]

    def _hog_boxes(self, image: np.ndarray, scale: float) -> Iterator[tuple[np.ndarray, float]]:
        """HOG's boxes and scores at one scale, piece by piece."""
        picture, factors = _resized(image, scale)
        tops, lefts = (
            range(0, max(1, side - self.TILE_OVERLAP), self.TILE_SIDE - self.TILE_OVERLAP) for side in picture.shape[:2]
        )
        for top in tops:
            for left in lefts:
                tile = np.ascontiguousarray(picture[top : top + self.TILE_SIDE, left : left + self.TILE_SIDE])
                rectangles, scores, _ = self._hog.run(tile, 0, self.DOUBTFUL)
                corner = np.array([left, top, left, top])
                for rectangle, score in zip(rectangles, scores, strict=True):
                    yield (corners(rectangle) + corner) / factors, score

    def _confirm(self, image: np.ndarray, box: np.ndarray) -> bool:
        """Whether dlib's network sees a face in this box too."""
        side = 90  # the network's smallest face is 80 pixels wide
        patch, matrix = face_patch(image, box, side, 0.4)
        target = transform_points(box.reshape(2, 2), matrix).reshape(4)
        return any(overlap(corners(found.rect), target)[0] > 0.3 for found in self._network(patch, 0))

    def _ask_network(self, image: np.ndarray, scale: float) -> list[tuple[np.ndarray, float]]:
        picture, factors = _resized(image, scale)
        found = self._network(picture, 0)
        boxes = np.array([corners(f.rect) for f in found]).reshape(-1, 4) / factors
        scores = np.array([f.confidence for f in found])
        return [(boxes[k], float(scores[k])) for k in suppress_overlaps(boxes, scores)]


class FaceAlignmentDetector:
    """The networks of `face-alignment`: better points than dlib's, above all on turned faces.

    The 68 points are the images of fixed points of the head ("3D" landmarks), as a face model's are.

    Args:
        device: where its networks run; by default a CUDA device, or the CPU if there is none.
        download: whether missing weights may be fetched.

    Raises:
        UserError: the package is not installed, or weights are missing and cannot be fetched.
    """

    name, contour = "face-alignment", False
    SMALLEST = 16.0  # pixels: the smallest anchor of its face detector (S3FD, Zhang et al. 2017, table 1)
    WEIGHTS = ("3DFAN4-7835d9f11d.pth.tar", "s3fd-619a316812.pth")

    def __init__(self, device: str | None = None, download: bool = False) -> None:
        if find_spec("face_alignment") is None:
            raise UserError("face-alignment is not installed: `pip install face-alignment`, or use --detector dlib")
        missing = self.missing_weights()
        if missing and not download:
            raise UserError(
                f"face-alignment's weights are not at hand ({', '.join(map(str, missing))}): "
                "--detector face-alignment fetches them once, --detector dlib needs none"
            )
        import face_alignment
        import torch

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._model = face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_HALF_D, device=device, flip_input=True, compile=False
            )
        except OSError as error:
            raise UserError(f"face-alignment's weights cannot be fetched ({error}): use --detector dlib") from error

    @classmethod
    def missing_weights(cls) -> list[Path]:
        """The weight files that are not in torch's hub cache."""
        import torch

        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return [folder / name for name in cls.WEIGHTS if not (folder / name).is_file()]

    @classmethod
    def available(cls) -> bool:
        """Whether it can run without fetching anything."""
        return find_spec("face_alignment") is not None and not cls.missing_weights()

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """See `LandmarkDetector.detect`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No faces were detected")
            points, _, boxes = self._model.get_landmarks_from_image(image, return_bboxes=True)
        faces = [
            DetectedFace(np.asarray(box[:4], np.float64), np.asarray(found[:, :2], np.float64) + 0.5, float(box[4]))
            for found, box in zip(points or [], boxes if boxes is not None else [], strict=True)
        ]
        return sorted(faces, key=lambda face: -face.score)

    def follow(self, image: np.ndarray, landmarks: np.ndarray) -> DetectedFace | None:
        """See `LandmarkDetector.follow`."""
        low, high = landmarks.min(axis=0), landmarks.max(axis=0)
        corner = np.maximum(low - (high - low) / 2, 0).astype(int)
        end = np.ceil(high + (high - low) / 2).astype(int)
        near = np.ascontiguousarray(image[corner[1] : max(end[1], 0), corner[0] : max(end[0], 0)])
        found = self.detect(near) if near.size else []
        if not found:
            return None
        face = max(found, key=lambda face: face.area)
        return replace(face, box=face.box + np.tile(corner, 2), landmarks=face.landmarks + corner)

    def smallest_face(self, height: int, width: int) -> float:
        """See `LandmarkDetector.smallest_face`."""
        return self.SMALLEST


def best_detector(name: str = "auto") -> LandmarkDetector:
    """The detector of that name.

    Args:
        name: "dlib", "face-alignment" (which may fetch its weights), or "auto": face-alignment if its weights are there
            already, else dlib.

    Raises:
        UserError: no such detector, or it cannot be loaded.
    """
    if name == "auto":
        return FaceAlignmentDetector() if FaceAlignmentDetector.available() else DlibDetector()
    if name == "dlib":
        return DlibDetector()
    if name == "face-alignment":
        return FaceAlignmentDetector(download=True)
    raise UserError(f"no landmark detector is called {name!r}: choose auto, dlib or face-alignment")


def _detected(points: FacePoints, score: float) -> DetectedFace:
    return DetectedFace(points.box, points.landmarks, score, points.spread, points.disagreement)


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The intersection of two (4,) boxes, divided by their union and by the smaller box. Both are in [0, 1]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.clip(sides, 0, None)))
    areas = float(np.prod(a[2:] - a[:2])), float(np.prod(b[2:] - b[:2]))
    return common / (sum(areas) - common), common / min(areas)


def suppress_overlaps(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Rows of (N, 4) `boxes` that neither overlap a box of a higher score (N,) nor lie in it, the highest first."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        pairs = [overlap(boxes[row], boxes[other]) for other in kept]
        if all(union < 0.3 and inside < 0.6 for union, inside in pairs):
            kept.append(int(row))
    return kept


def _resized(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image at about `scale`, and the exact (4,) factors from its box coordinates to the result's."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(image, size, interpolation=interpolation)
    return picture, np.array([size[0] / width, size[1] / height] * 2)
