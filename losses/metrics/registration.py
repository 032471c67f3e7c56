"""Errors of a shape after it has been registered: point-to-plane distances, and the mouth's landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from losses.landmark import INNER_MOUTH
from losses.metrics.geometry import MILLIMETRES
from losses.metrics.mean_metric import MeanMetric

GAIN = 1e-6  # share by which a step has to lower the mean squared distance to count as one
PATIENCE = 3  # steps without such gain that end the registration: near the optimum neighbours flip to and fro
TRUSTED = 0.1  # of the target's extent, the farthest that one step of the point-to-plane kind may go


@dataclass(frozen=True)
class Similarity:
    """x -> scale R x + t.

    Attributes:
        scale: isotropic, above 0.
        rotation: (3, 3).
        translation: (3,) in the points' unit.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) -> (N, 3)"""
        return self.scale * points @ self.rotation.T + self.translation

    def after(self, first: Similarity) -> Similarity:
        """The similarity that does `first` and then this one."""
        translation = self.scale * self.rotation @ first.translation + self.translation
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, translation)


def umeyama(points: np.ndarray, targets: np.ndarray, scale: bool = True) -> Similarity:
    """The similarity that takes points nearest to their targets in the sense of least squares (Umeyama, 1991).

    Args:
        points: (N, 3).
        targets: (N, 3), row by row.
        scale: whether it may change the size.
    """
    centre, target_centre = points.mean(axis=0), targets.mean(axis=0)
    centred, target_centred = points - centre, targets - target_centre
    left, singular, right = np.linalg.svd(target_centred.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    spread = float((centred**2).sum())
    size = float(singular @ signs) / spread if scale and spread > 0 else 1.0
    return Similarity(size, rotation, target_centre - size * rotation @ centre)


def point_to_plane(points: np.ndarray, surface: cKDTree, normals: np.ndarray) -> np.ndarray:
    """Distances of points to the planes that touch a surface at its nearest vertices.

    Args:
        points: (N, 3).
        surface: tree over the surface's (M, 3) vertices.
        normals: (M, 3) unit.

    Returns:
        (N,) signed, positive on the normals' side.
    """
    _, nearest = surface.query(points)
    return ((points - surface.data[nearest]) * normals[nearest]).sum(axis=-1)


def icp(
    points: np.ndarray,
    surface: cKDTree,
    normals: np.ndarray,
    start: Similarity,
    scale: bool = True,
    iterations: int = 50,
) -> Similarity:
    """Iterative closest points with point-to-plane steps (Chen and Medioni, 1992) that may scale isotropically.

    Each step solves the linearised least squares for turn, shift and growth. Of all the places it has been to, the one
    with the least mean squared distance is returned.

    Args:
        points: (N, 3) of the moving shape.
        surface: tree over the (M, 3) vertices of the shape that stands still.
        normals: (M, 3) unit, of those vertices.
        start: where to begin; it has to be near, for only the nearest optimum is found.
        scale: whether it may change the size.
        iterations: at most.
    """
    farthest = TRUSTED * float(np.ptp(surface.data, axis=0).max())
    best, least, current, idle = start, np.inf, start, 0
    for _ in range(iterations + 1):
        moved = current.apply(points)
        _, nearest = surface.query(moved)
        distance = ((moved - surface.data[nearest]) * normals[nearest]).sum(axis=-1)
        error = float(np.mean(distance**2))
        idle = 0 if error < (1 - GAIN) * least else idle + 1
        if error < least:
            best, least = current, error
        if idle == PATIENCE:
            break
        current = _plane_step(moved, normals[nearest], distance, scale, farthest).after(current)
    return best


def _plane_step(
    points: np.ndarray, normals: np.ndarray, distance: np.ndarray, scale: bool, farthest: float
) -> Similarity:
    """The similarity whose linear part best takes points onto their planes, moving none much beyond `farthest`."""
    centre = points.mean(axis=0)
    arms = points - centre
    columns = [np.cross(arms, normals), normals]
    if scale:
        columns.append((arms * normals).sum(axis=-1, keepdims=True))
    design = np.hstack(columns)
    # Normal equations of at most seven unknowns; what a plane or a sphere leaves free stays where it is.
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

    From the predicted vertices to the true surface, in the true face's size. The registration starts from the
    similarity that fits vertices of the same index.

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
    surface = cKDTree(targets)
    placed = icp(points, surface, normals, umeyama(points, targets)).apply(points)
    return float(np.abs(point_to_plane(placed, surface, normals)).mean())


def inner_mouth_error(predicted: Tensor, true: Tensor, landmark_indices: Tensor) -> Tensor:
    """Mean distance of the eight inner-mouth landmark vertices, the mean translation of all vertices taken away.

    The error of the specular paper's table 5.

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
