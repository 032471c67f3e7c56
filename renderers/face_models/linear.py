"""LinearModel: a mean and linear bases of shape and colour. All five papers use it as their decoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from renderers.color import decode, encode, encoding_slope
from renderers.face_models.base import MorphableModel, as_columns, as_rows, fingerprint_of
from renderers.io.errors import UserError

SHARED = (
    *("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "uv", "faces"),
    "landmark_indices",
)
"""The arrays that every face model is built from, besides its regions."""


class LinearModel(MorphableModel):
    """A face model whose shape and colours are linear in its coefficients.

    Basis columns are already scaled, so that a coefficient of 1 is one standard deviation (or one full blend shape).

    Args:
        name, faces, landmark_indices, uv, regions, expression_names: see `MorphableModel`.
        mean_shape: (V, 3) decimetres, x right, y up, z towards the viewer, centred on the origin.
        identity_basis: (V, 3, I) decimetres.
        expression_basis: (V, 3, E) decimetres.
        mean_albedo: (V, 3) RGB in [0, 1].
        albedo_basis: (V, 3, A) RGB.
        mean_specular: (V, 3) specular albedo, where the model has one.
        specular_basis: (V, 3, A) sharing the albedo's coefficients, where the model has one.
        linear_albedo: the albedo's and the specular statistics are of linear RGB, as AlbedoMM's are, and not of display
            values, as the embedded default's are. `albedo` and `specular` say in which of the two they answer.
        known_as: the fingerprint, where it must not depend on the last digits of a machine's arithmetic.

    Raises:
        UserError: arrays whose sizes do not agree, or that hold values that are not finite.
    """

    shape_basis: Tensor
    mean_albedo: Tensor
    flat_albedo_basis: Tensor

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
        known_as: str | None = None,
    ) -> None:
        super().__init__(
            name=name,
            mean_shape=mean_shape,
            faces=faces,
            landmark_indices=landmark_indices,
            uv=uv,
            regions=regions,
            expression_names=expression_names,
        )
        self.linear_albedo, self.known_as = linear_albedo, known_as
        for field, basis in {
            "identity_basis": identity_basis,
            "expression_basis": expression_basis,
            "albedo_basis": albedo_basis,
        }.items():
            self._check(field, basis, (*mean_shape.shape, basis.shape[-1]))
        self._check("mean_albedo", mean_albedo, mean_shape.shape)
        self.identity_size = identity_basis.shape[-1]
        self.expression_size = expression_basis.shape[-1]
        self.albedo_size = albedo_basis.shape[-1]
        self._store("shape_basis", as_rows(np.concatenate([identity_basis, expression_basis], axis=-1)))
        self._store("mean_albedo", mean_albedo)
        self._store("flat_albedo_basis", as_rows(albedo_basis))
        self.has_specular = mean_specular is not None and specular_basis is not None
        if mean_specular is not None and specular_basis is not None:
            self._store("mean_specular", mean_specular)
            self._store("flat_specular_basis", as_rows(specular_basis))

    @property
    def identity_basis(self) -> Tensor:
        """(V, 3, I), a view of the joint basis."""
        return as_columns(self.shape_basis[: self.identity_size])

    @property
    def expression_basis(self) -> Tensor:
        """(V, 3, E), a view of the joint basis."""
        return as_columns(self.shape_basis[self.identity_size :])

    @property
    def albedo_basis(self) -> Tensor:
        """(V, 3, A)"""
        return as_columns(self.flat_albedo_basis)

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

    def arrays(self) -> dict[str, np.ndarray]:
        """The constructor's arguments that are arrays, but for the regions."""
        held = {name: getattr(self, name).numpy() for name in SHARED}
        if self.has_specular:
            held["mean_specular"] = self.get_buffer("mean_specular").numpy()
            held["specular_basis"] = as_columns(self.get_buffer("flat_specular_basis")).numpy()
        return held

    def fingerprint(self) -> str:
        """`known_as`, or `contents`."""
        return self.known_as or self.contents()

    def contents(self) -> str:
        """Twelve hexadecimal digits that change with anything that changes a decoded face."""
        tensors = (self.mean_shape, self.shape_basis, self.mean_albedo, self.flat_albedo_basis, self.faces)
        return fingerprint_of(tensors, *([b"linear albedo"] if self.linear_albedo else []))


def _combined(mean: Tensor, basis: Tensor, coefficients: Tensor) -> Tensor:
    """(V, 3), (K, 3V) and (B, K) -> (B, V, 3)"""
    return torch.addmm(mean.flatten(), coefficients, basis).unflatten(-1, (-1, 3))
