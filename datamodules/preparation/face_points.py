"""dlib's 68 points in a box, at any roll of the head, with measures of their reliability."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from datamodules.preparation.alignment import five_points, transform_points, warp
from renderers.landmarks68 import LEFT_EYE, MIRROR, RIGHT_EYE

# The five points are the outer and inner corner of the person's left eye, those of the right eye, and the base of the
# nose. FIVE: their numbers among the 68. FIVE_MIRROR: the one of the five that each becomes in a mirror image.
FIVE, FIVE_MIRROR = np.array([45, 42, 36, 39, 33]), np.array([2, 3, 0, 1, 4])
# Percent. Most wrong points, as on profiles, have a spread above 1.5, and few right ones above 1. Where wrong points
# had a small spread, the disagreement was always above 3; for right points of frontal faces it was nearly always below.
SURE_SPREAD, SURE_DISAGREEMENT = 1.3, 3.0
# In 80 patches without a face the frontal detector never saw one, and the spread was below 2 in 3 of them. In 120
# patches with a face it saw every one, and the spread was never above 1.8.
FOLLOWED_SPREAD = 1.8
FOLLOWING = 3  # shifts of the box for a face that is followed from frame to frame; smoothing removes the jitter left
HOG_PATCH = 100  # pixels of the box in which a followed face is looked for once more
# The frontal detector's box: how far its middle lies below the mean of the five points, and half its side. The unit is
# the root mean square distance of the five points from their mean. Measured on 100 frames of four drawn heads.
BOX_BELOW, BOX_HALF = -0.107, 1.77
TURNS = (90, -90, 45, -45, 180, 135, -135)  # degrees; the predictor copes with heads turned by up to 25


@dataclass(frozen=True, eq=False)
class FacePoints:
    """The predicted points of one box.

    Attributes:
        box: (4,) left, top, right, bottom of the square in which the points were predicted, upright whatever the turn.
        landmarks: (68, 2) photograph pixels.
        spread: mean distance of the single predictions to their mean, percent of sqrt(w * h) of the points' box.
        turn: degrees by which the picture was turned counter-clockwise for the predictor.
        disagreement: distance to the points of other predictions, in the same unit; infinite until these are made.
    """

    box: np.ndarray
    landmarks: np.ndarray
    spread: float
    turn: float
    disagreement: float = math.inf

    @property
    def steady(self) -> bool:
        return self.spread < SURE_SPREAD

    @property
    def roll(self) -> float:
        """Degrees by which the picture must be turned counter-clockwise to level the eyes."""
        right_eye, left_eye = (self.landmarks[eye].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
        across = left_eye - right_eye
        return float(np.degrees(np.arctan2(across[1], across[0])))


def _box_round(landmarks: np.ndarray, roll: float) -> np.ndarray:
    """(4,) the box that the frontal detector would find if the picture were turned by `roll` degrees."""
    five = five_points(landmarks)
    middle = five.mean(axis=0)
    size = float(np.sqrt(((five - middle) ** 2).sum(axis=1).mean()))
    centre = middle + size * BOX_BELOW * turning(-roll)[:, 1]
    return np.concatenate([centre - BOX_HALF * size, centre + BOX_HALF * size])


class PointPredictor:
    """Predicts the points in a box. Where they are doubtful it predicts again in a rotated picture.

    The predictor always answers with an upright frontal face, as in its training data. On most other faces its points
    change with each small shift of the box; that spread shows that they are wrong. On the rest, a second predictor with
    other training data, or the same one in a wider box, disagrees with them.

    Args:
        dlib: the module.
        hog: its frontal face detector.
        model_file: of its 68-point predictor.
        five_file: of its 5-point predictor.
    """

    SIDE = 200  # pixels of the face's box where the points are predicted
    MARGIN = 0.6  # of the box, on each side
    SHIFTS = ((0, 0), (6, 0), (-6, 0), (0, 6), (0, -6))  # pixels
    WIDER = 20  # pixels, on each side, of the wider box
    LEVEL = 10.0  # degrees of roll; less does not cost accuracy

    def __init__(self, dlib: Any, hog: Any, model_file: str, five_file: str) -> None:
        self._dlib, self._hog = dlib, hog
        self._predictor, self._five = dlib.shape_predictor(model_file), dlib.shape_predictor(five_file)

    def find(self, image: np.ndarray, box: np.ndarray, turn: float = 0.0) -> FacePoints:
        """The points of the face in a box.

        Args:
            image: (H, W, 3) uint8 sRGB.
            box: (4,) left, top, right, bottom, continuous pixels.
            turn: degrees by which the picture was turned counter-clockwise when the box was found.
        """
        best = self._levelled(image, box, turn)
        for other in TURNS:
            if best.steady:
                break
            seen = self._turned_box(image, box, other)
            if seen is not None:
                best = min(best, self._levelled(image, seen, other), key=lambda points: points.spread)
        return replace(best, disagreement=self._disagreement(image, best))

    def follow(self, image: np.ndarray, landmarks: np.ndarray) -> FacePoints | None:
        """The points of a face that was seen in the frame before; None if it is gone.

        Args:
            image: (H, W, 3) uint8 sRGB.
            landmarks: (68, 2) of the frame before.
        """
        before = FacePoints(np.zeros(4), landmarks, 0.0, 0.0)
        box, turn = _box_round(landmarks, before.roll), before.roll
        if (box[2:] <= 0).any() or (box[:2] >= image.shape[1::-1]).any():
            return None
        points = self.predict(image, box, turn, FOLLOWING)
        patch, _ = face_patch(image, box, HOG_PATCH, 0.4, turn)
        _, scores, _ = self._hog.run(patch, 0, 0.0)
        return points if len(scores) or points.spread < FOLLOWED_SPREAD else None

    def _levelled(self, image: np.ndarray, box: np.ndarray, turn: float) -> FacePoints:
        points = self.predict(image, box, turn)
        if abs((points.roll - turn + 180) % 360 - 180) < self.LEVEL:
            return points
        return min(points, self.predict(image, box, points.roll), key=lambda points: points.spread)

    def _turned_box(self, image: np.ndarray, box: np.ndarray, turn: float) -> np.ndarray | None:
        """The box in which the frontal detector sees this face after the picture is turned; None if it sees none."""
        patch, matrix = face_patch(image, box, self.SIDE, self.MARGIN, turn)
        rectangles, _, _ = self._hog.run(patch, 0, 0.0)
        centre = transform_points((box[:2] + box[2:]) / 2, matrix)
        for rectangle in rectangles:  # the surest first
            seen = corners(rectangle)
            if (seen[:2] < centre).all() and (centre < seen[2:]).all():
                return square_back(seen, matrix)
        return None

    def predict(self, image: np.ndarray, box: np.ndarray, turn: float = 0.0, shifts: int = len(SHIFTS)) -> FacePoints:
        """The points, as a mean over the first `shifts` of `SHIFTS` of the box and over the mirrored picture."""
        patch, matrix = face_patch(image, box, self.SIDE, self.MARGIN, turn)
        low = round(self.MARGIN * self.SIDE)
        looks = [
            self._look(self._predictor, MIRROR, patch, (low + dx, low + dy), self.SIDE)
            for dx, dy in self.SHIFTS[:shifts]
        ]
        answers = np.concatenate(looks)
        mean = np.mean(answers, axis=0)
        back = transform_points(mean, cv2.invertAffineTransform(matrix))
        return FacePoints(box, back, _distance(answers, mean, mean), turn)

    def _disagreement(self, image: np.ndarray, points: FacePoints) -> float:
        """The larger of the distances to two other predictions: those of the 5-point predictor, and those of the
        68-point predictor in a wider box."""
        patch, matrix = face_patch(image, points.box, self.SIDE, self.MARGIN, points.turn)
        landmarks, low = transform_points(points.landmarks, matrix), round(self.MARGIN * self.SIDE)
        five = self._look(self._five, FIVE_MIRROR, patch, (low, low), self.SIDE).mean(axis=0)
        start = low - self.WIDER
        wide = self._look(self._predictor, MIRROR, patch, (start, start), self.SIDE + 2 * self.WIDER)
        return max(_distance(five, landmarks[FIVE], landmarks), _distance(wide, landmarks, landmarks))

    def _look(
        self, predictor: Any, mirror: np.ndarray, patch: np.ndarray, corner: tuple[int, int], side: int
    ) -> np.ndarray:
        """(2, N, 2): a predictor's points in a square of the patch, and in the patch's mirror image."""
        (left, top), width = corner, patch.shape[0]
        seen = self._predict(predictor, patch, left, top, side)
        other = self._predict(predictor, np.ascontiguousarray(patch[:, ::-1]), width - left - side, top, side)
        return np.stack([seen, np.column_stack([width - other[:, 0], other[:, 1]])[mirror]])

    def _predict(self, predictor: Any, patch: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
        rectangle = self._dlib.rectangle(left, top, left + side - 1, top + side - 1)
        return np.array([[point.x + 0.5, point.y + 0.5] for point in predictor(patch, rectangle).parts()])


def _distance(points: np.ndarray, others: np.ndarray, face: np.ndarray) -> float:
    """Mean distance of (..., 2) points to others, percent of sqrt(w * h) of the box of a face's (68, 2) points."""
    extent = float(np.sqrt(np.prod(np.ptp(face, axis=0))))
    return 100 * float(np.linalg.norm(points - others, axis=-1).mean()) / max(extent, 1.0)


def corners(rectangle: Any) -> np.ndarray:
    """(4,) continuous box of dlib's rectangle, which is given by its first and its last pixel."""
    return np.array([rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1], np.float64)


def turning(turn: float) -> np.ndarray:
    """(2, 2) that turns pixels counter-clockwise, as one sees the picture, by `turn` degrees."""
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.array([[cosine, sine], [-sine, cosine]])


def square_back(box: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map a (4,) box back through the (2, 3) similarity that made its picture: (4,) an upright square there."""
    centre = transform_points((box[:2] + box[2:]) / 2, cv2.invertAffineTransform(matrix))
    half = float((box[2:] - box[:2]).mean() / 2 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    return np.concatenate([centre - half, centre + half])


def face_patch(
    image: np.ndarray, box: np.ndarray, side: int, margin: float, turn: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """A square patch in which a box is `side` pixels wide and has a margin, and the (2, 3) map to the patch.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) pixels.
        side: pixels.
        margin: share of the side, added on each of the four sides.
        turn: degrees by which the picture is turned counter-clockwise about the box's centre.
    """
    centre, width = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).mean())
    linear, half = turning(turn) * (side / width), side * (0.5 + margin)
    matrix = np.column_stack([linear, half - linear @ centre])
    full = round(2 * half)
    # Only the neighbourhood is resampled, however large the photograph.
    reach = width * (0.6 + margin) * np.abs(turning(turn)).sum(axis=1).max() + 2
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach), image.shape[1::-1]).astype(int)
    near = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    local = np.column_stack([linear, matrix @ np.array([*low, 1.0])])
    return warp(near, local, (full, full), cv2.BORDER_REPLICATE), matrix


def turned_picture(image: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture turned counter-clockwise by `turn` degrees, on black, and the (2, 3) map to it."""
    height, width = image.shape[:2]
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ turning(turn).T
    low, size = ends.min(axis=0), np.ceil(np.ptp(ends, axis=0) - 1e-6).astype(int)
    matrix = np.column_stack([turning(turn), -low])
    return warp(image, matrix, (int(size[1]), int(size[0]))), matrix
