"""UV unwrapping of a face into one chart: a convex-combination map with its boundary on an oval.

A planar map whose every inner vertex is a positive average of its neighbours, with the boundary on a convex curve, has
no fold (Tutte 1963, Floater 1997). Mean-value weights (Floater 2003) keep angles; dividing the weights by each vertex's
stretch (Yoshizawa, Belyaev and Seidel 2004) evens out areas without losing the guarantee.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import spsolve

from renderers.face_models.mesh_edit import boundary_loops

STRETCH_STEPS = 6


def unwrap(positions: np.ndarray, faces: np.ndarray, outline: np.ndarray, margin: float = 0.01) -> np.ndarray:
    """UV of a disk-shaped mesh; holes must have been filled.

    Args:
        positions: (V, 3) x right, y up, z towards the viewer.
        faces: (F, 3) counter-clockwise seen from outside.
        outline: (L,) the outer boundary loop, counter-clockwise seen from the front.
        margin: free border of the UV square.

    Returns:
        (V, 2) in [margin, 1 - margin], origin bottom-left, v up, every triangle turning the same way.
    """
    weights = _mean_value_weights(positions, faces)
    fixed = _oval(positions[outline])
    best = chart = _solve(weights, outline, fixed)
    best_stretch = np.inf
    for _ in range(STRETCH_STEPS):
        per_face = _face_stretch(positions, faces, chart)
        total = float(np.sqrt((per_face**2 * _areas(positions, faces)).sum()))
        if total >= best_stretch:
            break
        best, best_stretch = chart, total
        at_vertex = _vertex_mean(per_face**2, _areas(positions, faces), faces, len(positions)) ** 0.5
        weights = cast(sparse.csr_matrix, weights @ sparse.diags(1 / np.maximum(at_vertex, 1e-12)))
        chart = _solve(weights, outline, fixed)
    span = best.max(axis=0) - best.min(axis=0)
    return margin + (1 - 2 * margin) * (best - best.min(axis=0)) / span


def _mean_value_weights(positions: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """(V, V) positive weights: (tan(a/2) + tan(b/2)) / length, with the angles at the row's vertex."""
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = (faces[:, (corner + step) % 3] for step in range(3))
        to_j, to_k = positions[j] - positions[i], positions[k] - positions[i]
        length_j, length_k = np.linalg.norm(to_j, axis=1), np.linalg.norm(to_k, axis=1)
        cosine = (to_j * to_k).sum(axis=1) / np.maximum(length_j * length_k, 1e-12)
        half = np.tan(np.arccos(np.clip(cosine, -1, 1)) / 2)
        # Angles near 180 degrees, in thin triangles, would give almost infinite weights.
        half = np.minimum(half, 20.0)
        rows += [i, i]
        columns += [j, k]
        values += [half / np.maximum(length_j, 1e-6), half / np.maximum(length_k, 1e-6)]
    shape = (len(positions), len(positions))
    return sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def _oval(loop: np.ndarray) -> np.ndarray:
    """(L, 2) the boundary on a superellipse, spaced by length, the middle of the brow on top."""
    length = np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1)
    along = np.concatenate([[0.0], np.cumsum(length)[:-1]]) / length.sum()
    top = np.argmax(loop[:, 1] - 10 * np.abs(loop[:, 0]))
    turn = 2 * np.pi * (along - along[top]) + np.pi / 2
    # Seen from the front the loop runs counter-clockwise, as the angle does.
    cosine, sine = np.cos(turn), np.sin(turn)
    radius = (np.abs(cosine) ** 2.6 + np.abs(sine) ** 2.6) ** (-1 / 2.6)
    return np.column_stack([radius * cosine, radius * sine])


def _solve(weights: sparse.csr_matrix, outline: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    count = weights.shape[0]
    inner = np.ones(count, dtype=bool)
    inner[outline] = False
    normalized = sparse.diags(1 / np.asarray(weights.sum(axis=1)).ravel()) @ weights
    system = (sparse.identity(count) - normalized).tocsr()[inner]
    chart = np.zeros((count, 2))
    chart[outline] = fixed
    chart[inner] = spsolve(system[:, inner].tocsc(), -(system[:, outline] @ fixed))
    return chart


def _areas(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (positions[faces[:, corner]] for corner in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _face_stretch(positions: np.ndarray, faces: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """(F,) root-mean-square stretch of the map from the chart to the surface (Sander et al. 2001)."""
    p1, p2, p3 = (chart[faces[:, corner]] for corner in range(3))
    q1, q2, q3 = (positions[faces[:, corner]] for corner in range(3))
    u, v = [p1[:, 0], p2[:, 0], p3[:, 0]], [p1[:, 1], p2[:, 1], p3[:, 1]]
    doubled = (u[1] - u[0]) * (v[2] - v[0]) - (u[2] - u[0]) * (v[1] - v[0])
    doubled = np.where(np.abs(doubled) < 1e-14, 1e-14, doubled)[:, None]
    along_u = (q1 * (v[1] - v[2])[:, None] + q2 * (v[2] - v[0])[:, None] + q3 * (v[0] - v[1])[:, None]) / doubled
    along_v = (q1 * (u[2] - u[1])[:, None] + q2 * (u[0] - u[2])[:, None] + q3 * (u[1] - u[0])[:, None]) / doubled
    return np.sqrt(((along_u**2).sum(axis=1) + (along_v**2).sum(axis=1)) / 2)


def _vertex_mean(values: np.ndarray, weights: np.ndarray, faces: np.ndarray, vertices: int) -> np.ndarray:
    total = np.bincount(faces.ravel(), np.repeat(values * weights, 3), vertices)
    return total / np.maximum(np.bincount(faces.ravel(), np.repeat(weights, 3), vertices), 1e-12)


def fill_eye_holes(
    positions: np.ndarray, faces: np.ndarray, eyeballs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Joins each eyeball's rim to the lid margin around it by a strip of triangles, so that the face is one disk.

    The strip is used by the unwrapping alone, so that the eyeballs come to lie inside the lids.

    Args:
        positions: (V, 3).
        faces: (F, 3) face and eyeballs.
        eyeballs: the vertices of each eyeball.

    Returns:
        The (F + S, 3) faces, and the outer boundary loop (L,).
    """
    loops = boundary_loops(faces)
    strips = [faces]
    for eyeball in eyeballs:
        rim = next(loop for loop in loops if np.isin(loop, eyeball).all())
        others = [loop for loop in loops[1:] if not np.isin(loop, np.concatenate(eyeballs)).any()]
        middle = positions[rim].mean(axis=0)
        lid = min(others, key=lambda loop: float(np.linalg.norm(positions[loop].mean(axis=0) - middle)))
        strips.append(_bridge(positions, lid, rim, middle))
    return np.concatenate(strips), loops[0]


def _bridge(positions: np.ndarray, lid: np.ndarray, rim: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """A strip between two loops that run in opposite senses, by their angle about `middle` in the frontal plane."""
    outer, inner = lid[::-1], rim  # now both run counter-clockwise seen from the front
    angle_outer, angle_inner = (_unrolled_angle(positions[loop] - middle) for loop in (outer, inner))
    start = int(np.argmin(np.abs(np.angle(np.exp(1j * (angle_outer - angle_inner[0]))))))
    outer = np.roll(outer, -start)
    share_outer, share_inner = _shares(positions[outer] - middle), _shares(positions[inner] - middle)
    triangles, i, j = [], 0, 0
    while i < len(outer) or j < len(inner):
        a, b = outer[i % len(outer)], inner[j % len(inner)]
        if j >= len(inner) or (i < len(outer) and share_outer[i] <= share_inner[j]):
            i += 1
            triangles.append((a, outer[i % len(outer)], b))
        else:
            j += 1
            triangles.append((a, inner[j % len(inner)], b))
    return np.array(triangles)


def _unrolled_angle(offsets: np.ndarray) -> np.ndarray:
    return np.arctan2(offsets[:, 1], offsets[:, 0])


def _shares(offsets: np.ndarray) -> np.ndarray:
    """(L,) how far around a loop each vertex's successor stands, 0 to 1."""
    steps = np.linalg.norm(np.roll(offsets, -1, axis=0) - offsets, axis=1)
    return np.cumsum(steps) / steps.sum()
