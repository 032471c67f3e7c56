"""FLAME (Li et al. 2017): a head of linear shape whose jaw, neck and eyes turn about joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renderers.face_models.base import MorphableModel, as_columns, as_rows, fingerprint_of
from renderers.face_models.open_face import cylindrical_uv, height_fault
from renderers.io.array_pickle import ArrayPickleError, read_array_pickle
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz
from renderers.landmarks68 import JAW, LANDMARKS

METRES = 10.0  # decimetres
SHAPE_COLUMNS = 300  # of `shapedirs`; the others are expressions
IDENTITY, EXPRESSION = 100, 50  # components that are kept
JOINTS = 5  # the head as a whole, neck, jaw, left eye, right eye
TURNED = 4  # joints that coefficients turn: all but the first, which the pose turns
JOINT_DEVIATIONS = (0.1, 0.1, 0.1, 0.12, 0.02, 0.02, *(0.15,) * 6)
"""Radians that a coefficient of 1 turns neck, jaw, left eye and right eye about x, y and z; a jaw opens about x."""
ARRAYS = {
    "v_template": ("V", 3),
    "shapedirs": ("V", 3, "K"),
    "posedirs": ("V", 3, 9 * TURNED),
    "J_regressor": (JOINTS, "V"),
    "kintree_table": (2, JOINTS),
    "weights": ("V", JOINTS),
    "f": ("F", 3),
}
MODEL_FILES = ("generic_model.pkl", "flame2023.pkl", "flame2023_no_jaw.pkl", "flame2020.npz", "flame2023.npz")
WHOLE, STATIC, DYNAMIC = "landmark_embedding.npy", "flame_static_embedding.pkl", "flame_dynamic_embedding.npy"
JAW_POINTS = JAW.stop
TURNS = 79  # yaws for which the embedding holds the jaw line: 0 to 39 degrees, then -1 to -39
FULL_NAMES = ("full_lmk_faces_idx", "full_lmk_bary_coords")
DYNAMIC_NAMES = ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
NAMES = ("lmk_face_idx", "lmk_b_coords")
REMEDY = "give the folder of FLAME's own files"


class FlameModel(MorphableModel):
    """FLAME with neck, jaw and eyes as the last twelve expression coefficients.

    V vertices, F faces, I identity, X expression and A albedo components; E = X + 12.

    Args:
        name, mean_shape, faces, landmark_indices, landmark_weights, uv, regions: see `MorphableModel`.
        identity_basis: (V, 3, I) decimetres in a standard deviation.
        expression_basis: (V, 3, X) likewise.
        pose_basis: (V, 3, 36) decimetres: what each entry of a joint's rotation, less the identity, corrects.
        joint_regressor: (5, V) from vertices to joints.
        skinning_weights: (V, 5) rows that sum to 1.
        parents: (5,) the joint that each one hangs on, -1 of the first.
        mean_albedo: (V, 3) RGB in [0, 1].
        albedo_basis: (V, 3, A) RGB.
        contour_indices: (79, 17, 3) corners of the triangles that hold the visible jaw line, at yaws of 0, 1 .. 39,
            -1 .. -39 degrees.
        contour_weights: (79, 17, 3) barycentric coordinates in them.

    Raises:
        UserError: arrays whose sizes do not agree, or that hold values that are not finite.
    """

    shape_basis: Tensor
    pose_basis: Tensor
    joint_regressor: Tensor
    skinning_weights: Tensor
    mean_albedo: Tensor
    flat_albedo_basis: Tensor

    def __init__(
        self,
        *,
        name: str,
        mean_shape: np.ndarray,
        identity_basis: np.ndarray,
        expression_basis: np.ndarray,
        pose_basis: np.ndarray,
        joint_regressor: np.ndarray,
        skinning_weights: np.ndarray,
        parents: np.ndarray,
        mean_albedo: np.ndarray,
        albedo_basis: np.ndarray,
        faces: np.ndarray,
        landmark_indices: np.ndarray,
        landmark_weights: np.ndarray,
        uv: np.ndarray,
        regions: Mapping[str, np.ndarray],
        contour_indices: np.ndarray | None = None,
        contour_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__(
            name=name, mean_shape=mean_shape, faces=faces, landmark_indices=landmark_indices,
            landmark_weights=landmark_weights, uv=uv, regions=regions,
        )  # fmt: skip
        vertices = len(mean_shape)
        self.identity_size, self.components = identity_basis.shape[-1], expression_basis.shape[-1]
        self.expression_size, self.albedo_size = self.components + 3 * TURNED, albedo_basis.shape[-1]
        self.has_specular = False
        self._check("identity_basis", identity_basis, (vertices, 3, self.identity_size))
        self._check("expression_basis", expression_basis, (vertices, 3, self.components))
        self._check("pose_basis", pose_basis, (vertices, 3, 9 * TURNED))
        self._check("joint_regressor", joint_regressor, (JOINTS, vertices))
        self._check("skinning_weights", skinning_weights, (vertices, JOINTS))
        self._check("mean_albedo", mean_albedo, (vertices, 3))
        self._check("albedo_basis", albedo_basis, (vertices, 3, self.albedo_size))
        self.parents = [int(parent) for parent in parents]
        if len(self.parents) != JOINTS or any(not -1 <= parent < joint for joint, parent in enumerate(self.parents)):
            raise UserError(f"face model {name}: parents {self.parents} are not joints that come before their children")
        self._store("shape_basis", as_rows(np.concatenate([identity_basis, expression_basis], axis=-1)))
        self._store("pose_basis", as_rows(pose_basis))
        self._store("joint_regressor", joint_regressor)
        self._store("skinning_weights", skinning_weights)
        self._store("mean_albedo", mean_albedo)
        self._store("flat_albedo_basis", as_rows(albedo_basis))
        self._store("joint_scale", np.array(JOINT_DEVIATIONS))
        self.has_contour = contour_indices is not None and contour_weights is not None
        if contour_indices is not None and contour_weights is not None:
            self._check("contour_indices", contour_indices, (TURNS, JAW_POINTS, 3))
            self._check("contour_weights", contour_weights, (TURNS, JAW_POINTS, 3))
            self.register_buffer(
                "contour_triangles", torch.as_tensor(contour_indices.astype(np.int64)), persistent=False
            )
            self._store("contour_weights", contour_weights)

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Linear shape, pose corrections, then linear blend skinning (Li et al. 2017, equations 1 to 4).

        Args:
            identity: (B, I) standard deviations.
            expression: (B, X + 12) standard deviations, then in units of `JOINT_DEVIATIONS` the rotation vectors of
                neck, jaw, left eye and right eye.

        Returns:
            (B, V, 3) decimetres, model space.
        """
        components, turns = expression.split([self.components, 3 * TURNED], dim=-1)
        weights = torch.cat([identity, components], dim=-1)
        shaped = torch.addmm(self.mean_shape.flatten(), weights, self.shape_basis).unflatten(-1, (-1, 3))
        rotations = rotation_matrices((turns * self.get_buffer("joint_scale")).unflatten(-1, (TURNED, 3)))
        corrections = (rotations - torch.eye(3, device=shaped.device, dtype=shaped.dtype)).flatten(1)
        posed = shaped + (corrections @ self.pose_basis).unflatten(-1, (-1, 3))
        joints = self.joint_regressor @ shaped
        return self._skin(posed, joints, rotations)

    def _skin(self, posed: Tensor, joints: Tensor, rotations: Tensor) -> Tensor:
        """Linear blend skinning of (B, V, 3) about (B, 5, 3) joints turned by (B, 4, 3, 3)."""
        turned = [torch.eye(3, device=posed.device, dtype=posed.dtype).expand(len(posed), 3, 3)]
        places = [joints[:, 0]]
        for joint in range(1, JOINTS):
            parent = self.parents[joint]
            step = joints[:, joint] - joints[:, parent]
            turned.append(turned[parent] @ rotations[:, joint - 1])
            places.append(places[parent] + (turned[parent] @ step[..., None])[..., 0])
        rotation, place = torch.stack(turned, dim=1), torch.stack(places, dim=1)
        # A joint's own place is where it was: p' = R (p - j) + j'.
        shift = place - (rotation @ joints[..., None])[..., 0]
        blended = torch.einsum("vj,bjrc->bvrc", self.skinning_weights, rotation)
        return (blended @ posed[..., None])[..., 0] + torch.einsum("vj,bjc->bvc", self.skinning_weights, shift)

    def visible_landmarks(self, points: Tensor, yaw: Tensor) -> Tensor:
        """The jaw line that FLAME's owners embedded for each degree of yaw, and the 51 points inside the face."""
        marks = self.landmarks(points)
        if not self.has_contour:
            return marks
        degrees = torch.rad2deg(yaw).round().long().clamp(-39, 39)
        row = torch.where(degrees < 0, 39 - degrees, degrees)
        corners, weights = self.get_buffer("contour_triangles")[row], self.get_buffer("contour_weights")[row]
        chosen = points[torch.arange(len(points), device=points.device)[:, None, None], corners]
        return torch.cat([(chosen * weights[..., None]).sum(dim=2), marks[:, JAW_POINTS:]], dim=1)

    def albedo(self, coefficients: Tensor) -> Tensor:
        """The embedded default's colours, carried over: (B, A) -> (B, V, 3) display RGB, not clamped."""
        return torch.addmm(self.mean_albedo.flatten(), coefficients, self.flat_albedo_basis).unflatten(-1, (-1, 3))

    def specular(self, coefficients: Tensor) -> Tensor:
        """FLAME has no specular albedo.

        Raises:
            UserError: always.
        """
        raise UserError(f"face model {self.name} has no specular albedo")

    def arrays(self) -> dict[str, np.ndarray]:
        """The constructor's arguments that are arrays, but for the regions."""
        plain = ("mean_shape", "joint_regressor", "skinning_weights", "mean_albedo", "faces", "landmark_weights", "uv")
        held = {name: getattr(self, name).numpy() for name in plain}
        rows = {
            "identity_basis": self.shape_basis[: self.identity_size],
            "expression_basis": self.shape_basis[self.identity_size :],
            "pose_basis": self.pose_basis,
            "albedo_basis": self.flat_albedo_basis,
        }
        held |= {name: as_columns(basis).numpy() for name, basis in rows.items()}
        held |= {"parents": np.array(self.parents), "landmark_indices": self.get_buffer("landmark_triangles").numpy()}
        if self.has_contour:
            held["contour_indices"] = self.get_buffer("contour_triangles").numpy()
            held["contour_weights"] = self.get_buffer("contour_weights").numpy()
        return held

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with anything that changes a decoded face."""
        names = ("shape_basis", "pose_basis", "joint_regressor", "skinning_weights", "mean_albedo", "flat_albedo_basis")
        return fingerprint_of((self.mean_shape, *(self.get_buffer(name) for name in names), self.faces))


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Rodrigues' formula: rotation vectors (..., 3) in radians -> (..., 3, 3), smooth at 0."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def load_flame_folder(folder: Path) -> FlameModel:
    """Read FLAME 2020 or 2023 as its owners distribute it.

    The folder holds the model, one of `MODEL_FILES`: v_template (5023, 3) metres, shapedirs (5023, 3, 400) of 300
    identity and 100 expression components, posedirs, J_regressor, weights, kintree_table and f. It holds the landmarks:
    `landmark_embedding.npy` (68 points on triangles, and the jaw line that moves with the head), or
    `flame_static_embedding.pkl` (the 51 points inside the face) with or without `flame_dynamic_embedding.npy` (the jaw
    line for each degree of yaw). Without a fixed jaw line the default's is carried over. Nothing in a pickle is run,
    and chumpy is not needed.

    FLAME comes without colours, and its UVs are in another file: the embedded default's albedo and regions are carried
    over, and the head is unwrapped onto a cylinder.

    Raises:
        UserError: a file is absent, damaged, hostile, or of other sizes.
    """
    path = next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: none of {', '.join(MODEL_FILES)} in it; {REMEDY}")
    arrays = _checked(path, _read(path, tuple(ARRAYS)), ARRAYS)
    vertices, faces = METRES * arrays["v_template"], arrays["f"].astype(np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path}: f names a vertex outside 0..{len(vertices) - 1}; {REMEDY}")
    fault = height_fault(vertices)
    if fault:
        raise UserError(f"{path}: {fault}; {REMEDY}")
    marks, contour = _landmarks(folder, faces)
    contour = None if contour is None else _sorted_turns(contour, vertices)
    colors, regions, marks = _carried_over(folder, vertices, faces, marks)
    shape, parents = METRES * arrays["shapedirs"], arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # written as the largest unsigned number
    return FlameModel(
        name="flame",
        mean_shape=vertices - vertices[regions["skin"]].mean(axis=0),
        identity_basis=shape[:, :, :IDENTITY],
        expression_basis=shape[:, :, SHAPE_COLUMNS : SHAPE_COLUMNS + EXPRESSION],
        pose_basis=METRES * arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skinning_weights=arrays["weights"],
        parents=parents,
        faces=faces,
        landmark_indices=marks.vertices,
        landmark_weights=marks.weights,
        contour_indices=None if contour is None else contour.vertices,
        contour_weights=None if contour is None else contour.weights,
        uv=cylindrical_uv(vertices),
        regions=regions,
        **colors,
    )


@dataclass(frozen=True)
class _Points:
    """Points on triangles: corners (..., 3) and barycentric weights (..., 3)."""

    vertices: np.ndarray
    weights: np.ndarray


def _landmarks(folder: Path, faces: np.ndarray) -> tuple[_Points | None, _Points | None]:
    """68 or 51 points where the folder tells them, and (79, 17) points of the jaw line where it tells these."""
    whole, static, dynamic = folder / WHOLE, folder / STATIC, folder / DYNAMIC
    if whole.is_file():
        held = _read(whole, (*FULL_NAMES, *DYNAMIC_NAMES))
        contour = _points(whole, held, DYNAMIC_NAMES, (TURNS, JAW_POINTS), faces) if DYNAMIC_NAMES[0] in held else None
        return _points(whole, held, FULL_NAMES, (LANDMARKS,), faces), contour
    contour = _points(dynamic, _read(dynamic, NAMES), NAMES, (TURNS, JAW_POINTS), faces) if dynamic.is_file() else None
    if not static.is_file():
        return None, contour
    return _points(static, _read(static, NAMES), NAMES, (LANDMARKS - JAW_POINTS,), faces), contour


def _sorted_turns(contour: _Points, vertices: np.ndarray) -> _Points:
    """The jaw line's rows with positive yaws first: embeddings of both senses are in use.

    A head that turns to +x hides the cheek on that side, so the jaw line's points there move to the front.
    """
    depth = (vertices[contour.vertices, 2] * contour.weights).sum(axis=-1)
    positive, negative = depth[TURNS // 2, JAW_POINTS // 2 + 1 :].mean(), depth[-1, JAW_POINTS // 2 + 1 :].mean()
    if positive >= negative:
        return contour
    order = [0, *range(TURNS // 2 + 1, TURNS), *range(1, TURNS // 2 + 1)]
    return _Points(contour.vertices[order], contour.weights[order])


def _points(
    path: Path, held: dict[str, np.ndarray], names: tuple[str, str], shape: tuple[int, ...], faces: np.ndarray
) -> _Points:
    """Points on triangles as an embedding names them: triangle numbers and barycentric coordinates."""
    sizes = {names[0]: shape, names[1]: (*shape, 3)}
    # Some files have one axis more, of length 1.
    held = {
        name: array.reshape(sizes[name]) if array.size == np.prod(sizes[name]) else array
        for name, array in held.items()
        if name in sizes
    }
    held = _checked(path, held, sizes)
    triangles = held[names[0]].astype(np.int64)
    if triangles.min() < 0 or triangles.max() >= len(faces):
        raise UserError(f"{path}: {names[0]} names a triangle outside 0..{len(faces) - 1}; {REMEDY}")
    return _Points(faces[triangles], held[names[1]])


def _carried_over(
    folder: Path, vertices: np.ndarray, faces: np.ndarray, marks: _Points | None
) -> tuple[dict[str, Any], dict[str, np.ndarray], _Points]:
    """Colours, regions and the landmarks that are missing, from the embedded default."""
    from renderers.face_models.default.model import load_default
    from renderers.face_models.transfer import transfer_from_default

    default = load_default()
    nearest = None
    if marks is not None and len(marks.vertices) == LANDMARKS:
        nearest = np.take_along_axis(marks.vertices, marks.weights.argmax(axis=1)[:, None], axis=1)[:, 0]
    found = transfer_from_default(str(folder), vertices, faces, default, nearest)
    colors = {
        "mean_albedo": found.carry(default.mean_albedo.numpy()),
        "albedo_basis": found.carry(default.albedo_basis.numpy()),
    }
    if nearest is None:
        own = found.landmark_indices[: LANDMARKS if marks is None else JAW_POINTS]
        vertices, weights = own[:, None].repeat(3, axis=1), np.tile([1.0, 0.0, 0.0], (len(own), 1))
        if marks is not None:
            vertices = np.concatenate([vertices, marks.vertices])
            weights = np.concatenate([weights, marks.weights])
        marks = _Points(vertices, weights)
    assert marks is not None
    return colors, found.regions, marks


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        return read_npz(path) if path.suffix == ".npz" else read_array_pickle(path, names)
    except (ArrayPickleError, NpzError) as error:
        raise UserError(f"{path}: {error}; {REMEDY}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _checked(
    path: Path, held: dict[str, np.ndarray], wanted: Mapping[str, tuple[int | str, ...]]
) -> dict[str, np.ndarray]:
    """The wanted arrays, of the sizes told and finite; a letter is a size that must be the same everywhere."""
    letters: dict[str, int] = {}
    for name, sizes in wanted.items():
        if name not in held:
            raise UserError(f"{path}: no {name} in it; {REMEDY}")
        array = held[name]
        if array.ndim != len(sizes):
            raise UserError(f"{path}: {name} has shape {array.shape}, expected {sizes}; {REMEDY}")
        for size, found in zip(sizes, array.shape, strict=True):
            if found != (letters.setdefault(size, found) if isinstance(size, str) else size):
                raise UserError(f"{path}: {name} has shape {array.shape}, expected {sizes}; {REMEDY}")
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} holds values that are not finite; {REMEDY}")
    if letters.get("K", SHAPE_COLUMNS + 1) <= SHAPE_COLUMNS:
        raise UserError(
            f"{path}: shapedirs has {letters['K']} components, expected more than {SHAPE_COLUMNS}; {REMEDY}"
        )
    return {name: held[name] for name in wanted}
