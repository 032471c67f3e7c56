"""MorphableModel: the linear decoder that every paper shares, whatever file it was read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from renderers.coefficients import CoefficientLayout
from renderers.color import decode, encode, encoding_slope
from renderers.io.errors import UserError
from renderers.vertex_normals import VertexNormals

LANDMARKS = 68


class MorphableModel(nn.Module):
    """Linear face model: buffers only, nothing to train.

    V vertices, F faces, I identity, E expression and A albedo coefficients. Basis columns are already scaled, so that a
    coefficient of 1 is one standard deviation (or one full blend shape).

    Args:
        name: what messages call it, for example "default" or "bfm2009".
        mean_shape: (V, 3) decimetres, x right, y up, z towards the viewer, centred on the origin.
        identity_basis: (V, 3, I) decimetres.
        expression_basis: (V, 3, E) decimetres.
        mean_albedo: (V, 3) RGB in [0, 1].
        albedo_basis: (V, 3, A) RGB.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        landmark_indices: (68,) vertex indices of the iBUG 68 points.
        uv: (V, 2) in [0, 1], origin bottom-left, v up.
        regions: named vertex index arrays; `skin` is always there.
        mean_specular: (V, 3) specular albedo, where the model has one.
        specular_basis: (V, 3, A) sharing the albedo's coefficients, where the model has one.
        expression_names: (E) what each expression coefficient is called, where they are named blend shapes.
        linear_albedo: the albedo's and the specular statistics are of linear RGB, as AlbedoMM's are, and not of display
            values, as the embedded default's are. `albedo` and `specular` say in which of the two they answer.

    Raises:
        UserError: arrays whose sizes do not agree, or that hold values that are not finite.
    """

    mean_shape: Tensor
    shape_basis: Tensor
    mean_albedo: Tensor
    flat_albedo_basis: Tensor
    faces: Tensor
    landmark_indices: Tensor
    uv: Tensor

    def __init__(
        self,
        *,
        name: str,
        mean_shape: np.ndarray,
        identity_basis: np.ndarray,
        expression_basis: np.ndarray,
        mean_albedo: np.ndarray,
        albedo_basis: np.ndarray,
        faces: np.ndarray,
        landmark_indices: np.ndarray,
        uv: np.ndarray,
        regions: Mapping[str, np.ndarray],
        mean_specular: np.ndarray | None = None,
        specular_basis: np.ndarray | None = None,
        expression_names: tuple[str, ...] = (),
        linear_albedo: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.expression_names = expression_names
        self.linear_albedo = linear_albedo
        vertices = len(mean_shape)
        sizes = {
            "mean_shape": (mean_shape, (vertices, 3)),
            "identity_basis": (identity_basis, (vertices, 3, identity_basis.shape[-1])),
            "expression_basis": (expression_basis, (vertices, 3, expression_basis.shape[-1])),
            "mean_albedo": (mean_albedo, (vertices, 3)),
            "albedo_basis": (albedo_basis, (vertices, 3, albedo_basis.shape[-1])),
            "faces": (faces, (len(faces), 3)),
            "landmark_indices": (landmark_indices, (LANDMARKS,)),
            "uv": (uv, (vertices, 2)),
        }
        for field, (array, expected) in sizes.items():
            if array.shape != expected:
                raise UserError(f"face model {name}: {field} has shape {array.shape}, expected {expected}")
            if not np.isfinite(array).all():
                raise UserError(f"face model {name}: {field} holds values that are not finite")
        for field, indices in {"faces": faces, "landmark_indices": landmark_indices, **regions}.items():
            if indices.size and not 0 <= indices.min() <= indices.max() < vertices:
                raise UserError(f"face model {name}: {field} names a vertex outside 0..{vertices - 1}")
        if "skin" not in regions:
            raise UserError(f"face model {name}: it names no `skin` region")

        self.identity_size = identity_basis.shape[-1]
        self.expression_size = expression_basis.shape[-1]
        self.albedo_size = albedo_basis.shape[-1]
        shape_basis = np.concatenate([identity_basis, expression_basis], axis=-1)
        self._store("mean_shape", mean_shape)
        self._store("shape_basis", _as_rows(shape_basis))
        self._store("mean_albedo", mean_albedo)
        self._store("flat_albedo_basis", _as_rows(albedo_basis))
        self._store("uv", uv)
        self.register_buffer("faces", torch.as_tensor(np.ascontiguousarray(faces, dtype=np.int64)), persistent=False)
        self.vertex_normals = VertexNormals(self.faces, vertices)
        self.register_buffer("landmark_indices", torch.as_tensor(landmark_indices.astype(np.int64)), persistent=False)
        self.regions = {key: torch.as_tensor(value.astype(np.int64)) for key, value in regions.items()}
        self.has_specular = mean_specular is not None and specular_basis is not None
        if mean_specular is not None and specular_basis is not None:
            self._store("mean_specular", mean_specular)
            self._store("flat_specular_basis", _as_rows(specular_basis))

    def _store(self, name: str, array: np.ndarray) -> None:
        # Not persistent: a checkpoint must never carry a licensed face model.
        self.register_buffer(name, torch.as_tensor(array.astype(np.float32)), persistent=False)

    @property
    def vertex_count(self) -> int:
        return self.mean_shape.shape[0]

    @property
    def identity_basis(self) -> Tensor:
        """(V, 3, I), a view of the joint basis."""
        return self.shape_basis[: self.identity_size].T.unflatten(0, (-1, 3))

    @property
    def expression_basis(self) -> Tensor:
        """(V, 3, E), a view of the joint basis."""
        return self.shape_basis[self.identity_size :].T.unflatten(0, (-1, 3))

    @property
    def albedo_basis(self) -> Tensor:
        """(V, 3, A)"""
        return self.flat_albedo_basis.T.unflatten(0, (-1, 3))

    def layout(self, extra: Mapping[str, int] | None = None) -> CoefficientLayout:
        """The regressed vector's layout for this model, with what a paper adds."""
        return CoefficientLayout(self.identity_size, self.expression_size, self.albedo_size, extra)

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """S = S_mean + A_id alpha + B_exp beta (MGCNet, equation 1).

        Args:
            identity: (B, I).
            expression: (B, E).

        Returns:
            (B, V, 3) decimetres, model space.
        """
        weights = torch.cat([identity, expression], dim=-1)
        return torch.addmm(self.mean_shape.flatten(), weights, self.shape_basis).unflatten(-1, (-1, 3))

    def albedo(self, coefficients: Tensor) -> Tensor:
        """T = T_mean + T_id gamma (MGCNet, equation 1): (B, A) -> (B, V, 3) display RGB, not clamped.

        Of a `linear_albedo` model T ** (1 / 2.2) (the specular paper, equation 2; `renderers.color.encode`).
        """
        color = _combined(self.mean_albedo, self.flat_albedo_basis, coefficients)
        return encode(color) if self.linear_albedo else color

    def albedo_slopes(self, coefficients: Tensor) -> Tensor:
        """How `albedo` changes with each coefficient: (A,) of one face -> (V, 3, A)."""
        if not self.linear_albedo:
            return self.albedo_basis
        color = _combined(self.mean_albedo, self.flat_albedo_basis, coefficients[None])[0]
        return self.albedo_basis * encoding_slope(color)[..., None]

    def specular(self, coefficients: Tensor) -> Tensor:
        """Specular albedo from the same (B, A) coefficients as the diffuse one: (B, V, 3) linear RGB, not clamped.

        Raises:
            UserError: the model has no specular albedo.
        """
        if not self.has_specular:
            raise UserError(f"face model {self.name} has no specular albedo")
        mean, basis = self.get_buffer("mean_specular"), self.get_buffer("flat_specular_basis")
        color = _combined(mean, basis, coefficients)
        return color if self.linear_albedo else decode(color)

    def normals(self, vertices: Tensor) -> Tensor:
        """Unit vertex normals, outward; the area-weighted mean of the adjacent faces.

        Args:
            vertices: (B, V, 3) in any Cartesian frame.

        Returns:
            (B, V, 3)
        """
        normals: Tensor = self.vertex_normals(vertices)
        return normals

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with anything that changes a decoded face."""
        digest = hashlib.sha256()
        for tensor in (self.mean_shape, self.shape_basis, self.mean_albedo, self.flat_albedo_basis, self.faces):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        if self.linear_albedo:
            digest.update(b"linear albedo")
        return digest.hexdigest()[:12]


def _as_rows(basis: np.ndarray) -> np.ndarray:
    """(V, 3, K) -> (K, 3V), contiguous: one matrix product decodes a batch."""
    return np.ascontiguousarray(basis.reshape(-1, basis.shape[-1]).T)


def _combined(mean: Tensor, basis: Tensor, coefficients: Tensor) -> Tensor:
    """(V, 3), (K, 3V) and (B, K) -> (B, V, 3)"""
    return torch.addmm(mean.flatten(), coefficients, basis).unflatten(-1, (-1, 3))
