"""Readers of the Basel Face Models 2017 and 2019 (`.h5`), and of AlbedoMM's diffuse and specular albedo for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from renderers.face_models.linear import LinearModel
from renderers.face_models.open_face import cylindrical_uv, height_fault, towards_viewer
from renderers.io.errors import UserError
from renderers.io.hdf5_file import Hdf5Error, read_hdf5, read_hdf5_text
from renderers.landmarks68 import LANDMARKS
from renderers.units import MILLIMETRES

FIELDS = ("mean", "pcaBasis", "pcaVariance")
CELLS, POINTS = "shape/representer/cells", "shape/representer/points"
NAMED = "metadata/landmarks/json"
IBUG = {
    "center.chin.tip": 8, "center.nose.tip": 30, "center.nose.attachement_to_philtrum": 33,
    "right.eye.corner_outer": 36, "right.eye.corner_inner": 39, "left.eye.corner_inner": 42,
    "left.eye.corner_outer": 45, "right.lips.corner": 48, "right.lips.philtrum_ridge": 50,
    "center.lips.upper.outer": 51, "left.lips.philtrum_ridge": 52, "left.lips.corner": 54,
    "center.lips.lower.outer": 57,
}  # fmt: skip
"""The file's names of what is an iBUG point too; right and left are the person's. The inner lips' names are left out:
where lips touch, a place does not say which of them is meant."""
NAMED_REACH = 2.0  # millimetres from a named point to its vertex; the points of a wider cropping lie farther off
PAIR = "its face12 part belongs to BFM 2017 face12 (28588 vertices), and not to BFM 2019"


def load_bfm_h5(path: str | Path, albedo: str | Path | None = None, landmarks: str | Path | None = None) -> LinearModel:
    """Read BFM 2017 or 2019, `model2017-1_face12_nomouth.h5` for example, at any of the published croppings.

    The file holds {shape,expression,color}/model/{mean (3V), pcaBasis (3V, K), pcaVariance (K)} and
    shape/representer/cells (3, F), indices from 0, in millimetres and RGB of 0 to 1. V and F differ between the
    croppings, so every array is held against the others. Basis columns are scaled by the square roots of the variances,
    the neutral mean (shape and expression) is centred on its vertices' mean, and faces are turned to the viewer.

    The file names landmarks, of which `IBUG` are iBUG points, as places on its reference mesh: metadata/landmarks/json
    holds [{"id": ..., "coordinates": [x, y, z]}, ...], and shape/representer/points (3, V) that mesh. The other points
    and the regions, of which it knows none, are carried over from the embedded default, which is bent to the named ones
    (`transfer.transfer_from_default`); `skin` is all but eyes and inner mouth.

    Args:
        path: the model's HDF5 file.
        albedo: AlbedoMM, `albedoModel2020_face12_albedoPart.h5`, with {diffuseAlbedo,specularAlbedo}/model/{mean,
            pcaBasis, pcaVariance} of linear RGB (Smith et al. 2020). Its diffuse albedo then stands in for the file's
            colour, and the specular albedo shares its coefficients (the specular paper, equation 2).
        landmarks: a text file of 68 vertex indices from 0 in iBUG order, instead of those carried over.

    Returns:
        A model with the file's name: 199 identity, 100 expression and 199 colour coefficients (145 of AlbedoMM) in the
        published files, all in standard deviations, and a cylindrical unwrap as UV.

    Raises:
        UserError: no such file, not such an HDF5 file, arrays that are missing, mis-sized or out of range, an AlbedoMM
            of another mesh, landmarks that are no 68 vertices, or a surface that is not a face.
    """
    path = Path(path)
    parts = ("shape", "expression") if albedo is not None else ("shape", "expression", "color")
    arrays = _read(path, [*_names(parts), CELLS], "a BFM 2017 or 2019 model")
    shape_mean, identity_basis = _statistics(path, arrays, "shape")
    expression_mean, expression_basis = _statistics(path, arrays, "expression", len(shape_mean))
    vertices = _centred(path, shape_mean.astype(np.float64) + expression_mean)
    faces = towards_viewer(vertices, _faces(path, arrays[CELLS], len(vertices)))
    count = len(vertices)
    colors = _colors(path, arrays, count) if albedo is None else _read_albedo(Path(albedo), path, count)
    chosen = _named_landmarks(path, count) if landmarks is None else _read_landmarks(Path(landmarks), count)
    marks, regions = _landmarks_and_regions(path, vertices, faces, chosen)
    return LinearModel(
        name=path.stem,
        mean_shape=vertices,
        identity_basis=identity_basis / MILLIMETRES,
        expression_basis=expression_basis / MILLIMETRES,
        faces=faces,
        landmark_indices=marks,
        uv=cylindrical_uv(vertices),
        regions=regions,
        linear_albedo=albedo is not None,
        **colors,
    )


def _names(parts: Iterable[str]) -> list[str]:
    return [f"{part}/model/{field}" for part in parts for field in FIELDS]


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a face model that can be read: {reason}")


def _read(path: Path, names: Iterable[str], kind: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of {kind} (.h5)")
    try:
        arrays = read_hdf5(path, list(names))
    except Hdf5Error as error:
        raise UserError(f"{path}: not {kind} (HDF5): {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _error(path, f"{name} holds values that are not finite")
    return arrays


def _statistics(
    path: Path, arrays: dict[str, np.ndarray], part: str, vertices: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) mean and (V, 3, K) basis of a part, its columns scaled to a standard deviation."""
    mean, basis, variance = (arrays[f"{part}/model/{field}"] for field in FIELDS)
    length = mean.size if vertices is None else 3 * vertices
    if mean.size != max(mean.shape, default=0) or mean.size != length or length == 0 or length % 3:
        expected = "(3V,) for V vertices" if vertices is None else f"({length},)"
        raise _error(path, f"{part}/model/mean has shape {mean.shape}, expected {expected}")
    if basis.ndim != 2 or len(basis) != length or basis.shape[1] == 0:
        raise _error(path, f"{part}/model/pcaBasis has shape {basis.shape}, expected ({length}, any)")
    modes = basis.shape[1]
    if variance.size != max(variance.shape, default=0) or variance.size != modes:
        raise _error(path, f"{part}/model/pcaVariance has shape {variance.shape}, expected ({modes},)")
    if variance.min() < 0:
        raise _error(path, f"{part}/model/pcaVariance holds {variance.min():g}; a variance is not below 0")
    scaled = basis.astype(np.float32) * np.sqrt(variance).ravel().astype(np.float32)
    return mean.reshape(-1, 3), scaled.reshape(-1, 3, modes)


def _centred(path: Path, vertices: np.ndarray) -> np.ndarray:
    """(V, 3) millimetres -> decimetres about the vertices' mean."""
    fault = height_fault(vertices / MILLIMETRES)
    if fault:
        raise _error(path, fault)
    return (vertices - vertices.mean(axis=0)) / MILLIMETRES


def _faces(path: Path, cells: np.ndarray, vertices: int) -> np.ndarray:
    """(3, F) -> (F, 3)"""
    if cells.ndim != 2 or len(cells) != 3 or cells.shape[1] == 0:
        raise _error(path, f"{CELLS} has shape {cells.shape}, expected (3, any)")
    if cells.min() < 0 or cells.max() >= vertices or (cells != np.round(cells)).any():
        found = f"{cells.min()} to {cells.max()}"
        raise _error(path, f"{CELLS} holds {found}, expected whole numbers from 0 to {vertices - 1}")
    return np.ascontiguousarray(cells.T.astype(np.int64))


def _colors(path: Path, arrays: dict[str, np.ndarray], vertices: int) -> dict[str, Any]:
    """The model's colour fields from its own file."""
    mean, basis = _statistics(path, arrays, "color", vertices)
    _check_range(path, "color/model/mean", mean)
    return {"mean_albedo": mean, "albedo_basis": basis}


def _read_albedo(path: Path, model: Path, vertices: int) -> dict[str, Any]:
    """The model's colour fields from AlbedoMM."""
    parts = ("diffuseAlbedo", "specularAlbedo")
    arrays = _read(path, _names(parts), "an AlbedoMM albedo part")
    found = arrays["diffuseAlbedo/model/mean"].size // 3
    if found != vertices:
        raise UserError(f"{path}: an albedo of {found} vertices for a face of {vertices} ({model}); AlbedoMM: {PAIR}")
    (diffuse, diffuse_basis), (specular, specular_basis) = (_statistics(path, arrays, part, vertices) for part in parts)
    if diffuse_basis.shape != specular_basis.shape:
        found_modes = f"{diffuse_basis.shape[-1]} and {specular_basis.shape[-1]}"
        raise _error(
            path, f"its diffuse and specular albedo have {found_modes} modes, expected as many, which they share"
        )
    for part, mean in zip(parts, (diffuse, specular), strict=True):
        _check_range(path, f"{part}/model/mean", mean)
    return {
        "mean_albedo": diffuse,
        "albedo_basis": diffuse_basis,
        "mean_specular": specular,
        "specular_basis": specular_basis,
    }


def _check_range(path: Path, name: str, mean: np.ndarray) -> None:
    if mean.min() < -0.5 or mean.max() > 1.5:
        raise _error(path, f"{name} holds {mean.min():.4g} to {mean.max():.4g}, expected colours from 0 to 1")


def _landmarks_and_regions(
    path: Path, vertices: np.ndarray, faces: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    from renderers.face_models.default.model import load_default
    from renderers.face_models.transfer import transfer_from_default

    found = transfer_from_default(str(path), vertices, faces, load_default(), known)
    return found.landmark_indices, found.regions


def _named_landmarks(path: Path, vertices: int) -> np.ndarray:
    """(68,) the vertices of the iBUG points that the file names, -1 elsewhere.

    Raises:
        UserError: what names them is damaged, or the reference mesh that they lie on is missing or mis-sized.
    """
    found = np.full(LANDMARKS, -1)
    try:
        text = read_hdf5_text(path, NAMED)
        named = {} if text is None else {entry["id"]: entry["coordinates"] for entry in json.loads(text)}
        places = {IBUG[name]: np.array(place, dtype=np.float64) for name, place in named.items() if name in IBUG}
        if not all(place.shape == (3,) and np.isfinite(place).all() for place in places.values()):
            raise ValueError("a place is not three numbers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, Hdf5Error) else type(error).__name__
        raise _error(path, f"{NAMED} does not hold landmarks with id and coordinates ({reason[:120]})") from error
    if not places:
        return found
    mesh = _read(path, [POINTS], "a BFM 2017 or 2019 model")[POINTS]
    if mesh.shape != (3, vertices):
        raise _error(path, f"{POINTS} has shape {mesh.shape}, expected (3, {vertices})")
    for point, place in places.items():
        distances = np.linalg.norm(mesh.T - place, axis=1)
        if distances.min() <= NAMED_REACH:
            found[point] = distances.argmin()
    return found


def _read_landmarks(path: Path, vertices: int) -> np.ndarray:
    expected = f"expected {LANDMARKS} vertex indices from 0 to {vertices - 1}, apart by spaces or lines"
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: landmarks cannot be read ({error}); {expected}") from error
    wrong = next((word for word in words if not word.isascii() or not word.isdigit() or int(word) >= vertices), None)
    if wrong is not None or len(words) != LANDMARKS:
        reason = f"it has {len(words)} words" if wrong is None else f"{wrong[:40]!r} is none"
        raise UserError(f"{path}: {reason}; {expected}")
    return np.array([int(word) for word in words], dtype=np.int64)
