"""MorphableModel: the interface of every face model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from renderers.coefficients import CoefficientLayout
from renderers.io.errors import UserError
from renderers.landmarks68 import LANDMARKS
from renderers.vertex_normals import VertexNormals


class MorphableModel(nn.Module, ABC):
    """Decodes coefficients into vertices and colours. Holds buffers only: nothing is trained.

    V vertices, F faces, I identity, E expression and A albedo coefficients. A subclass sets the three sizes.

    Args:
        name: what messages call it, for example "default" or "bfm2009".
        mean_shape: (V, 3) decimetres, x right, y up, z towards the viewer: the shape of zero coefficients.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        landmark_indices: (68,) vertex indices of the iBUG 68 points, or (68, 3) those of the triangles that hold them.
        landmark_weights: (68, 3) barycentric coordinates in these triangles; with (68, 3) indices alone.
        uv: (V, 2) in [0, 1], origin bottom-left, v up.
        regions: named vertex index arrays; `skin` is always there.
        expression_names: (E) what each expression coefficient is called, where they are named blend shapes.

    Raises:
        UserError: arrays whose sizes do not agree, or that hold values that are not finite.
    """

    mean_shape: Tensor
    faces: Tensor
    landmark_indices: Tensor
    uv: Tensor
    identity_size: int
    expression_size: int
    albedo_size: int
    has_specular: bool
    linear_albedo = False  # whether the albedo's statistics are of linear RGB
    has_contour = False  # whether the model itself can say which jaw line a viewer sees

    def __init__(
        self,
        *,
        name: str,
        mean_shape: np.ndarray,
        faces: np.ndarray,
        landmark_indices: np.ndarray,
        uv: np.ndarray,
        regions: Mapping[str, np.ndarray],
        landmark_weights: np.ndarray | None = None,
        expression_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name, self.expression_names = name, expression_names
        vertices = len(mean_shape)
        corners = () if landmark_weights is None else (3,)
        self._check("mean_shape", mean_shape, (vertices, 3))
        self._check("faces", faces, (len(faces), 3))
        self._check("landmark_indices", landmark_indices, (LANDMARKS, *corners))
        self._check("uv", uv, (vertices, 2))
        for field, indices in {"faces": faces, "landmark_indices": landmark_indices, **regions}.items():
            if indices.size and not 0 <= indices.min() <= indices.max() < vertices:
                raise UserError(f"face model {name}: {field} names a vertex outside 0..{vertices - 1}")
        if "skin" not in regions:
            raise UserError(f"face model {name}: it names no `skin` region")
        self._store("mean_shape", mean_shape)
        self._store("uv", uv)
        self.register_buffer("faces", torch.as_tensor(np.ascontiguousarray(faces, dtype=np.int64)), persistent=False)
        self.vertex_normals = VertexNormals(self.faces, vertices)
        self.regions = {key: torch.as_tensor(value.astype(np.int64)) for key, value in regions.items()}
        nearest = landmark_indices
        if landmark_weights is not None:
            self._check("landmark_weights", landmark_weights, (LANDMARKS, 3))
            self._store("landmark_weights", landmark_weights)
            triangles = torch.as_tensor(landmark_indices.astype(np.int64))
            self.register_buffer("landmark_triangles", triangles, persistent=False)
            nearest = np.take_along_axis(landmark_indices, landmark_weights.argmax(axis=1)[:, None], axis=1)[:, 0]
        self.register_buffer("landmark_indices", torch.as_tensor(nearest.astype(np.int64)), persistent=False)
        self.landmarks_are_vertices = landmark_weights is None
        """Whether `landmark_indices` are the landmarks themselves; else they are the nearest vertices."""

    def _check(self, field: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise UserError(f"face model {self.name}: {field} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise UserError(f"face model {self.name}: {field} holds values that are not finite")

    def _store(self, name: str, array: np.ndarray) -> None:
        # Not persistent: a checkpoint must never carry a licensed face model.
        self.register_buffer(name, torch.as_tensor(array.astype(np.float32)), persistent=False)

    @property
    def vertex_count(self) -> int:
        return self.mean_shape.shape[0]

    def layout(self, extra: Mapping[str, int] | None = None) -> CoefficientLayout:
        """The regressed vector's layout for this model, with what a paper adds."""
        return CoefficientLayout(self.identity_size, self.expression_size, self.albedo_size, extra)

    @abstractmethod
    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Decode vertices.

        Args:
            identity: (B, I) standard deviations.
            expression: (B, E) in the model's own unit.

        Returns:
            (B, V, 3) decimetres, model space.
        """

    @abstractmethod
    def albedo(self, coefficients: Tensor) -> Tensor:
        """Decode colours: (B, A) standard deviations -> (B, V, 3) display RGB, not clamped."""

    @abstractmethod
    def specular(self, coefficients: Tensor) -> Tensor:
        """Specular albedo from the same (B, A) coefficients as the diffuse one: (B, V, 3) linear RGB, not clamped.

        Raises:
            UserError: the model has no specular albedo.
        """

    def landmarks(self, points: Tensor) -> Tensor:
        """The 68 landmarks of any vertex attribute: (B, V, C) -> (B, 68, C)."""
        if self.landmarks_are_vertices:
            return points[:, self.landmark_indices]
        corners = points[:, self.get_buffer("landmark_triangles")]
        return (corners * self.get_buffer("landmark_weights")[..., None]).sum(dim=2)

    def visible_landmarks(self, points: Tensor, yaw: Tensor) -> Tensor:
        """The landmarks with the jaw line that a viewer sees, where `has_contour`; else `landmarks`.

        Args:
            points: (B, V, C) any vertex attribute.
            yaw: (B,) radians about y, as of `Coefficients.angles`.

        Returns:
            (B, 68, C)
        """
        return self.landmarks(points)

    def normals(self, vertices: Tensor) -> Tensor:
        """Unit vertex normals, outward; the area-weighted mean of the adjacent faces.

        Args:
            vertices: (B, V, 3) in any Cartesian frame.

        Returns:
            (B, V, 3)
        """
        normals: Tensor = self.vertex_normals(vertices)
        return normals

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The constructor's array arguments, except the regions. They are what is needed to build the model again."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash, twelve hexadecimal digits. Files store it to say for which face model they were made."""

    def contents(self) -> str:
        """A hash, twelve hexadecimal digits, of everything that affects a decoded face, to the last bit."""
        return self.fingerprint()


def as_rows(basis: np.ndarray) -> np.ndarray:
    """(V, 3, K) -> (K, 3V), contiguous: one matrix product decodes a batch."""
    return np.ascontiguousarray(basis.reshape(basis.shape[0] * basis.shape[1], basis.shape[2]).T)


def as_columns(rows: Tensor) -> Tensor:
    """The inverse of `as_rows`: (K, 3V) -> (V, 3, K), a view."""
    return rows.T.unflatten(0, (-1, 3))


def fingerprint_of(tensors: Sequence[Tensor], *more: bytes) -> str:
    """Twelve hexadecimal digits of some arrays' shapes and values, and of some words."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for word in more:
        digest.update(word)
    return digest.hexdigest()[:12]
