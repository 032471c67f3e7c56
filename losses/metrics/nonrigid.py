"""Correspondence by smooth registration: a mesh is bent onto a scan, so that each vertex has a place on the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from losses.metrics.similarity import umeyama
from losses.metrics.surface import Surface
from renderers.face_models.mesh_edit import vertex_neighbours, vertex_normals

STIFFNESS = (1000.0, 100.0, 10.0, 1.0)  # against bending, stage by stage
STEPS = 3  # searches for nearest places at each stiffness
FACING = 0.5  # least cosine between a vertex's normal and that of its nearest place
FARTHEST = 10.0  # millimetres; a nearest place beyond that belongs to another part of the face


@dataclass(frozen=True)
class Correspondence:
    """A mesh on a scan.

    Attributes:
        vertices: (V, 3) the mesh's vertices, bent onto the scan.
        valid: (V,) bool, those that found a place on it.
    """

    vertices: np.ndarray
    valid: np.ndarray


def smooth_registration(vertices: np.ndarray, faces: np.ndarray, surface: Surface) -> Correspondence:
    """Bend a mesh onto a surface nearby, stiffly at first (non-rigid ICP with a thin plate's energy).

    Each step draws every vertex to its nearest place, and keeps the second differences of the displacements small. The
    stiffness falls from stage to stage, as in Amberg et al., 2007. They compare neighbouring affine maps; the graph
    Laplacian takes their place here, so that the three coordinates share one factorisation.

    Args:
        vertices: (V, 3) millimetres, registered rigidly.
        faces: (F, 3).
        surface: the scan, in millimetres.
    """
    start = np.asarray(vertices, dtype=np.float64)
    laplacian = _laplacian(faces, len(start))
    bending = (laplacian.T @ laplacian).tocsc()
    displaced = np.zeros_like(start)
    for stiffness in STIFFNESS:
        for _ in range(STEPS):
            moved = start + displaced
            places, near = _drawn_to(moved, faces, surface)
            weight = sparse.diags(near.astype(np.float64) + 1e-6)
            system = splu((weight + stiffness * bending).tocsc())
            displaced = system.solve(weight @ np.where(near[:, None], places - start, displaced))
    moved = start + displaced
    return Correspondence(moved, _drawn_to(moved, faces, surface)[1])


def _drawn_to(points: np.ndarray, faces: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) nearest places, and (V,) whether each counts: it is not on the rim, not far, and faces the same way."""
    nearest = surface.nearest(points)
    facing = (vertex_normals(points, faces) * nearest.normals).sum(axis=1)
    close = ((points - nearest.places) ** 2).sum(axis=1) < FARTHEST**2
    # A scan's triangles may wind either way, all of them alike.
    sign = 1.0 if np.median(facing[close]) >= 0 else -1.0
    return nearest.places, close & ~nearest.border & (sign * facing > FACING)


def _laplacian(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """(V, V) sparse. Applied to vertices, it gives each vertex minus the mean of its neighbours."""
    joined = vertex_neighbours(faces, count)
    degree = np.asarray(joined.sum(axis=1)).reshape(-1).clip(1)
    return (sparse.identity(count, format="csr") - sparse.diags(1 / degree) @ joined).tocsr()


def correspondence_rmse(vertices: np.ndarray, truth: Correspondence, region: np.ndarray) -> float:
    """Root mean squared distance of corresponding vertices after a similarity, in the truth's unit.

    Unlike the distance to the nearest surface, it also counts vertices that slid along the surface, as M3DFB demands.

    Args:
        vertices: (V, 3) of a prediction, in any pose and size.
        truth: the same mesh on the scan.
        region: (V,) bool, the vertices that count, of those that found a place.
    """
    rows = region & truth.valid
    points, targets = vertices[rows], truth.vertices[rows]
    left = umeyama(points, targets).apply(points) - targets
    return float(np.sqrt((left**2).sum(axis=1).mean()))
