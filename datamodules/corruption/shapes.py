"""Plane geometry over a batch: convex hulls, filled polygons, and gauges of random shapes.

A gauge is a function that grows from 0 at a shape's centre. The shape of any scale is where `gauge <= scale`.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from renderers.raster.interpolation import pixel_centres

LEAST_FACE = 16  # pixels; if less of a face is in the picture, the whole picture counts as the face


def convex_hull(points: Tensor) -> Tensor:
    """Corners of the convex hulls, in order. OpenCV finds them on the CPU, faster than torch can.

    Args:
        points: (B, N, 2).

    Returns:
        (B, K, 2), where K is the largest number of corners in the batch. Other hulls repeat their first corner.
    """
    hulls = [
        cv2.convexHull(cloud, returnPoints=False)[:, 0] for cloud in points.detach().float().contiguous().cpu().numpy()
    ]
    corners = np.repeat([hull[0] for hull in hulls], max(map(len, hulls))).reshape(len(hulls), -1)
    for row, hull in zip(corners, hulls, strict=True):
        row[: len(hull)] = hull
    index = torch.from_numpy(corners).long().to(points.device)
    return points.gather(1, index[..., None].expand(-1, -1, 2))


def fill_polygon(corners: Tensor, height: int, width: int) -> Tensor:
    """Pixels whose centres lie inside polygons (even-odd rule).

    Each row counts the crossings of edges in its columns. A pixel is inside if the running sum of these counts is odd.
    The cost is K H + H W, not K H W.

    Args:
        corners: (B, K, 2) continuous pixels, in order; the polygon may leave the picture.
        height: pixels.
        width: pixels.

    Returns:
        (B, H, W) bool.
    """
    y = pixel_centres(height, width, corners)[:, :1, 1]
    here, after = corners, corners.roll(-1, dims=1)
    # (B, H, K): whether an edge crosses a row. Edges are half-open, so that a corner on a row counts once.
    crosses = (here[:, None, :, 1] <= y) != (after[:, None, :, 1] <= y)
    rise = torch.where(crosses, (after - here)[:, None, :, 1], 1.0)
    x = here[:, None, :, 0] + (y - here[:, None, :, 1]) / rise * (after - here)[:, None, :, 0]
    # The first pixel whose centre is right of the crossing.
    column = (x + 0.5).floor().clamp(0, width).long()
    counts = torch.zeros(len(corners), height, width + 1, device=corners.device, dtype=torch.int32)
    counts.scatter_add_(2, column, crosses.to(torch.int32))
    return counts.cumsum(dim=2)[..., :width] % 2 == 1


def face_hull(landmarks: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool: pixels in the convex hull of the (B, 68, 2) landmarks; all pixels if these are too few."""
    hull = fill_polygon(convex_hull(landmarks), height, width)
    return hull | (hull.sum(dim=(1, 2), keepdim=True) < LEAST_FACE)


def ellipse_gauge(x: Tensor, y: Tensor, aspect: Tensor) -> Tensor:
    """sqrt((x / a)^2 + (a y)^2): ellipses of area pi at scale 1. Arguments broadcast; aspect > 0."""
    return torch.hypot(x / aspect, y * aspect)


def rectangle_gauge(x: Tensor, y: Tensor, aspect: Tensor) -> Tensor:
    """max(|x| / a, a |y|): rectangles of area 4 at scale 1. Arguments broadcast; aspect > 0."""
    return torch.maximum((x / aspect).abs(), (y * aspect).abs())


def polygon_gauge(x: Tensor, y: Tensor, angles: Tensor, distances: Tensor) -> Tensor:
    """Convex polygons, each the intersection of half-planes.

    Args:
        x: (S, H, W).
        y: (S, H, W).
        angles: (S, E) radians, directions of the sides' outward normals; neighbours differ by less than pi.
        distances: (S, E) positive distances of the sides from the centre at scale 1.

    Returns:
        (S, H, W) the largest of (cos a x + sin a y) / d.
    """
    across = (torch.cos(angles) / distances)[..., None, None]
    down = (torch.sin(angles) / distances)[..., None, None]
    return torch.addcmul(across * x[:, None], down, y[:, None]).amax(dim=1)


def blob_gauge(x: Tensor, y: Tensor, amplitudes: Tensor, phases: Tensor) -> Tensor:
    """Round shapes with waves on their outlines: r / exp(sum_m a_m cos(m theta + phase_m)), m = 2, 3, ...

    Args:
        x: (S, H, W).
        y: (S, H, W).
        amplitudes: (S, M).
        phases: (S, M) radians.
    """
    waves = torch.arange(2, amplitudes.shape[1] + 2, device=x.device)[:, None, None]
    turned = torch.cos(waves * torch.atan2(y, x)[:, None] + phases[..., None, None])
    swell = (amplitudes[..., None, None] * turned).sum(dim=1)
    return torch.hypot(x, y) * torch.exp(-swell)


def stripes_gauge(x: Tensor, period: Tensor) -> Tensor:
    """Distance to the nearest multiple of the period, over half the period: bars that meet at scale 1."""
    turns = x / period
    return 2 * (turns - turns.round()).abs()
