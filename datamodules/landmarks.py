"""Face boxes and the iBUG 68 points in photographs, behind one interface.

Detectors speak of whole pixels; half a pixel is added here, and nowhere else, to make their answers continuous.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from datamodules.alignment import transform_points, warp
from renderers.errors import UserError
from renderers.packaged_files import packaged_file

# For each of the 68 points, the one it changes places with when the picture is mirrored.
MIRROR = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # nostrils
        *(45, 44, 43, 42, 47, 46),  # the person's right eye
        *(39, 38, 37, 36, 41, 40),  # left eye
        *range(54, 47, -1),  # upper outer lip
        *range(59, 54, -1),  # lower outer lip
        *range(64, 59, -1),  # upper inner lip
        *range(67, 64, -1),  # lower inner lip
    ]
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face in a photograph, continuous pixels with the origin at the top-left corner.

    Attributes:
        box: (4,) left, top, right, bottom.
        landmarks: (68, 2) iBUG points.
        score: the detector's own confidence, higher is surer.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Square pixels of the box."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class LandmarkDetector(Protocol):
    """What finds faces and their 68 points.

    Attributes:
        name: on the command line and in a prepared folder's index.
        contour: whether its jaw points mark the visible outline of the face ("2D" landmarks), and not fixed points of
            the head, as a face model's vertices are ("3D" landmarks).
    """

    name: str
    contour: bool

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of an (H, W, 3) uint8 sRGB image, the surest first; an empty list where there is none."""
        ...


class DlibDetector:
    """dlib's HOG detector and 68-point predictor, on the CPU, from the files of `face_recognition_models`.

    The HOG detector also answers to things that are no faces, with low scores. Boxes it is sure of are taken; the
    doubtful ones are shown to dlib's detection network, which looks at the box alone. Small faces are searched for in
    an enlarged picture, huge pictures are shrunk for the search, and where the HOG detector finds nothing (profiles,
    mostly) the network searches the whole picture.

    Raises:
        UserError: dlib or its model files are not installed.
    """

    name, contour = "dlib", True
    SURE = 0.9  # HOG score above which a box needs no second opinion
    DOUBTFUL = 0.0  # HOG score below which a box is not even looked at
    SEARCH_SIDE = 1280  # longest side in pixels of the picture that HOG searches first
    NETWORK_SIDE = 400  # the same for the network, which is slower
    FACE_SIDE = 200  # pixels of the face's box where the points are predicted
    MARGIN = 0.6  # of the box, on each side

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise UserError("dlib is not installed: run `make setup`, or `pip install dlib-bin`") from error
        self._dlib = dlib
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(packaged_file("shape_predictor_68_face_landmarks.dat")))

    @cached_property
    def _network(self) -> Any:
        return self._dlib.cnn_face_detection_model_v1(str(packaged_file("mmod_human_face_detector.dat")))

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """See `LandmarkDetector.detect`."""
        longest = max(image.shape[:2])
        first = min(2.0, self.SEARCH_SIDE / longest)
        found: list[tuple[np.ndarray, float]] = []
        for scale in (first, min(2 * first, 4.0)):
            found = self._search(image, scale)
            if found:
                break
        else:
            found = self._ask_network(image, min(2.0, self.NETWORK_SIDE / longest))
        faces = [DetectedFace(box, self._points(image, box), score) for box, score in found]
        return sorted(faces, key=lambda face: -face.score)

    def _search(self, image: np.ndarray, scale: float) -> list[tuple[np.ndarray, float]]:
        """HOG boxes (left, top, right, bottom) with their scores, false ones dropped."""
        picture, factors = _resized(image, scale)
        rectangles, scores, _ = self._hog.run(picture, 0, self.DOUBTFUL)
        boxes = np.array([_corners(r) for r in rectangles]).reshape(-1, 4) / factors
        kept = suppress_overlaps(boxes, np.array(scores))
        return [(boxes[k], scores[k]) for k in kept if scores[k] >= self.SURE or self._confirm(image, boxes[k])]

    def _confirm(self, image: np.ndarray, box: np.ndarray) -> bool:
        """Whether the network, too, sees a face in this box."""
        side = 90  # the network's smallest face is 80 pixels wide
        patch, matrix = _patch(image, box, side, 0.4)
        target = transform_points(box.reshape(2, 2), matrix).reshape(4)
        return any(overlap(_corners(found.rect), target)[0] > 0.3 for found in self._network(patch, 0))

    def _ask_network(self, image: np.ndarray, scale: float) -> list[tuple[np.ndarray, float]]:
        picture, factors = _resized(image, scale)
        found = self._network(picture, 0)
        boxes = np.array([_corners(f.rect) for f in found]).reshape(-1, 4) / factors
        scores = np.array([f.confidence for f in found])
        return [(boxes[k], float(scores[k])) for k in suppress_overlaps(boxes, scores)]

    def _points(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """(68, 2): the mean over small shifts of the box and over the mirrored picture, which halves the jitter."""
        patch, matrix = _patch(image, box, self.FACE_SIDE, self.MARGIN)
        side, low = patch.shape[0], round(self.MARGIN * self.FACE_SIDE)
        mirrored = np.ascontiguousarray(patch[:, ::-1])
        answers = []
        for dx, dy in ((0, 0), (6, 0), (-6, 0), (0, 6), (0, -6)):
            left, top = low + dx, low + dy
            answers.append(self._predict(patch, left, top))
            other = self._predict(mirrored, side - left - self.FACE_SIDE, top)
            answers.append(np.column_stack([side - other[:, 0], other[:, 1]])[MIRROR])
        inverse = cv2.invertAffineTransform(matrix)
        return transform_points(np.mean(answers, axis=0), inverse)

    def _predict(self, patch: np.ndarray, left: int, top: int) -> np.ndarray:
        rectangle = self._dlib.rectangle(left, top, left + self.FACE_SIDE - 1, top + self.FACE_SIDE - 1)
        parts = self._predictor(patch, rectangle).parts()
        return np.array([[point.x + 0.5, point.y + 0.5] for point in parts])


class FaceAlignmentDetector:
    """The networks of `face-alignment`: better points than dlib's, above all on turned faces.

    The 68 points are the images of fixed points of the head ("3D" landmarks), as a face model's are.

    Args:
        device: where its networks run; a CUDA device where there is one, by default.
        download: whether missing weights may be fetched.

    Raises:
        UserError: the package is not installed, or weights are missing and cannot be fetched.
    """

    name, contour = "face-alignment", False
    WEIGHTS = ("3DFAN4-7835d9f11d.pth.tar", "s3fd-619a316812.pth")

    def __init__(self, device: str | None = None, download: bool = False) -> None:
        if find_spec("face_alignment") is None:
            raise UserError("face-alignment is not installed: `pip install face-alignment`, or use --detector dlib")
        missing = self.missing_weights()
        if missing and not download:
            raise UserError(f"face-alignment's weights are not at hand ({', '.join(map(str, missing))})")
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


def best_detector(name: str = "auto") -> LandmarkDetector:
    """The detector of that name.

    Args:
        name: "dlib", "face-alignment" (which may fetch its weights), or "auto": face-alignment where its weights are at
            hand already, dlib otherwise.

    Raises:
        UserError: no such detector, or it cannot be had.
    """
    if name == "auto":
        return FaceAlignmentDetector() if FaceAlignmentDetector.available() else DlibDetector()
    if name == "dlib":
        return DlibDetector()
    if name == "face-alignment":
        return FaceAlignmentDetector(download=True)
    raise UserError(f"no landmark detector is called {name!r}: choose auto, dlib or face-alignment")


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Intersection of two (4,) boxes over their union, and over the smaller one; both in [0, 1]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.clip(sides, 0, None)))
    areas = float(np.prod(a[2:] - a[:2])), float(np.prod(b[2:] - b[:2]))
    return common / (sum(areas) - common), common / min(areas)


def suppress_overlaps(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Rows of (N, 4) `boxes` to keep, the highest of (N,) `scores` first: none overlaps a better one, or lies in it."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        pairs = [overlap(boxes[row], boxes[other]) for other in kept]
        if all(union < 0.3 and inside < 0.6 for union, inside in pairs):
            kept.append(int(row))
    return kept


def _corners(rectangle: Any) -> np.ndarray:
    """dlib's rectangle names its first and last pixel; continuous corners lie at their outer edges."""
    return np.array([rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1], np.float64)


def _resized(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image at about `scale`, and the exact (4,) factors from its box coordinates to the result's."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(image, size, interpolation=interpolation)
    return picture, np.array([size[0] / width, size[1] / height] * 2)


def _patch(image: np.ndarray, box: np.ndarray, side: int, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """A square patch round a box that is `side` pixels wide in it, with a `margin` of that; the (2, 3) map to it."""
    centre, width = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).mean())
    scale, half = side / width, side * (0.5 + margin)
    matrix = np.array([[scale, 0.0, half - scale * centre[0]], [0.0, scale, half - scale * centre[1]]])
    full = round(2 * half)
    # Only the neighbourhood is resampled, however large the photograph.
    reach = width * (0.6 + margin) + 2
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach), image.shape[1::-1]).astype(int)
    near = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    local = np.column_stack([matrix[:, :2], matrix @ np.array([*low, 1.0])])
    return warp(near, local, (full, full), cv2.BORDER_REPLICATE), matrix
