"""Errors of a shape after it has been registered: point-to-plane distances, and the mouth's landmarks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from losses.metrics.mean_metric import MeanMetric
from losses.metrics.similarity import Similarity, umeyama
from losses.metrics.surface import Nearest, PointCloud, Surface
from renderers.landmarks68 import INNER_MOUTH
from renderers.units import MILLIMETRES

Residual = Literal["plane", "point"]
Ruler = Literal["surface", "points"]

GAIN = 1e-6  # a step that lowers the mean squared distance by a smaller share is no progress
PATIENCE = 3  # steps without progress that end the registration; near the optimum the nearest points alternate
TRUSTED = 0.1  # of the surface's extent: the longest step
EXACT = 1e-10  # of the surface's extent: root mean squared residuals below it are rounding errors
SELECTION = 3000  # points that are enough for an approximate registration


def residuals(points: np.ndarray, nearest: Nearest, kind: Residual = "plane") -> tuple[np.ndarray, np.ndarray]:
    """Distances of points to a surface, and the directions in which they grow.

    Args:
        points: (N, 3).
        nearest: the surface's places nearest to them.
        kind: "plane" is the distance to the tangent plane in that place, positive on the normals' side. "point" is the
            distance to the place itself, at least 0.

    Returns:
        (N,) in the points' unit, and (N, 3) unit.
    """
    away = points - nearest.places
    along = (away * nearest.normals).sum(axis=-1)
    if kind == "plane":
        return along, nearest.normals
    distance = np.sqrt((away**2).sum(axis=-1))
    # On the surface itself the distance has no direction; the normal of the plane is used there.
    off = distance > np.finfo(np.float64).tiny
    direction = np.where(off[:, None], away / np.where(off, distance, 1.0)[:, None], nearest.normals)
    return np.where(off, distance, along), direction


def icp(
    points: np.ndarray,
    surface: Surface,
    start: Similarity,
    scale: bool = True,
    iterations: int = 50,
    kind: Residual = "plane",
    ruler: Ruler = "surface",
) -> Similarity:
    """Iterative closest points by Gauss-Newton steps (Chen and Medioni, 1992) that may scale isotropically.

    Each step solves the linearised least squares of the residuals for rotation, translation and scale. The best of all
    steps is returned, by mean squared residual.

    Args:
        points: (N, 3) of the moving shape.
        surface: the shape that stands still.
        start: where to begin. It has to be near the result, because only the nearest optimum is found.
        scale: whether the registration may change the size.
        iterations: at most.
        kind: of the residuals that are minimised.
        ruler: the shape in whose size residuals are measured, "surface" or the "points". Give the scan: a scan that is
            moved onto a prediction would otherwise shrink to make its residuals smaller.
    """
    extent = surface.extent
    best, least, current, idle = start, np.inf, start, 0
    for _ in range(iterations + 1):
        moved = current.apply(points)
        distance, direction = residuals(moved, surface.nearest(moved), kind)
        error = float(np.mean(distance**2)) / (current.scale**2 if ruler == "points" else 1.0)
        idle = 0 if error < (1 - GAIN) * least else idle + 1
        if error < least:
            best, least = current, error
        if idle == PATIENCE or least <= (EXACT * extent) ** 2:
            break
        current = _step(moved, direction, distance, scale, ruler, TRUSTED * extent).after(current)
    return best


def register(
    points: np.ndarray,
    surface: Surface,
    start: Similarity,
    scale: bool = True,
    kind: Residual = "plane",
    ruler: Ruler = "surface",
) -> Similarity:
    """`icp` of many points: first of an evenly spaced few, which is quick and comes near, then of all."""
    stride = len(points) // SELECTION
    if stride > 1:
        start = icp(points[::stride], surface, start, scale, kind=kind, ruler=ruler)
    return icp(points, surface, start, scale, kind=kind, ruler=ruler)


def _step(
    points: np.ndarray, direction: np.ndarray, distance: np.ndarray, scale: bool, ruler: Ruler, farthest: float
) -> Similarity:
    """The similarity that best removes the linearised residuals, without moving a point much beyond `farthest`."""
    centre = points.mean(axis=0)
    arms = points - centre
    columns = [np.cross(arms, direction), direction]
    if scale:
        growth = (arms * direction).sum(axis=-1)
        columns.append((growth - distance if ruler == "points" else growth)[:, None])
    design = np.hstack(columns)
    # At most seven unknowns. A plane or a sphere leaves some of them free; least norm keeps those at 0.
    change = np.linalg.lstsq(design.T @ design, -design.T @ distance, rcond=1e-10)[0]
    reach = np.abs(arms).max() * (np.abs(change[:3]).sum() + np.abs(change[6:]).sum()) + np.abs(change[3:6]).sum()
    change *= min(1.0, farthest / reach) if reach > 0 else 1.0
    turn, shift = _rotation(change[:3]), change[3:6]
    size = float(np.exp(change[6])) if scale else 1.0
    return Similarity(size, turn, centre + shift - size * turn @ centre)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3,) axis times angle in radians -> (3, 3)."""
    return Rotation.from_rotvec(vector).as_matrix()


def point_to_plane_error(predicted: Tensor, true: Tensor, true_normals: Tensor) -> Tensor:
    """Mean point-to-plane distance after ICP with an isotropic scale (specular paper, tables 2 to 4).

    Distances run from the predicted vertices to the true surface, in the true face's size. The registration starts at
    the similarity that best takes each vertex to the true vertex of the same index.

    Args:
        predicted: (B, V, 3) decimetres, in any pose.
        true: (B, V, 3) decimetres, of the same mesh.
        true_normals: (B, V, 3) unit.

    Returns:
        (B,) millimetres; NaN for a face with a vertex that is not finite.
    """
    arrays = (tensor.detach().cpu().double().numpy() for tensor in (predicted, true, true_normals))
    values = [_registered_error(*face) for face in zip(*arrays, strict=True)]
    return MILLIMETRES * torch.tensor(values, dtype=torch.float32, device=predicted.device)


def _registered_error(points: np.ndarray, targets: np.ndarray, normals: np.ndarray) -> float:
    if not (np.isfinite(points).all() and np.isfinite(targets).all()):
        return float("nan")
    surface = PointCloud(targets, normals)
    placed = icp(points, surface, umeyama(points, targets)).apply(points)
    return float(np.abs(residuals(placed, surface.nearest(placed))[0]).mean())


def inner_mouth_error(predicted: Tensor, true: Tensor, landmark_indices: Tensor) -> Tensor:
    """Mean distance of the eight inner-mouth landmark vertices, without the mean translation of all vertices.

    This is the error of the specular paper's table 5.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in the same frame but for a translation.
        landmark_indices: (68,) vertices of the iBUG points.

    Returns:
        (B,) millimetres.
    """
    difference = predicted - true
    difference = difference - difference.mean(dim=1, keepdim=True)
    mouth = difference[:, landmark_indices[INNER_MOUTH]]
    return MILLIMETRES * torch.linalg.vector_norm(mouth, dim=-1).mean(dim=-1)


class PointToPlaneError(MeanMetric):
    """`point_to_plane_error` in millimetres, averaged over faces. On the CPU, about a tenth of a second a face."""

    def update(self, predicted: Tensor, true: Tensor, true_normals: Tensor) -> None:
        """Take in B faces; the arguments of `point_to_plane_error`."""
        self.add(point_to_plane_error(predicted, true, true_normals))


class InnerMouthError(MeanMetric):
    """`inner_mouth_error` in millimetres, averaged over faces.

    Args:
        landmark_indices: (68,) vertices of the iBUG points.
        kwargs: of `torchmetrics.Metric`.
    """

    landmark_indices: Tensor

    def __init__(self, landmark_indices: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("landmark_indices", landmark_indices, persistent=False)

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) decimetres.
            true: (B, V, 3) decimetres, in the same frame but for a translation.
        """
        self.add(inner_mouth_error(predicted, true, self.landmark_indices))
