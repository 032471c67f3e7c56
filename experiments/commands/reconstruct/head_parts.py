"""What a face model lacks of a head: whole eyeballs, the inside of the mouth, teeth and a tongue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from renderers.face_models.base import MorphableModel
from renderers.face_models.default.whole_head import WholeHead, load_whole_head
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import Rendering
from renderers.vertex_normals import VertexNormals

GROUPS = {
    "face": ("face",),
    "eyes": ("eye_left", "eye_right"),
    "mouth": ("mouth_cavity",),
    "teeth": ("teeth_upper", "teeth_lower"),
    "tongue": ("tongue",),
}
"""The parts of a written mesh, of `WholeHead.parts`."""
# Their albedo, darker where little light arrives, and the corner of the texture (u, v) where it is painted: no face's
# chart reaches into the corners.
SWATCHES = {
    "teeth": ((0.80, 0.77, 0.70), (0.0, 0.0)),
    "tongue": ((0.42, 0.19, 0.18), (1.0, 0.0)),
    "mouth": ((0.22, 0.08, 0.075), (0.0, 1.0)),
}
SWATCH = 1 / 32  # of the texture's side
BRIGHT, DARK = 0.9, 0.05  # quantile of the vertices' light that is the mouth's, and the darkest albedo that tells light


@dataclass(frozen=True)
class HeadParts:
    """The default face model's mesh with the parts about it. V vertices of the model come first, X others follow.

    Attributes:
        faces: (F, 3) of all V + X, group after group.
        ends: by name in `GROUPS`, where in `faces` each group ends.
        shape_basis: (X, 3, I + E) decimetres, of the others.
        mean_shape: (X, 3) decimetres.
        uv: (X, 2)
        normals_of: (B, V + X, 3) points to unit normals.
    """

    faces: np.ndarray
    ends: dict[str, int]
    shape_basis: Tensor
    mean_shape: Tensor
    uv: np.ndarray
    normals_of: VertexNormals

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, I) and (B, E) -> (B, X, 3) decimetres, in the face model's frame."""
        return self.mean_shape + torch.einsum("vck,bk->bvc", self.shape_basis, torch.cat([identity, expression], -1))


@lru_cache(maxsize=1)
def head_parts(face_model: MorphableModel) -> HeadParts | None:
    """The parts that go with a face model; none but for the default one without subdivision."""
    if face_model.name != "default" or not isinstance(face_model, LinearModel):
        return None
    whole, own = load_whole_head(), face_model.vertex_count
    mean = face_model.mean_shape.cpu().numpy()
    if len(whole.mean_shape) <= own or not np.allclose(whole.mean_shape[:own], mean, atol=1e-5):
        return None
    # The strip of skin that joins the face to the rest of the head is not the face model's.
    chosen = {
        name: whole.faces[np.isin(whole.parts, parts) & ((whole.faces < own).all(axis=1) | (name != "face"))]
        for name, parts in GROUPS.items()
    }
    faces = np.concatenate(list(chosen.values()))
    others = np.unique(faces[faces >= own])
    compact = np.arange(len(whole.mean_shape))
    compact[others] = own + np.arange(len(others))
    faces = compact[faces].astype(np.int64)
    basis = np.concatenate([whole.identity_basis[others], whole.expression_basis[others]], axis=-1)
    return HeadParts(
        faces=faces,
        ends=dict(zip(chosen, np.cumsum([len(rows) for rows in chosen.values()]).tolist(), strict=True)),
        shape_basis=torch.from_numpy(basis).float(),
        mean_shape=torch.from_numpy(whole.mean_shape[others]).float(),
        uv=_places(whole, others, face_model.uv.cpu().double().numpy()),
        normals_of=VertexNormals(torch.from_numpy(faces), own + len(others)),
    )


def _places(whole: WholeHead, others: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(X, 2): each part's swatch; on the back of an eyeball the place of the nearest vertex of its front."""
    places, own = np.zeros((len(others), 2)), len(uv)
    for name, (_, corner) in SWATCHES.items():
        inside = np.isin(others, whole.vertices_of(*GROUPS[name]))
        places[inside] = np.abs(np.array(corner) - SWATCH / 2)
    for eye in GROUPS["eyes"]:
        ball = whole.vertices_of(eye)
        front, back = ball[ball < own], np.isin(others, ball)
        _, nearest = cKDTree(whole.mean_shape[front]).query(whole.mean_shape[others[back]])
        places[back] = uv[front[nearest]]
    return places


def painted(texture: np.ndarray, rendering: Rendering) -> np.ndarray:
    """The texture (S, S, 3) uint8 with the swatches of the mouth's parts, in the light of the rendered face."""
    light = rendering.vertex_colors[0] / rendering.vertex_albedo[0].clamp_min(DARK)
    share = light.quantile(BRIGHT, dim=0).clamp(0.2, 1.2).double().cpu().numpy()
    result, side = texture.copy(), round(SWATCH * len(texture))
    for color, (u, v) in SWATCHES.values():
        rows = slice(-side, None) if v == 0 else slice(side)
        columns = slice(side) if u == 0 else slice(-side, None)
        result[rows, columns] = (255 * np.clip(np.array(color) * share, 0, 1)).round()
    return result
