"""Readers of BFM 2009: `BFM_model_front.mat`, as Deep3D-style code prepares it, and the raw files that make it up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from renderers.face_models.linear import LinearModel
from renderers.face_models.open_face import cylindrical_uv, height_fault, towards_viewer
from renderers.io.errors import UserError
from renderers.io.matlab_file import MatlabError, read_matlab
from renderers.landmarks68 import LANDMARKS

INFORMATION = ("tri", "keypoints", "skinmask", "frontmask2_idx")
KEYS = ("meanshape", "idBase", "exBase", "meantex", "texBase", *INFORMATION)

MODEL, EXPRESSIONS, DEVIATIONS = "01_MorphableModel.mat", "Exp_Pca.bin", "std_exp.txt"
FRONT, TRIMMED, LABELS = "BFM_front_idx.mat", "BFM_exp_idx.mat", "facemodel_info.mat"
RAW_FILES = (MODEL, EXPRESSIONS, DEVIATIONS, FRONT, TRIMMED, LABELS)
RAW_KEYS = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV")
IDENTITY, EXPRESSION, TEXTURE = 80, 64, 80  # of 199, 79 and 199 modes
MICROMETRES = 1e5  # in a decimetre
MOST_MODES = 1000
Mesh = Literal["front", "trimmed"]


def load_bfm2009(path: str | Path, expressions: int | None = None) -> LinearModel:
    """Read `BFM_model_front.mat`: Basel Face Model 2009 cropped to the face, with FaceWarehouse expressions.

    The file holds meanshape, meantex (1, 3V), idBase, texBase (3V, 80), exBase (3V, 64), tri (F, 3), keypoints (1, 68),
    skinmask (1, V) and frontmask2_idx (n, 1), with indices from 1, lengths in decimetres and colours in 0..255; the
    licensed one has V = 35,709 and F = 70,789. The sizes are taken from the file, so every array is held against the
    others. The mean shape is centred on its vertices' mean, and faces are turned so that they face the viewer.

    Args:
        path: the .mat file (MATLAB 5 format, not 7.3).
        expressions: how many of the expressions to keep, the strongest first; all where None.

    Returns:
        The model "bfm2009": 80 identity, 64 expression and 80 albedo coefficients in standard deviations, texture
        scaled to [0, 1], a cylindrical unwrap as UV, and the regions `skin` and `front` (without ears and neck).

    Raises:
        UserError: no such file, not a MATLAB 5 file, cut short, or arrays missing, mis-sized or out of range.
    """
    path = Path(path)
    arrays = _read(path, KEYS)
    if expressions is not None:
        basis = _matrix(path, "exBase", arrays["exBase"], (None, None))
        if not 1 <= expressions <= basis.shape[1]:
            raise UserError(f"{path}: expressions={expressions}, the file holds 1 to {basis.shape[1]}")
        arrays["exBase"] = basis[:, :expressions]
    return _model(path, arrays)


def load_bfm2009_folder(folder: str | Path, expressions: int | None = None, mesh: Mesh = "front") -> LinearModel:
    """Compose the model of `BFM_model_front.mat` out of the files that its owners distribute.

    The folder holds `01_MorphableModel.mat` (shapeMU, texMU (3N, 1), shapePC, texPC (3N, 199), shapeEV, texEV (199, 1),
    micrometres and 0..255, columns scaled by EV), `Exp_Pca.bin` (FaceWarehouse's expressions: int32 K, float32 mean
    (3n), which is unused, float32 modes (K, 3n)), `std_exp.txt` (K deviations), `BFM_exp_idx.mat` (trimIndex (n, 1)
    into N), `BFM_front_idx.mat` (idx (V, 1) into n) and `facemodel_info.mat` (tri, keypoints, skinmask,
    frontmask2_idx), with indices from 1; N = 53,490, n = 53,215 and V = 35,709 in the licensed files.

    Args:
        folder: where the six files lie.
        expressions: how many of the K expressions to keep, the strongest first; 64 where None.
        mesh: the front model's V vertices, or all n of the trimmed one, with ears and neck, and with those of the
            triangles tl (F, 3) of `01_MorphableModel.mat` whose vertices are left. Both have one origin, the same
            landmarks and the same regions.

    Returns:
        What `load_bfm2009` reads from the composed file, to the bit; or the trimmed mesh with the same contents.

    Raises:
        UserError: a file is absent, damaged or of another layout, or the files do not go together.
    """
    folder = Path(folder)
    if expressions is not None and expressions < 1:
        raise UserError(f"{folder}: expressions={expressions}, at least 1 is needed")
    missing = [name for name in RAW_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: no {', '.join(missing)} in it; BFM 2009 is made of {', '.join(RAW_FILES)}")
    model, trimmed, front = folder / MODEL, folder / TRIMMED, folder / FRONT
    raw = _read(model, (*RAW_KEYS, *(("tl",) if mesh == "trimmed" else ())))
    whole = _vector(model, "shapeMU", raw["shapeMU"])
    if whole.size % 3:
        raise _error(model, f"shapeMU has shape {raw['shapeMU'].shape}, expected (3N, 1) for N vertices")
    trim = _chosen(trimmed, "trimIndex", whole.size // 3)
    kept = _chosen(front, "idx", len(trim))
    chosen = kept if mesh == "front" else np.arange(len(trim))
    rows = trim[chosen]
    texture = _vector(model, "texMU", raw["texMU"], whole.size)
    composed = {
        "meanshape": _rows(whole / MICROMETRES, rows).reshape(1, -1),
        "meantex": _rows(texture, rows).reshape(1, -1),
        "idBase": _modes(model, raw, "shape", whole.size, rows, IDENTITY) / MICROMETRES,
        "texBase": _modes(model, raw, "tex", whole.size, rows, TEXTURE),
        "exBase": _expressions(folder, len(trim), chosen, EXPRESSION if expressions is None else expressions),
    }
    labels = _read(folder / LABELS, INFORMATION)
    if mesh == "front":
        return _model(folder, {**composed, **labels})
    labels = _labels_of_trimmed(folder / LABELS, labels, kept, len(trim))
    triangles = _indices(model, "tl", _matrix(model, "tl", raw["tl"], (None, 3)), whole.size // 3)
    return _model(folder, {**composed, **labels, "tri": _left_triangles(model, triangles, trim) + 1}, kept)


def _labels_of_trimmed(
    path: Path, labels: dict[str, np.ndarray], kept: np.ndarray, trimmed: int
) -> dict[str, np.ndarray]:
    """The front model's labels (INFORMATION) as the trimmed mesh's, whose vertices `kept` are the front model's."""
    named = {}
    for key in ("keypoints", "frontmask2_idx"):
        named[key] = kept[_indices(path, key, _vector(path, key, labels[key]), len(kept))][None] + 1
    skin = np.zeros(trimmed)
    skin[kept] = _vector(path, "skinmask", labels["skinmask"], len(kept))
    return {**named, "skinmask": skin[None]}


def _left_triangles(path: Path, triangles: np.ndarray, trim: np.ndarray) -> np.ndarray:
    """(F, 3) those of the whole mesh's triangles that lie in the trimmed one, by the latter's vertices."""
    places = np.full(triangles.max() + 1, -1)
    inside = trim < len(places)
    places[trim[inside]] = np.flatnonzero(inside)
    left = places[triangles]
    left = left[(left >= 0).all(axis=1)]
    if not len(left):
        raise _error(path, f"tl holds no triangle of the {len(trim)} vertices of {TRIMMED}")
    return left


def _model(path: Path, arrays: dict[str, np.ndarray], front: np.ndarray | slice = slice(None)) -> LinearModel:
    """The model of the arrays of KEYS, its origin in the middle of the `front`; `path` is what messages name."""
    mean_shape = _vector(path, "meanshape", arrays["meanshape"])
    if mean_shape.size == 0 or mean_shape.size % 3:
        raise _error(path, f"meanshape has shape {arrays['meanshape'].shape}, expected (1, 3V) for V vertices")
    count = mean_shape.size // 3
    vertices = mean_shape.reshape(-1, 3).astype(np.float64)
    fault = height_fault(vertices)
    if fault:
        raise _error(path, fault)
    vertices -= vertices[front].mean(axis=0)
    skin = _vector(path, "skinmask", arrays["skinmask"], count)
    if not (skin > 0.5).any():
        raise _error(path, "skinmask marks no vertex, expected 1 for each vertex of the skin")
    landmarks = _vector(path, "keypoints", arrays["keypoints"], LANDMARKS)
    front = _vector(path, "frontmask2_idx", arrays["frontmask2_idx"])
    faces = _indices(path, "tri", _matrix(path, "tri", arrays["tri"], (None, 3)), count)
    return LinearModel(
        name="bfm2009",
        mean_shape=vertices,
        identity_basis=_basis(path, "idBase", arrays["idBase"], count),
        expression_basis=_basis(path, "exBase", arrays["exBase"], count),
        mean_albedo=_vector(path, "meantex", arrays["meantex"], 3 * count).reshape(-1, 3) / 255,
        albedo_basis=_basis(path, "texBase", arrays["texBase"], count) / 255,
        faces=towards_viewer(vertices, faces),
        landmark_indices=_indices(path, "keypoints", landmarks, count),
        uv=cylindrical_uv(vertices),
        regions={"skin": np.flatnonzero(skin > 0.5), "front": _indices(path, "frontmask2_idx", front, count)},
    )


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a BFM 2009 model: {reason}")


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a MATLAB file, each of them finite real numbers."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a BFM_model_front.mat")
    try:
        return read_matlab(path, names)
    except MatlabError as error:
        hint = f"; of the raw files give the folder that holds {MODEL}" if path.name == MODEL else ""
        raise _error(path, f"{error}{hint}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _rows(columns: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(3N, ...) -> (3V, ...) those of some vertices."""
    return columns[(3 * vertices[:, None] + np.arange(3)).ravel()]


def _modes(
    path: Path, raw: dict[str, np.ndarray], part: str, length: int, vertices: np.ndarray, count: int
) -> np.ndarray:
    """(3V, count) the first modes of `shape` or `tex` at some vertices, a standard deviation each."""
    basis = _matrix(path, f"{part}PC", raw[f"{part}PC"], (length, None))
    deviations = _vector(path, f"{part}EV", raw[f"{part}EV"], basis.shape[1])
    if len(deviations) < count:
        raise _error(path, f"{part}PC has {len(deviations)} modes, expected {count} at least")
    if deviations.min() < 0:
        raise _error(path, f"{part}EV holds {deviations.min():g}; a deviation is not below 0")
    return _rows(basis[:, :count], vertices) * deviations[:count]


def _chosen(path: Path, key: str, vertices: int) -> np.ndarray:
    """A file of indices into so many vertices, from 0."""
    return _indices(path, key, _vector(path, key, _read(path, (key,))[key]), vertices)


def _expressions(folder: Path, trimmed: int, vertices: np.ndarray, kept: int) -> np.ndarray:
    """(3V, kept) the first of FaceWarehouse's modes at some of the trimmed mesh's vertices, decimetres a deviation."""
    path, length = folder / EXPRESSIONS, 3 * trimmed
    size = path.stat().st_size
    with path.open("rb") as file:
        count = int.from_bytes(file.read(4), "little", signed=True)
        if not kept <= count <= MOST_MODES or size != 4 + 4 * length * (1 + count):
            raise _error(
                path,
                f"{size} bytes that declare {count} modes, expected {kept} modes or more of the {trimmed} "
                f"vertices of {TRIMMED}; is it cut short?",
            )
        file.seek(4 + 4 * length)
        modes = np.fromfile(file, "<f4", kept * length).reshape(kept, length)
    if not np.isfinite(modes).all():
        raise _error(path, "it holds values that are not finite")
    deviations = _deviations(folder / DEVIATIONS, count)[:kept]
    return _rows(modes.T, vertices) * deviations / MICROMETRES


def _deviations(path: Path, count: int) -> np.ndarray:
    try:
        values = np.array([float(word) for word in path.read_text(encoding="utf-8").split()])
    except (OSError, ValueError) as error:
        raise _error(path, f"it is no list of numbers ({' '.join(str(error).split())[:80]})") from error
    if len(values) != count or not np.isfinite(values).all() or values.min() < 0:
        raise _error(path, f"it holds {len(values)} values, expected {count} of 0 or more, one a mode of {EXPRESSIONS}")
    return values


def _matrix(path: Path, key: str, array: np.ndarray, expected: tuple[int | None, int | None]) -> np.ndarray:
    """The array when it has the expected shape, where None stands for any length but 0."""
    shown = tuple("any" if length is None else length for length in expected)
    fits = array.ndim == 2 and all(
        found == wanted if wanted else found > 0 for found, wanted in zip(array.shape, expected, strict=True)
    )
    if not fits:
        raise _error(path, f"{key} has shape {array.shape}, expected ({shown[0]}, {shown[1]})")
    return array


def _vector(path: Path, key: str, array: np.ndarray, length: int | None = None) -> np.ndarray:
    """A row or a column as one dimension."""
    if array.ndim != 2 or min(array.shape) != 1 or (length is not None and array.size != length):
        raise _error(path, f"{key} has shape {array.shape}, expected (1, {length or 'any'})")
    return array.ravel()


def _basis(path: Path, key: str, array: np.ndarray, vertices: int) -> np.ndarray:
    """(3V, K) -> (V, 3, K)"""
    return _matrix(path, key, array, (3 * vertices, None)).reshape(vertices, 3, -1)


def _indices(path: Path, key: str, array: np.ndarray, vertices: int) -> np.ndarray:
    """Indices from 1 -> indices from 0."""
    if array.min() < 1 or array.max() > vertices or (array != np.round(array)).any():
        raise _error(path, f"{key} holds {array.min()} to {array.max()}, expected whole numbers from 1 to {vertices}")
    return array.astype(np.int64) - 1
