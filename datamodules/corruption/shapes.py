"""Plane geometry over a batch: convex hulls, filled polygons, and gauges of random shapes.

A gauge is a function that grows from 0 at a shape's centre: `gauge <= scale` is the shape at that scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderers.interpolation import pixel_centres

LEAST_FACE = 16  # pixels; with less of a face in sight, the whole picture counts as the face


def convex_hull(points: Tensor) -> Tensor:
    """Corners of the convex hulls, in order (gift wrapping, every set at once).

    Args:
        points: (B, N, 2).

    Returns:
        (B, K, 2) with K the most corners of a hull of the batch; hulls of fewer end with their first corner repeated.
    """
    rows = torch.arange(len(points), device=points.device)
    # The lowest point (the leftmost of these) is on the hull; the wrapping starts along +x.
    lowest = points[..., 1] == points[..., 1].amin(dim=1, keepdim=True)
    current = torch.where(lowest, points[..., 0], torch.inf).argmin(dim=1)
    corners = [points[rows, current]]
    direction = torch.tensor([1.0, 0.0], device=points.device, dtype=points.dtype).expand(len(points), 2)
    closed = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for _ in range(points.shape[1]):
        step = points - corners[-1][:, None]
        cross = direction[:, None, 0] * step[..., 1] - direction[:, None, 1] * step[..., 0]
        along = (direction[:, None] * step).sum(dim=-1)
        length = step.square().sum(dim=-1)
        # Rounding may turn "straight on" into a full turn.
        turn = torch.atan2(cross, along)
        turn = torch.where(turn < -1e-4, turn + 2 * math.pi, turn)
        turn = torch.where(length > 0, turn, torch.inf)
        nearest = turn <= turn.amin(dim=1, keepdim=True) + 1e-6
        current = torch.where(nearest, length, -1.0).argmax(dim=1)
        corner = points[rows, current]
        # Back at the first corner, or past it where it lay on a straight line to the second.
        closed |= (torch.stack(corners[:2], dim=1) == corner[:, None]).all(dim=2).any(dim=1)
        if bool(closed.all()):
            break
        corner = torch.where(closed[:, None], corners[0], corner)
        direction = corner - corners[-1]
        corners.append(corner)
    return torch.stack(corners, dim=1)


def fill_polygon(corners: Tensor, height: int, width: int) -> Tensor:
    """Pixels whose centres lie inside polygons (even-odd rule).

    Every row's crossings are dropped into their columns; the parity of their running sum is the inside. Costs
    K H + H W, not K H W.

    Args:
        corners: (B, K, 2) pixels, continuous, in order; any polygon, also one that leaves the picture.
        height: pixels.
        width: pixels.

    Returns:
        (B, H, W) bool.
    """
    y = pixel_centres(height, width, corners)[:, :1, 1]
    here, after = corners, corners.roll(-1, dims=1)
    # (B, H, K): the rows that an edge crosses, half-open so that a corner on a row counts once.
    crosses = (here[:, None, :, 1] <= y) != (after[:, None, :, 1] <= y)
    rise = torch.where(crosses, (after - here)[:, None, :, 1], 1.0)
    x = here[:, None, :, 0] + (y - here[:, None, :, 1]) / rise * (after - here)[:, None, :, 0]
    # The first pixel whose centre is right of the crossing.
    column = (x + 0.5).floor().clamp(0, width).long()
    counts = torch.zeros(len(corners), height, width + 1, device=corners.device, dtype=torch.int32)
    counts.scatter_add_(2, column, crosses.to(torch.int32))
    return counts.cumsum(dim=2)[..., :width] % 2 == 1


def face_hull(landmarks: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool: pixel centres in the convex hull of the (B, 68, 2) landmarks; all where those are too few."""
    hull = fill_polygon(convex_hull(landmarks), height, width)
    return hull | (hull.sum(dim=(1, 2), keepdim=True) < LEAST_FACE)


def ellipse_gauge(x: Tensor, y: Tensor, aspect: Tensor) -> Tensor:
    """sqrt((x / a)^2 + (a y)^2): ellipses of the area pi at scale 1; all broadcast, aspect > 0."""
    return torch.hypot(x / aspect, y * aspect)


def rectangle_gauge(x: Tensor, y: Tensor, aspect: Tensor) -> Tensor:
    """max(|x| / a, a |y|): rectangles of the area 4 at scale 1; all broadcast, aspect > 0."""
    return torch.maximum((x / aspect).abs(), (y * aspect).abs())


def polygon_gauge(x: Tensor, y: Tensor, angles: Tensor, distances: Tensor) -> Tensor:
    """Convex polygons, each the intersection of half-planes.

    Args:
        x: (S, H, W).
        y: (S, H, W).
        angles: (S, E) radians, of the sides' outward normals; no gap between neighbours may reach pi.
        distances: (S, E) positive, of the sides from the centre at scale 1.

    Returns:
        (S, H, W) the largest of (cos a x + sin a y) / d.
    """
    across = (torch.cos(angles) / distances)[..., None, None]
    down = (torch.sin(angles) / distances)[..., None, None]
    gauge = across[:, 0] * x + down[:, 0] * y
    for side in range(1, angles.shape[1]):
        gauge = torch.maximum(gauge, across[:, side] * x + down[:, side] * y)
    return gauge


def blob_gauge(x: Tensor, y: Tensor, amplitudes: Tensor, phases: Tensor) -> Tensor:
    """Round shapes with waves on their outlines: r / exp(sum_m a_m cos(m theta + phase_m)), m = 2, 3, ...

    Args:
        x: (S, H, W).
        y: (S, H, W).
        amplitudes: (S, M).
        phases: (S, M) radians.
    """
    theta = torch.atan2(y, x)
    swell = torch.zeros_like(theta)
    for wave in range(amplitudes.shape[1]):
        amplitude, phase = amplitudes[:, wave, None, None], phases[:, wave, None, None]
        swell = swell + amplitude * torch.cos((wave + 2) * theta + phase)
    return torch.hypot(x, y) * torch.exp(-swell)


def stripes_gauge(x: Tensor, period: Tensor) -> Tensor:
    """Distance to the nearest multiple of the period, as a part of half of it: bars that meet at scale 1."""
    turns = x / period
    return 2 * (turns - turns.round()).abs()
