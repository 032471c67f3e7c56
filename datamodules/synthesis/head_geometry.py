"""The whole head for scenes: the material of each triangle, and all else that does not depend on a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from datamodules.synthesis.hair import STYLES, Head, Ribbons, followed, grow
from datamodules.synthesis.parsing import LABEL
from datamodules.synthesis.shading import ambient_share
from datamodules.synthesis.shading_kernel import EYE, MOUTH, SKIN
from datamodules.synthesis.wear import Shell, garment, hat
from renderers.face_models.default.whole_head import WholeHead, load_whole_head
from renderers.face_models.linear import LinearModel
from renderers.io.errors import UserError
from renderers.vertex_normals import VertexNormals

HAIRDOS = 5  # of each style
TEETH, TONGUE, GUMS = (0.80, 0.77, 0.70), (0.62, 0.32, 0.31), (0.42, 0.17, 0.16)
SCLERA = (0.74, 0.70, 0.68)
SKIN_PARTS = ("face", "scalp", "ear", "neck", "shoulders")
CONTROL_COUNT = 500
FINE_HAIR, LEAST_HAIR = 256, 0.4  # pixels at which every ribbon is drawn, and the least share of them
NEIGHBOURS = 12  # points of ribbons over which the light in the hair is averaged


@dataclass(frozen=True)
class Hairdo:
    """A head of hair with H vertices, which fits every person.

    Attributes:
        ribbons: on the mean head.
        near, weights: (H, CONTROLS) the head's control points that move each vertex, and their weights.
        ambient: (W + H,) share of the soft light that arrives at the head's and at the hair's vertices.
    """

    ribbons: Ribbons
    near: Tensor
    weights: Tensor
    ambient: Tensor


class HeadGeometry:
    """The default face model's whole head. W vertices, of which the first V are the face model's; F triangles.

    Args:
        face_model: the default one, not subdivided.
        size: side of the pictures in pixels; larger ones get finer hair.

    Raises:
        UserError: another face model, which has no whole head.

    Attributes:
        whole: the mesh and its bases.
        faces: (F, 3), without lashes.
        parts: (F,) of `WholeHead`.
        materials: (F,) int32.
        labels: (F,) of `parsing`.
        own: (F,) bool, the triangles that are the face model's.
        uv: (W, 2) of the face model's chart, 0 elsewhere; on eyeballs the direction across the gaze axis.
    """

    def __init__(self, face_model: LinearModel, size: int) -> None:
        self.whole: WholeHead = load_whole_head()
        own = face_model.vertex_count
        mean = torch.from_numpy(self.whole.mean_shape)
        if len(mean) <= own or not torch.allclose(mean[:own], face_model.mean_shape, atol=1e-5):
            raise UserError(
                f"whole heads are made of the face model `default` without subdivision; {face_model.name} is another"
            )
        self.face_model, self.mean = face_model, mean
        self.hair_detail = min(1.0, max(LEAST_HAIR, size / FINE_HAIR))
        # The lashes are strips that need a texture with transparency.
        kept = self.whole.parts != "lashes"
        self.parts = self.whole.parts[kept]
        self.faces = torch.from_numpy(self.whole.faces[kept].astype(np.int64))
        basis = np.concatenate([self.whole.identity_basis, self.whole.expression_basis], axis=-1)
        self.basis = torch.from_numpy(np.ascontiguousarray(basis.reshape(-1, basis.shape[-1]).T))
        self.normals_of = VertexNormals(self.faces, len(mean))
        self.own = (self.faces < own).all(dim=1)
        self.materials, self.labels = self._materials(), self._labels()
        self.uv = self._uv()
        self.normals = self.normals_of(mean[None])[0]

    @property
    def size(self) -> int:
        """W"""
        return len(self.mean)

    def part(self, *names: str) -> NDArray[np.bool_]:
        """(F,) the triangles of some parts."""
        return np.isin(self.parts, names)

    @lru_cache  # noqa: B019
    def vertices_of(self, *parts: str) -> Tensor:
        """The vertices of the triangles of these parts, ascending."""
        return torch.from_numpy(self.whole.vertices_of(*parts))

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, I) and (B, E) -> (B, W, 3) decimetres, the first V as the face model has them."""
        weights = torch.cat([identity, expression], dim=-1)
        return torch.addmm(self.mean.flatten(), weights, self.basis).unflatten(-1, (-1, 3))

    def _materials(self) -> Tensor:
        materials = np.full(len(self.faces), int(SKIN), dtype=np.int32)
        materials[self.part("eye_left", "eye_right")] = int(EYE)
        materials[self.part("mouth_cavity", "teeth_upper", "teeth_lower", "tongue")] = int(MOUTH)
        return torch.from_numpy(materials)

    def _labels(self) -> Tensor:
        """(F,) labels by the head's parts and the face model's regions; a triangle has the region of most corners."""
        labels = np.full(len(self.faces), LABEL["skin"], dtype=np.uint8)
        corners = self.faces.numpy()
        for region, label in (("nose", "nose"), ("lips", "lips"), ("brows", "brows")):
            inside = np.zeros(self.size, dtype=bool)
            inside[self.face_model.regions[region].numpy()] = True
            labels[inside[corners].sum(axis=1) >= 2] = LABEL[label]
        for part, label in (
            (("eye_left", "eye_right"), "eyes"),
            (("mouth_cavity", "teeth_upper", "teeth_lower", "tongue"), "inner_mouth"),
            (("neck", "shoulders"), "neck"),
            (("ear",), "ears"),
        ):
            labels[self.part(*part)] = LABEL[label]
        return torch.from_numpy(labels)

    def _uv(self) -> Tensor:
        uv = torch.zeros(self.size, 2)
        uv[: self.face_model.vertex_count] = self.face_model.uv
        for front, back in self.whole.eye_poles:
            eye = "eye_left" if self.mean[front, 0] > 0 else "eye_right"
            ball = self.vertices_of(eye)
            middle, axis = (self.mean[front] + self.mean[back]) / 2, (self.mean[front] - self.mean[back]) / 2
            arm = (self.mean[ball] - middle) / axis.norm()
            uv[ball] = arm[:, :2] - (axis / axis.norm())[:2] * (arm @ (axis / axis.norm()))[:, None]
        return uv

    @cached_property
    def rim(self) -> tuple[Tensor, Tensor]:
        """(W - V, CONTROLS) the face model's vertices whose colours each other vertex takes, and their weights."""
        candidates = np.concatenate([self.face_model.regions[name].numpy() for name in ("boundary", "cheeks")])
        points = self.whole.mean_shape.astype(float)
        near, weights = followed(points[self.face_model.vertex_count :], points[candidates])
        return torch.from_numpy(candidates[near]), torch.from_numpy(weights).float()

    def skin_colors(self, albedo: Tensor) -> Tensor:
        """(V, 3) colours of the face model -> (W, 3) of all the skin, display values."""
        near, weights = self.rim
        rest = (albedo[near] * weights[..., None]).sum(dim=1)
        return torch.cat([albedo, rest])

    @cached_property
    def head(self) -> Head:
        """The head on which hair grows."""
        skin = self.whole.vertices_of(*SKIN_PARTS)
        place = np.full(self.size, -1)
        place[skin] = np.arange(len(skin))
        scalp = place[self.faces.numpy()[self.part("scalp")]]
        return Head(self.whole.mean_shape[skin].astype(float), self.normals[skin].numpy().astype(float), scalp)

    @cached_property
    def controls(self) -> Tensor:
        """(K,) vertices of the skin, spread evenly, that move hair and hats."""
        skin = self.whole.vertices_of(*SKIN_PARTS)
        points = self.whole.mean_shape[skin].astype(np.float64)
        chosen, nearest = [int(points[:, 1].argmax())], np.full(len(points), np.inf)
        for _ in range(CONTROL_COUNT - 1):
            nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
            chosen.append(int(nearest.argmax()))
        return torch.from_numpy(skin[chosen])

    @cached_property
    def _control_basis(self) -> Tensor:
        """(I, 3K) displacements of the controls by the identity coefficients."""
        identities = self.whole.identity_basis.shape[-1]
        return self.basis[:identities].unflatten(1, (-1, 3))[:, self.controls].flatten(1)

    def shift(self, identity: Tensor) -> Tensor:
        """(1, I) -> (K, 3) displacements of a person's controls from the mean head's, without expression."""
        return (identity @ self._control_basis).view(-1, 3)

    def moved(self, points: Tensor, near: Tensor, weights: Tensor, shift: Tensor) -> Tensor:
        """Move points of the mean head onto a person's head.

        Args:
            points: (N, 3).
            near: (N, CONTROLS) from `follow`.
            weights: (N, CONTROLS) from `follow`.
            shift: (K, 3) the person's `shift`.
        """
        return points + (shift[near] * weights[..., None]).sum(dim=1)

    def follow(self, points: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """(N, CONTROLS) indices into `controls` and weights, for points (N, 3) of the mean head."""
        near, weights = followed(points, self.whole.mean_shape[self.controls].astype(float))
        return torch.from_numpy(near), torch.from_numpy(weights).float()

    @cached_property
    def ambient(self) -> Tensor:
        """(W,) share of the soft light that arrives at a bald head."""
        return ambient_share(self.mean, self.normals, self.faces)

    def hairdo(self, style: str, number: int) -> Hairdo:
        """One of the heads of hair, the same on every machine. It is grown when it is first asked for."""
        key = (style, number)
        if key not in self._hairdos:
            self._hairdos[key] = self._grown(style, number)
        return self._hairdos[key]

    @lru_cache  # noqa: B019
    def garment(self, name: str) -> Shell:
        """Of `wear.GARMENTS`."""
        return garment(self.whole, name)

    @lru_cache  # noqa: B019
    def hat(self, name: str) -> tuple[Shell, Tensor, Tensor]:
        """A hat of `wear.HATS`, with its brim's control points and weights (see `follow`)."""
        shell = hat(self.whole, name)
        return shell, *self.follow(shell.extra.numpy().astype(float))

    @cached_property
    def _hairdos(self) -> dict[tuple[str, int], Hairdo]:
        return {}

    def _grown(self, style: str, number: int) -> Hairdo:
        chance = np.random.default_rng([list(STYLES).index(style), number])
        ribbons = grow(self.head, STYLES[style], self.hair_detail, chance)
        near, weights = self.follow(ribbons.points)
        points, normals = torch.from_numpy(ribbons.points).float(), torch.from_numpy(ribbons.normals).float()
        together = torch.cat([self.mean, points]), torch.cat([self.normals, normals])
        faces = torch.cat([self.faces, torch.from_numpy(ribbons.faces) + self.size])
        ambient = ambient_share(*together, faces, directions=32, size=80)
        # Single ribbons shade their neighbours at random. A whole head of hair is shaded more smoothly.
        _, around = cKDTree(ribbons.points).query(ribbons.points, k=NEIGHBOURS)
        ambient[self.size :] = ambient[self.size :][torch.from_numpy(around)].mean(dim=1)
        return Hairdo(ribbons, near, weights, ambient)
