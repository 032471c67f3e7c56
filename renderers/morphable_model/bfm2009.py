"""Reader of BFM 2009 as Deep3D-style code prepares it: `BFM_model_front.mat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from renderers.errors import UserError
from renderers.morphable_model.model import LANDMARKS, MorphableModel
from renderers.morphable_model.open_face import cylindrical_uv, towards_viewer

KEYS = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "keypoints", "skinmask", "frontmask2_idx")


def load_bfm2009(path: str | Path) -> MorphableModel:
    """Read `BFM_model_front.mat`: Basel Face Model 2009 cropped to the face, with FaceWarehouse expressions.

    The file holds meanshape, meantex (1, 3V), idBase, texBase (3V, 80), exBase (3V, 64), tri (F, 3), keypoints (1, 68),
    skinmask (1, V) and frontmask2_idx (n, 1), with indices from 1, lengths in decimetres and colours in 0..255; the
    licensed one has V = 35,709 and F = 70,789. The sizes are taken from the file, so every array is held against the
    others. The mean shape is centred on its vertices' mean, and faces are turned so that they face the viewer.
    The file's data alone is parsed: SciPy's reader never unpickles or runs anything it finds.

    Args:
        path: the .mat file (MATLAB 5 format, not 7.3).

    Returns:
        The model "bfm2009": 80 identity, 64 expression and 80 albedo coefficients in standard deviations, texture
        scaled to [0, 1], a cylindrical unwrap as UV, and the regions `skin` and `front` (without ears and neck).

    Raises:
        UserError: no such file, not a MATLAB 5 file, cut short, or arrays missing, mis-sized or out of range.
    """
    path = Path(path)
    arrays = _read(path)
    mean_shape = _vector(path, "meanshape", arrays["meanshape"])
    if mean_shape.size == 0 or mean_shape.size % 3:
        raise _error(path, f"meanshape has shape {arrays['meanshape'].shape}, expected (1, 3V) for V vertices")
    count = mean_shape.size // 3
    vertices = mean_shape.reshape(-1, 3).astype(np.float64)
    vertices -= vertices.mean(axis=0)
    skin = _vector(path, "skinmask", arrays["skinmask"], count)
    if not (skin > 0.5).any():
        raise _error(path, "skinmask marks no vertex, expected 1 for each vertex of the skin")
    landmarks = _vector(path, "keypoints", arrays["keypoints"], LANDMARKS)
    front = _vector(path, "frontmask2_idx", arrays["frontmask2_idx"])
    faces = _indices(path, "tri", _matrix(path, "tri", arrays["tri"], (None, 3)), count)
    return MorphableModel(
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
    return UserError(f"{path}: not a BFM 2009 model (BFM_model_front.mat): {reason}")


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of KEYS, each of them real numbers."""
    import scipy.io

    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a BFM_model_front.mat")
    try:
        found: dict[str, Any] = scipy.io.loadmat(path, variable_names=list(KEYS))
    except NotImplementedError:
        raise _error(path, "it is a MATLAB 7.3 (HDF5) file; save it again from MATLAB with -v7") from None
    except Exception as error:  # the parser trips over foreign or truncated bytes in many ways
        raise _error(path, f"it cannot be read as a MATLAB file ({type(error).__name__}); is it cut short?") from error
    missing = [key for key in KEYS if key not in found]
    if missing:
        held = ", ".join(name for name, _, _ in scipy.io.whosmat(path)) or "nothing"
        raise _error(path, f"no {', '.join(missing)} in it, expected {', '.join(KEYS)}; found {held}")
    for key in KEYS:
        array = found[key]
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise _error(path, f"{key} holds {getattr(array, 'dtype', type(array).__name__)}, expected numbers")
        if not np.isfinite(array).all():
            raise _error(path, f"{key} holds values that are not finite")
    return {key: found[key] for key in KEYS}


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
