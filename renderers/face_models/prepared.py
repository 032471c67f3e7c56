"""A face model in one `.npz` of this project's own, whatever files it was read from: quick to load, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from renderers.face_models.morphable_model import MorphableModel
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz

FORMAT = 1  # goes up with every change of what is stored
ARRAYS = (
    "mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "uv", "faces",
    "landmark_indices",
)  # fmt: skip
INDICES = ("faces", "landmark_indices")
TEXTS, SWITCHES = ("name", "expression_names", "fingerprint"), ("linear_albedo",)
SPECULAR = ("mean_specular", "specular_basis")
REGION = "region_"
REMEDY = "prepare it again: python -m experiments prepare face-model"


def save_prepared(model: MorphableModel, path: Path) -> None:
    """Write a face model so that `load_prepared` returns it to the bit.

    The file takes its name once it is whole. It holds all of the model's data: the licence of its source covers it.

    Raises:
        UserError: it cannot be written.
    """
    arrays: dict[str, Any] = {name: getattr(model, name).numpy() for name in ARRAYS}
    if model.has_specular:
        basis = model.get_buffer("flat_specular_basis").T.unflatten(0, (-1, 3))
        arrays |= dict(zip(SPECULAR, (model.get_buffer("mean_specular").numpy(), basis.numpy()), strict=True))
    arrays |= {f"{REGION}{name}": members.numpy() for name, members in model.regions.items()}
    arrays |= {
        "format": np.array(FORMAT),
        "name": np.array(model.name),
        "expression_names": np.array(model.expression_names, dtype=np.str_),
        "linear_albedo": np.array(model.linear_albedo),
        "fingerprint": np.array(model.fingerprint()),
    }
    try:
        # An open file, for numpy adds a suffix to names that have another.
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def load_prepared(path: str | Path) -> MorphableModel:
    """Read what `save_prepared` wrote; nothing in it is unpickled.

    Raises:
        UserError: no such file, damaged, of another version, or not a prepared face model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a prepared face model (.npz)")
    try:
        arrays = read_npz(path)
    except NpzError as error:
        raise _error(path, str(error)) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    missing = [name for name in (*ARRAYS, "format", *TEXTS, *SWITCHES) if name not in arrays]
    if missing:
        raise _error(path, f"no {', '.join(missing)} in it")
    if arrays["format"].shape != () or arrays["format"] != FORMAT:
        raise _error(path, f"it is of version {str(arrays['format'])[:20]}, this program reads {FORMAT}")
    model = _to_model(path, arrays)
    if str(arrays["fingerprint"]) != model.fingerprint():
        raise _error(path, "its contents are not what was written")
    return model


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a prepared face model: {reason}; {REMEDY}")


def _to_model(path: Path, arrays: dict[str, np.ndarray]) -> MorphableModel:
    fields: dict[str, Any] = {name: arrays[name] for name in (*ARRAYS, *(name for name in SPECULAR if name in arrays))}
    regions = {name.removeprefix(REGION): array for name, array in arrays.items() if name.startswith(REGION)}
    for name, array in {**fields, **regions}.items():
        wanted = "iu" if name in INDICES or name in regions else "f"
        if array.dtype.kind not in wanted or (wanted == "f" and array.ndim < 2) or not np.isfinite(array).all():
            raise _error(path, f"{name} holds {array.dtype} of shape {array.shape}, or values that are not finite")
    for name, kind in {**dict.fromkeys(TEXTS, "U"), **dict.fromkeys(SWITCHES, "b")}.items():
        if arrays[name].dtype.kind != kind or arrays[name].ndim != (name == "expression_names"):
            raise _error(path, f"{name} holds {arrays[name].dtype} of shape {arrays[name].shape}")
    names = tuple(str(name) for name in arrays["expression_names"])
    try:
        return MorphableModel(
            name=str(arrays["name"]),
            expression_names=names,
            linear_albedo=bool(arrays["linear_albedo"]),
            regions=regions,
            **fields,
        )
    except (UserError, ValueError, IndexError) as error:
        raise _error(path, " ".join(str(error).split())) from error
