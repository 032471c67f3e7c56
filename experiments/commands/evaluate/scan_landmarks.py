"""Finds landmarks of a scan in a picture of it, and lifts them back onto the scan's surface."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from datamodules.preparation.landmarks import LandmarkDetector
from losses.metrics.scan import INNER_LANDMARKS
from renderers.io.errors import UserError
from renderers.raster import rasterize
from renderers.raster.interpolation import interpolate
from renderers.vertex_normals import VertexNormals

SIZE = 512  # pixels of the picture
FILL = 0.85  # of the picture's side that the scan takes up
AWAY = 100.0  # picture sides between camera and scan, far enough for nearly parallel rays
LIGHTS = (((-0.35, 0.5, 0.8), 0.75), ((0.6, 0.1, 0.6), 0.25))  # directions and strengths
AMBIENT = 0.1
HOLE_PIXELS, HOLE_DEPTH = 9, 0.06  # a pixel that is deeper than its neighbourhood by this share of the scan is a hole


def find_scan_landmarks(vertices: np.ndarray, faces: np.ndarray, detector: LandmarkDetector) -> np.ndarray:
    """The 51 inner iBUG points of a scan that looks towards +z with y up, on the surface seen at each point's pixel.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        detector: finds the face in a grey picture of the scan.

    Returns:
        (51, 3) in the scan's frame and unit.

    Raises:
        UserError: no face can be seen.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    extent = float((high - low).max())
    if not extent > 0:
        raise UserError("the scan has no extent")
    scale = FILL * SIZE / extent
    places = (vertices - (low + high) / 2) * [scale, -scale, -scale] + [SIZE / 2, SIZE / 2, AWAY * SIZE]
    on_image, triangles = torch.from_numpy(places).float()[None], torch.from_numpy(faces)
    fragments = rasterize(on_image, triangles, (SIZE, SIZE))
    shades = _shades(torch.from_numpy(vertices).float()[None], triangles)
    drawn = interpolate(fragments, triangles, shades)[0, 0]
    seen = fragments.mask[0]
    picture = torch.where(seen, drawn, 1.0).clamp(0, 1).mul(255).round().byte().numpy()
    found = detector.detect(np.repeat(picture[..., None], 3, axis=2))
    if not found:
        raise UserError("no face is seen in the scan, which has to look towards +z with y up; give its landmarks")
    points = max(found, key=lambda face: face.area).landmarks[list(INNER_LANDMARKS)]
    heights = torch.from_numpy(vertices[:, 2:]).float()[None]
    height = torch.where(seen, interpolate(fragments, triangles, heights)[0, 0], float(low[2])).numpy()
    # A pixel between parted lips sees the back of the mouth, far behind the pixels around it.
    hole = maximum_filter(height, HOLE_PIXELS) - height > HOLE_DEPTH * extent
    rows = _nearest_pixels(points, seen.numpy() & ~hole)
    corners = faces[fragments.pix_to_face[0].numpy()[rows]]
    weights = fragments.barycentric[0].double().numpy()[rows]
    return np.einsum("nk,nkc->nc", weights, vertices[corners])


def _shades(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """(1, V, 1) grey under two lamps, alike on both sides, because a scan's triangles may face either way."""
    normals = VertexNormals(faces, vertices.shape[1])(vertices)
    normals = torch.where(normals[..., 2:] < 0, -normals, normals)
    total = torch.full_like(normals[..., :1], AMBIENT)
    for direction, strength in LIGHTS:
        towards = torch.nn.functional.normalize(normals.new_tensor(direction), dim=0)
        total = total + strength * (normals @ towards).clamp_min(0)[..., None]
    return total


def _nearest_pixels(points: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels with a surface that are nearest to (N, 2) continuous x, y."""
    rows, columns = np.nonzero(seen)
    squared = (columns + 0.5 - points[:, :1]) ** 2 + (rows + 0.5 - points[:, 1:]) ** 2
    chosen = squared.argmin(axis=1)
    return rows[chosen], columns[chosen]
