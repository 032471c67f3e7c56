"""From a photograph to the canonical crop: the five-point similarity, and the antialiased warp."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from skimage.transform import estimate_transform

from renderers.landmarks68 import LEFT_EYE, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE

if TYPE_CHECKING:
    from renderers.face_models.base import MorphableModel


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """The five points that place a face, from the iBUG 68.

    Args:
        landmarks: (..., 68, 2 or 3) in any unit.

    Returns:
        (..., 5, 2 or 3): the centres of the person's right and left eye, the nose tip, the right and left mouth corner.
    """
    eyes = [landmarks[..., eye, :].mean(axis=-2) for eye in (RIGHT_EYE, LEFT_EYE)]
    return np.stack([*eyes, *(landmarks[..., point, :] for point in (NOSE_TIP, *MOUTH_CORNERS))], axis=-2)


def model_template(face_model: MorphableModel, size: int = 224) -> np.ndarray:
    """The places of the five points in a canonical crop: those of the mean face under the default camera.

    Args:
        face_model: the model of that mean face.
        size: side of the crop in pixels.

    Returns:
        (5, 2) pixels.
    """
    from renderers.camera import default_intrinsics, project

    points = face_model.mean_shape[face_model.landmark_indices].cpu()
    pixels = project(points[None], default_intrinsics(size)[None])[0, :, :2]
    return five_points(pixels.double().numpy())


def mean_landmarks(face_model: MorphableModel, box: np.ndarray, yaw: float, roll: float = 0.0) -> np.ndarray:
    """Where the landmarks of the mean face would lie if its landmarks filled a box's height.

    Args:
        face_model: whose mean face is meant.
        box: (4,) left, top, right, bottom, pixels.
        yaw: radians, of the head.
        roll: radians, from x towards y, so from the right down.

    Returns:
        (68, 2) pixels.
    """
    import torch

    from renderers.camera import euler_to_rotation

    turned = euler_to_rotation(torch.tensor([[0.0, float(yaw), 0.0]]))[0]
    points = face_model.mean_shape[face_model.landmark_indices].cpu() @ turned.T
    upright = points[:, :2].double().numpy() * (1, -1)
    low, high = upright.min(axis=0), upright.max(axis=0)
    centred = (upright - (low + high) / 2) * (box[3] - box[1]) / (high[1] - low[1])
    back = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    return np.asarray(centred @ back + (box[:2] + box[2:]) / 2)


@lru_cache(maxsize=1)
def _reference_template() -> np.ndarray:
    from renderers.face_models.default.model import load_default

    return model_template(load_default(), 224)


def default_template(size: int = 224) -> np.ndarray:
    """`model_template` of the embedded face model, (5, 2) pixels. Each process reads the face model once."""
    return _reference_template() * (size / 224)


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
    """Resample an image under an affine map, antialiased where the map shrinks.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.
        matrix: (2, 3) from the image's continuous pixels (centres at +0.5) to the result's.
        size: (height, width) of the result.
        border: OpenCV border mode for what lies outside the image; the constant is 0.

    Returns:
        (height, width[, C]) of the image's type.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        # Area averaging first, so that the bilinear warp below neither shrinks nor aliases.
        height, width = image.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = matrix * np.array([width / small[0], height / small[1], 1.0])
    # OpenCV puts pixel centres at whole numbers.
    shift = matrix[:, :2].sum(axis=1) * 0.5 - 0.5
    centred = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])
    return cv2.warpAffine(image, centred, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=border)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points under a (2, 3) affine map."""
    return points @ matrix[:, :2].T + matrix[:, 2]


@dataclass(frozen=True, eq=False)
class Alignment:
    """The similarity between a photograph and its canonical crop, in continuous pixels on both sides.

    Attributes:
        matrix: (2, 3) from photograph to crop.
        size: side of the square crop in pixels.
    """

    matrix: np.ndarray
    size: int

    @property
    def inverse(self) -> np.ndarray:
        """(2, 3) from crop to photograph."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.column_stack([linear, -linear @ self.matrix[:, 2]])

    @property
    def scale(self) -> float:
        """Crop pixels per photograph pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) photograph pixels -> crop pixels."""
        return transform_points(points, self.matrix)

    def to_photo(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) crop pixels -> photograph pixels."""
        return transform_points(points, self.inverse)

    def crop(self, photo: np.ndarray) -> np.ndarray:
        """(H, W[, C]) photograph -> (size, size[, C]); the photograph's edge is repeated outside it."""
        return warp(photo, self.matrix, (self.size, self.size), cv2.BORDER_REPLICATE)

    def coverage(self, height: int, width: int) -> np.ndarray:
        """(size, size) float32 in [0, 1]: how much of each crop pixel lies inside an H x W photograph."""
        return warp(np.ones((height, width), np.float32), self.matrix, (self.size, self.size))


def align(landmarks: np.ndarray, template: np.ndarray, size: int = 224) -> Alignment:
    """The least-squares similarity that brings five points onto the template (Umeyama 1991).

    In a profile the eyes nearly coincide. Then the distance from eyes to mouth fixes the scale.

    Args:
        landmarks: (68, 2) photograph pixels.
        template: (5, 2) crop pixels, see `model_template`.
        size: side of the crop in pixels.

    Raises:
        ValueError: the five points coincide or are not finite.
    """
    source = five_points(np.asarray(landmarks, dtype=np.float64))
    if not np.isfinite(source).all() or np.ptp(source, axis=0).max() < 1e-6:
        raise ValueError("the five points of the face coincide or are not finite")
    estimate = estimate_transform("similarity", source, template)
    return Alignment(np.asarray(estimate.params[:2], dtype=np.float64), size)
