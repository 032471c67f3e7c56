"""Geometry that readers of scanned faces share: an open surface that looks along +z."""

from __future__ import annotations

import numpy as np

from renderers.units import MILLIMETRES

HEIGHTS = (80.0, 600.0)  # millimetres, from a face cropped closely to a head with its neck


def height_fault(vertices: np.ndarray) -> str | None:
    """Returns an error text if the height of the mean face, (V, 3) decimetres, is outside 80-600 mm; else None.

    Such a height means that the file is in another unit.

    >>> height_fault(np.array([[0.0, 0.0, 0.0], [0.0, 0.02, 0.0]]))
    'its mean face is 2 high, expected 80 to 600 millimetres'
    """
    height = MILLIMETRES * float(np.ptp(vertices[:, 1]))
    if HEIGHTS[0] < height < HEIGHTS[1]:
        return None
    return f"its mean face is {height:.4g} high, expected {HEIGHTS[0]:.0f} to {HEIGHTS[1]:.0f} millimetres"


def cylindrical_uv(vertices: np.ndarray) -> np.ndarray:
    """Unwrap a face that looks along +z: u is the angle about a vertical axis behind it, v the height.

    The axis stands half the face's width behind the rearmost vertex. At that vertex's depth, the crown and the chin of
    an open face would fan out over half a turn and fold over their neighbours.

    Args:
        vertices: (V, 3), y up.

    Returns:
        (V, 2) spanning [0, 1] in both directions, origin bottom-left.
    """
    x, y, z = vertices.T
    half_width = (x.max() - x.min()) / 2
    angle = np.arctan2(x - x.min() - half_width, z - z.min() + half_width)
    unwrapped = np.stack([angle, y], axis=1)
    low, high = unwrapped.min(axis=0), unwrapped.max(axis=0)
    return (unwrapped - low) / np.maximum(high - low, np.finfo(np.float32).tiny)


def towards_viewer(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces counter-clockwise seen from +z, where the viewer of a face stands.

    Args:
        vertices: (V, 3).
        faces: (F, 3), all turning the same way.

    Returns:
        (F, 3) the faces, all of them turned over where most of their area looks to -z.
    """
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return faces if np.cross(b - a, c - a)[:, 2].sum() >= 0 else faces[:, ::-1]
