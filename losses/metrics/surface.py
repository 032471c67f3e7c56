"""The surfaces that a registration can align to: a cloud of points with normals, or a mesh of triangles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.spatial import cKDTree

ROUNDING = 1e-9  # a place where a corner weighs less lies on the edge opposite to that corner


@dataclass(frozen=True)
class Nearest:
    """The nearest places of a surface to N points.

    Attributes:
        places: (N, 3).
        normals: (N, 3) unit, of the surface there.
        border: (N,) bool, whether the place lies on the border of an open surface; beyond it nothing was scanned.
    """

    places: np.ndarray
    normals: np.ndarray
    border: np.ndarray


class Surface(Protocol):
    """The fixed shape of a registration."""

    @property
    def extent(self) -> float:
        """Its longest side along an axis."""
        ...

    def nearest(self, points: np.ndarray) -> Nearest:
        """Of (N, 3) finite points."""
        ...


class PointCloud:
    """Vertices with normals: the nearest place is the nearest vertex.

    Args:
        vertices: (M, 3).
        normals: (M, 3) unit.
    """

    def __init__(self, vertices: np.ndarray, normals: np.ndarray) -> None:
        self.tree, self.normals = cKDTree(vertices), normals

    @property
    def extent(self) -> float:
        return float(np.ptp(self.tree.data, axis=0).max())

    def nearest(self, points: np.ndarray) -> Nearest:
        """See `Surface.nearest`; a cloud has no border."""
        _, rows = self.tree.query(points)
        return Nearest(self.tree.data[rows], self.normals[rows], np.zeros(len(points), dtype=bool))


class TriangleMesh:
    """A mesh of triangles. The nearest place is exact: inside a face, on an edge or in a corner.

    Faces without area are skipped. The search for the border takes vertices in the same place for one, so that a
    texture's seam is no border.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        device: see `losses.metrics.closest_points.ClosestPoints`.

    Raises:
        ValueError: vertices that are not finite, faces that name none of them, or no face with an area.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, device: str | None = None) -> None:
        from losses.metrics.closest_points import ClosestPoints

        self.vertices = np.ascontiguousarray(vertices, dtype=np.float64)
        faces = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
        if not np.isfinite(self.vertices).all():
            raise ValueError("the mesh has vertices that are not finite")
        if len(faces) and not 0 <= faces.min() <= faces.max() < len(self.vertices):
            raise ValueError("the mesh has faces that name no vertex")
        first, second, third = (self.vertices[faces[:, corner]] for corner in range(3))
        across = np.cross(second - first, third - first)
        area = np.sqrt((across**2).sum(axis=1))
        flat = area > 0
        if not flat.any():
            raise ValueError("the mesh has no face with an area")
        self.faces, self._normals = faces[flat], across[flat] / area[flat, None]
        self._index = ClosestPoints(self.vertices, self.faces, device)

    @property
    def extent(self) -> float:
        return float(np.ptp(self.vertices, axis=0).max())

    def nearest(self, points: np.ndarray) -> Nearest:
        """See `Surface.nearest`.

        Raises:
            ValueError: points that are not finite.
        """
        if not np.isfinite(points).all():
            raise ValueError("points that are not finite have no nearest one")
        rows, weights = self._index.query(points)
        corners = self.faces[rows]
        places = np.einsum("nk,nkc->nc", weights, self.vertices[corners])
        return Nearest(places, self._normals[rows], self._on_border(rows, weights, corners))

    def _on_border(self, rows: np.ndarray, weights: np.ndarray, corners: np.ndarray) -> np.ndarray:
        edges, open_vertices = self._border
        absent = weights < ROUNDING
        count = absent.sum(axis=1)
        on_edge = (count == 1) & (edges[rows] & absent).any(axis=1)
        corner = np.take_along_axis(corners, weights.argmax(axis=1)[:, None], axis=1)[:, 0]
        return on_edge | ((count == 2) & open_vertices[corner])

    @cached_property
    def _border(self) -> tuple[np.ndarray, np.ndarray]:
        """(F, 3) whether the edge opposite to each corner has no other face, and (V,) whether a vertex is on one."""
        _, merged = np.unique(self.vertices, axis=0, return_inverse=True)
        merged = merged.reshape(-1)
        corners = merged[self.faces]
        pairs = np.sort(np.stack([corners[:, [1, 2]], corners[:, [2, 0]], corners[:, [0, 1]]], axis=1), axis=2)
        keys = pairs[..., 0] * len(self.vertices) + pairs[..., 1]
        _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
        edges = counts[places].reshape(keys.shape) == 1
        open_vertices = np.zeros(len(self.vertices), dtype=bool)
        open_vertices[pairs[edges].reshape(-1)] = True
        return edges, open_vertices[merged]
