"""The head about the default face model: one mesh whose first vertices are the model's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.face_models.default.model import load_default, load_rest


@dataclass(frozen=True)
class WholeHead:
    """Head, neck and shoulders that follow the coefficients of the default face model.

    It has W vertices; the first V are those of the face model.

    Attributes:
        mean_shape: (W, 3) float32 decimetres in the face model's frame; the first V rows are the face model's.
        identity_basis: (W, 3, 80) float32, per standard deviation; the same coefficients as the face model's.
        expression_basis: (W, 3, 52) float32, per unit of weight; lower teeth and tongue go with the jaw.
        faces: (F, 3) counter-clockwise seen from outside. The face model's triangles but for the wall behind its lips,
            and the rest, joined vertex to vertex: one surface, open at the chest and the arms, plus eyeballs, teeth,
            tongue and lashes.
        parts: (F,) "face", "scalp", "ear", "neck", "shoulders", "mouth_cavity", "eye_socket", "eye_left", "eye_right"
            (full balls), "teeth_upper", "teeth_lower", "tongue", "lashes" (strips, for a texture with holes).
        scalp: (W,) signed distance in side view from the hairline of the neutral head, decimetres, positive where hair
            grows (meaningful on "face", "scalp", "ear" and "neck").
        mirror: (W,) each vertex's partner on the other side.
        eye_poles: (2, 2) the foremost and the hindmost vertex of the left (x > 0) and the right eyeball. The middle
            between them is the eyeball's centre at every identity and expression.
        eye_angle: (W,) degrees from the gaze axis on the eyeballs, 0 elsewhere; the pupil ends at 7, the iris at 20.
    """

    mean_shape: np.ndarray
    identity_basis: np.ndarray
    expression_basis: np.ndarray
    faces: np.ndarray
    parts: np.ndarray
    scalp: np.ndarray
    mirror: np.ndarray
    eye_poles: np.ndarray
    eye_angle: np.ndarray

    def vertices_of(self, *parts: str) -> np.ndarray:
        """The vertices of the triangles of these parts, ascending."""
        return np.unique(self.faces[np.isin(self.parts, parts)])


def load_whole_head() -> WholeHead:
    """The whole head; derived together with the face model at the first call, read from the cache afterwards.

    Raises:
        UserError: the cache cannot be written.
    """
    face, rest = load_default(), load_rest()
    arrays = face.arrays()
    joined = {
        name: np.concatenate([arrays[name], rest[name]])
        for name in ("mean_shape", "identity_basis", "expression_basis")
    }
    faces, parts, poles = rest["faces"], rest["parts"], rest["eye_poles"]
    return WholeHead(
        **joined,
        faces=faces,
        parts=parts,
        scalp=rest["scalp"],
        mirror=rest["mirror"],
        eye_poles=poles,
        eye_angle=_eye_angle(joined["mean_shape"], faces, parts, poles),
    )


def _eye_angle(points: np.ndarray, faces: np.ndarray, parts: np.ndarray, poles: np.ndarray) -> np.ndarray:
    angle = np.zeros(len(points), dtype=np.float32)
    for (front, back), eye in zip(poles, ("eye_left", "eye_right"), strict=True):
        ball = np.unique(faces[parts == eye])
        center = (points[front] + points[back]) / 2
        arm, axis = points[ball] - center, points[front] - center
        cosine = arm @ axis / np.linalg.norm(arm, axis=1) / np.linalg.norm(axis)
        angle[ball] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angle
