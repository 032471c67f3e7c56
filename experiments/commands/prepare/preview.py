"""A picture of some prepared faces, for people to look at before they train."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from datamodules.preparation.prepared_folder import PhotoIndex, PreparedFace, read_face
from renderers.landmarks68 import CURVES

SHOWN, COLUMNS, SIDE = 16, 4, 200
GREEN, TINT = (90, 255, 90), np.array([255.0, 60.0, 60.0])


def draw_preview(root: Path, index: PhotoIndex) -> bytes:
    """Up to 16 faces, spread evenly over the folder: each with its 68 points, and beside it with its skin tinted red.

    Returns:
        A JPEG file's content.
    """
    faces = [face for _, face in index.faces()]
    rows = np.unique(np.linspace(0, len(faces) - 1, min(SHOWN, len(faces))).round().astype(int))
    cells = [_cell(root, faces[row], index.size) for row in rows]
    columns = min(COLUMNS, len(cells))
    blank = np.zeros_like(cells[0])
    cells += [blank] * (-len(cells) % columns)
    sheet = np.vstack([np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)])
    _, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return encoded.tobytes()


def _cell(root: Path, face: PreparedFace, size: int) -> np.ndarray:
    """(SIDE + 4, 2 SIDE + 4, 3): the crop with its points, and with its skin."""
    image, skin = read_face(root, face.name)
    interpolation = cv2.INTER_AREA if size > SIDE else cv2.INTER_LINEAR
    image = cv2.resize(image, (SIDE, SIDE), interpolation=interpolation)
    weight = cv2.resize(skin, (SIDE, SIDE), interpolation=interpolation)[..., None] / 255
    pointed = draw_landmarks(image, np.array(face.landmarks) * (SIDE / size))
    gray = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    tinted = gray * 0.6 * (1 - weight) + (0.6 * image + 0.4 * TINT) * weight
    pair = np.hstack([pointed, tinted.round().astype(np.uint8)])
    return np.pad(pair, ((2, 2), (2, 2), (0, 0)))


def draw_landmarks(image: np.ndarray, landmarks: np.ndarray, color: tuple[int, int, int] = GREEN) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 image with the 68 points (68, 2) in continuous pixels, joined by the iBUG curves."""
    drawn = np.ascontiguousarray(image).copy()
    # Sixteenths of a pixel; OpenCV's pixel centres are whole numbers.
    fixed = np.round((landmarks - 0.5) * 16).astype(np.int32)
    for curve, closed in CURVES:
        cv2.polylines(drawn, [fixed[curve]], closed, color, 1, cv2.LINE_AA, shift=4)
    for x, y in fixed:
        cv2.circle(drawn, (int(x), int(y)), 16, color, -1, cv2.LINE_AA, shift=4)
    return drawn
