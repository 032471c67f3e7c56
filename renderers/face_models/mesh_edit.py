"""Edits of triangle meshes as linear operators: bisecting long edges, cutting along a level set, subdividing.

An operator is a sparse matrix (V_new, V_old): it maps the mean and every basis column alike, so that a linear face
model stays linear. Where a rule must choose between equal alternatives it chooses by |x|, so that a mesh that is mirror
symmetric in x stays so.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.sparse as sparse

BUTTERFLY_OPPOSITE, BUTTERFLY_WING = 1 / 8, -1 / 16


def edges_of(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2) sorted unique edges, and (F, 3) which of them runs from each corner to the next."""
    corners = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    edges, inverse = np.unique(corners, axis=0, return_inverse=True)
    return edges, inverse.reshape(-1, 3)


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """The closed boundary loops, longest first, each with the mesh on its left (seen from outside)."""
    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    base = int(faces.max()) + 1
    single = ~np.isin(starts * base + ends, ends * base + starts)
    following = dict(zip(starts[single].tolist(), ends[single].tolist(), strict=True))
    loops = []
    while following:
        start = min(following)
        loop = [start]
        while (after := following.pop(loop[-1])) != start:
            loop.append(after)
        loops.append(np.array(loop))
    return sorted(loops, key=len, reverse=True)


def vertex_neighbours(faces: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """(V, V) symmetric adjacency of zeros and ones."""
    edges, _ = edges_of(faces)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(vertices, vertices))


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, outward where the faces are counter-clockwise."""
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def fix_signs(columns: np.ndarray) -> np.ndarray:
    """The (N, K) eigenvectors with signs that do not depend on rounding errors.

    Each is made positive along one fixed random direction. The usual rule, a positive largest component, fails on a
    symmetric face: an odd mode has two largest components, of opposite sign.
    """
    direction = np.random.Generator(np.random.PCG64(0)).standard_normal(len(columns))
    return columns * np.sign(direction @ columns)


def _opposite_vertices(faces: np.ndarray, edge_of_side: np.ndarray, edges: int) -> np.ndarray:
    """(E, 2) the corners that face each edge; -1 where a boundary edge has only one."""
    opposite = np.full((edges, 2), -1)
    for corner in range(3):
        side = edge_of_side[:, corner]
        against = faces[:, (corner + 2) % 3]
        order = np.argsort(side, kind="stable")
        side, against = side[order], against[order]
        slot = np.where(opposite[side, 0] < 0, 0, 1)
        # One corner position may meet an edge twice in a mesh whose faces turn differently.
        twice = np.concatenate([[False], side[1:] == side[:-1]])
        slot[twice] = 1
        opposite[side, slot] = against
    return opposite


def _selector(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def bisect(
    positions: np.ndarray, faces: np.ndarray, split: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Puts a vertex on chosen edges and re-triangulates the faces around them.

    A new vertex follows the butterfly rule (Dyn, Levin and Gregory 1990), which keeps the old vertices where they are;
    at a boundary it is the midpoint.

    Args:
        positions: (V, 3), for choosing diagonals.
        faces: (F, 3).
        split: (E,) bool for the edges of `edges_of(faces)`.

    Returns:
        The operator, the new faces, and (F_new,) the old face each came from.
    """
    edges, edge_of_side = edges_of(faces)
    vertices, chosen = len(positions), np.flatnonzero(split)
    opposite = _opposite_vertices(faces, edge_of_side, len(edges))
    lookup = {(int(a), int(b)): index for index, (a, b) in enumerate(edges)}
    rows, columns, values = [np.arange(vertices)], [np.arange(vertices)], [np.ones(vertices)]
    for slot, edge in enumerate(chosen):
        weights = _butterfly(edges[edge], opposite, opposite[edge], lookup)
        rows.append(np.full(len(weights), vertices + slot))
        columns.append(np.array(list(weights)))
        values.append(np.array(list(weights.values())))
    operator = _selector(
        np.concatenate(rows), np.concatenate(columns), np.concatenate(values), (vertices + len(chosen), vertices)
    )
    middle = np.full(len(edges), -1)
    middle[chosen] = vertices + np.arange(len(chosen))
    moved = operator @ positions
    new_faces: list[tuple[int, ...]] = []
    parents: list[int] = []
    for index, (face, sides) in enumerate(zip(faces, edge_of_side, strict=True)):
        polygon: list[int] = []
        for corner in range(3):
            polygon.append(int(face[corner]))
            if middle[sides[corner]] >= 0:
                polygon.append(int(middle[sides[corner]]))
        children = _triangulate(polygon, moved, vertices)
        new_faces += children
        parents += [index] * len(children)
    return operator, np.array(new_faces), np.array(parents)


def _butterfly(
    edge: np.ndarray, opposite: np.ndarray, against: np.ndarray, lookup: dict[tuple[int, int], int]
) -> dict[int, float]:
    a, b = int(edge[0]), int(edge[1])
    weights = {a: 0.5, b: 0.5}
    if (against < 0).any():
        return weights
    wings = []
    for tip in against:
        for end in (a, b):
            pair = opposite[lookup[(min(end, int(tip)), max(end, int(tip)))]]
            other = b if end == a else a
            wing = int(pair[0] if pair[1] == other else pair[1])
            if wing < 0:
                return weights
            wings.append(wing)
    for vertex, weight in [(int(tip), BUTTERFLY_OPPOSITE) for tip in against] + [(w, BUTTERFLY_WING) for w in wings]:
        weights[vertex] = weights.get(vertex, 0.0) + weight
    return weights


def _rank(first: int, second: int, positions: np.ndarray) -> tuple[float, ...]:
    """Orders diagonals: the shorter first, then by a key that is the same for the mirrored diagonal."""
    ends = positions[[first, second]]
    keys = np.round(np.concatenate([ends.mean(0)[1:], np.abs(ends[:, 0])]), 7)
    return (float(np.round(np.linalg.norm(ends[0] - ends[1]), 7)), *keys[:2], *sorted(keys[2:]))


def _triangulate(polygon: list[int], positions: np.ndarray, old: int) -> list[tuple[int, ...]]:
    """Fans out a triangle whose sides may carry a new vertex (index >= old): 1, 2, 3 or 4 triangles."""
    if len(polygon) == 3:
        return [tuple(polygon)]
    if len(polygon) == 6:
        a, ab, b, bc, c, ca = polygon if polygon[1] >= old else polygon[1:] + polygon[:1]
        return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    if len(polygon) == 4:
        at = next(i for i, vertex in enumerate(polygon) if vertex >= old)
        m, p, q, r = polygon[at:] + polygon[:at]
        return [(m, p, q), (m, q, r)]
    # Five corners: cut off the corner between the two new vertices, then split the rest along the better diagonal.
    at = next(i for i in range(5) if polygon[i] >= old and polygon[(i + 2) % 5] >= old)
    m, tip, n, p, q = polygon[at:] + polygon[:at]
    if _rank(m, p, positions) <= _rank(n, q, positions):
        return [(m, tip, n), (m, n, p), (m, p, q)]
    return [(m, tip, n), (n, p, q), (m, n, q)]


def cut(
    positions: np.ndarray, faces: np.ndarray, level: np.ndarray, snap: float = 0.3
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Keeps the part of a mesh where `level` >= 0 and gives it a boundary that lies on the zero level.

    A vertex nearer to the level set than `snap` of an edge is moved onto it, so that no slivers arise.

    Args:
        positions: (V, 3), for choosing diagonals.
        faces: (F, 3).
        level: (V,) signed function.
        snap: share of an edge, below 0.5.

    Returns:
        The operator to the vertices that are left, the new faces, and (F_new,) the old face each came from.
    """
    edges, _ = edges_of(faces)
    vertices, level = len(positions), level.copy()
    weights: dict[int, dict[int, float]] = {}
    crossing = edges[(level[edges[:, 0]] > 0) != (level[edges[:, 1]] > 0)]
    ends = np.concatenate([crossing, crossing[:, ::-1]])
    # A vertex of the mirror plane may only move within it.
    central = np.abs(positions[:, 0]) < 1e-9
    ends = ends[~central[ends[:, 0]] | central[ends[:, 1]]]
    share = np.round(level[ends[:, 0]] / (level[ends[:, 0]] - level[ends[:, 1]]), 9)
    for index in np.argsort(share, kind="stable"):
        a, b = (int(end) for end in ends[index])
        if share[index] >= snap:
            break
        if a not in weights and b not in weights:
            weights[a] = {a: 1 - float(share[index]), b: float(share[index])}
    level[list(weights)] = 0.0
    new_faces: list[tuple[int, ...]] = []
    parents: list[int] = []
    created: dict[tuple[int, int], int] = {}
    extended = [*positions]
    for index, face in enumerate(faces):
        polygon: list[int] = []
        for a, b in zip(face.tolist(), np.roll(face, -1).tolist(), strict=True):
            if level[a] >= 0:
                polygon.append(a)
            if level[a] * level[b] < 0:
                key = (min(a, b), max(a, b))
                if key not in created:
                    t = float(level[key[0]] / (level[key[0]] - level[key[1]]))
                    created[key] = vertices + len(created)
                    weights[created[key]] = {key[0]: 1 - t, key[1]: t}
                    extended.append((1 - t) * positions[key[0]] + t * positions[key[1]])
                polygon.append(created[key])
        if len(polygon) < 3 or all(vertex < vertices and level[vertex] == 0 for vertex in polygon):
            continue
        children = [tuple(polygon)] if len(polygon) == 3 else _split_quad(polygon, np.array(extended))
        new_faces += children
        parents += [index] * len(children)
    used, compact = np.unique(np.array(new_faces), return_inverse=True)
    entries = [(row, c, w) for row, v in enumerate(used) for c, w in weights.get(int(v), {int(v): 1.0}).items()]
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    return _selector(rows, columns, values, (len(used), vertices)), compact.reshape(-1, 3), np.array(parents)


def _split_quad(polygon: list[int], positions: np.ndarray) -> list[tuple[int, ...]]:
    a, b, c, d = polygon
    if _rank(a, c, positions) <= _rank(b, d, positions):
        return [(a, b, c), (a, c, d)]
    return [(a, b, d), (b, c, d)]


def _quarter(faces: np.ndarray, vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits every face in four: the edges, the side-to-edge table and the new faces (old vertices come first)."""
    edges, edge_of_side = edges_of(faces)
    ab, bc, ca = (vertices + edge_of_side).T
    a, b, c = faces.T
    quarters = np.stack(
        [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))], axis=1
    ).reshape(-1, 3)
    return edges, edge_of_side, quarters


def midpoint_operator(faces: np.ndarray, vertices: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One step that only adds the edges' midpoints: (V + E, V) and the (4F, 3) faces."""
    edges, _, quarters = _quarter(faces, vertices)
    halves = _selector(
        np.repeat(np.arange(len(edges)), 2), edges.ravel(), np.full(edges.size, 0.5), (len(edges), vertices)
    )
    return cast(sparse.csr_matrix, sparse.vstack([sparse.identity(vertices), halves], format="csr")), quarters


def loop_operator(faces: np.ndarray, vertices: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One step of Loop subdivision (Loop 1987): (V + E, V) with the old vertices first, and the (4F, 3) faces.

    Boundaries follow the cubic B-spline rule, so that they stay smooth curves.
    """
    edges, edge_of_side, quarters = _quarter(faces, vertices)
    opposite = _opposite_vertices(faces, edge_of_side, len(edges))
    inner = (opposite >= 0).all(axis=1)
    count = len(edges)
    own = np.where(inner, 3 / 8, 1 / 2)
    rows = [np.arange(count), np.arange(count), np.flatnonzero(inner), np.flatnonzero(inner)]
    columns = [edges[:, 0], edges[:, 1], opposite[inner, 0], opposite[inner, 1]]
    values = [own, own, np.full(inner.sum(), 1 / 8), np.full(inner.sum(), 1 / 8)]
    odd = _selector(np.concatenate(rows), np.concatenate(columns), np.concatenate(values), (count, vertices))
    boundary_edges = edges[~inner]
    on_boundary = np.zeros(vertices, dtype=bool)
    on_boundary[boundary_edges] = True
    ring = vertex_neighbours(faces, vertices)
    valence = np.asarray(ring.sum(axis=1)).ravel()
    weight = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / valence) / 4) ** 2) / valence
    weight[on_boundary] = 0.0
    a, b = np.concatenate([boundary_edges, boundary_edges[:, ::-1]]).T
    curve = _selector(a, b, np.full(len(a), 1 / 8), (vertices, vertices))
    kept = np.where(on_boundary, 3 / 4, 1 - weight * valence)
    even = sparse.diags(kept) + sparse.diags(weight) @ ring + curve
    return cast(sparse.csr_matrix, sparse.vstack([even, odd], format="csr")), quarters
