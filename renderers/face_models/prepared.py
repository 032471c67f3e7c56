"""The project's own `.npz` format of face models: quick to load, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from renderers.face_models.base import MorphableModel
from renderers.face_models.flame import FlameModel
from renderers.face_models.linear import SHARED, LinearModel
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz

FORMAT = 1  # incremented with every change of the contents
SPECULAR = ("mean_specular", "specular_basis")
FLAME = ("pose_basis", "joint_regressor", "skinning_weights", "landmark_weights", "parents")
CONTOUR = ("contour_indices", "contour_weights")
KINDS = {"linear": (SHARED, SPECULAR), "flame": ((*SHARED, *FLAME), CONTOUR)}
"""By kind the arrays that a file must hold, and those that it may. Files without a kind are older, and linear."""
INDICES = ("faces", "landmark_indices", "parents", "contour_indices")
TEXTS, SWITCHES = ("name", "expression_names", "fingerprint"), ("linear_albedo",)
REGION = "region_"
REMEDY = "prepare it again: python -m experiments prepare face-model"


def save_prepared(model: MorphableModel, path: Path) -> None:
    """Write a face model so that `load_prepared` returns it to the bit.

    The file takes its name once it is whole. It holds all of the model's data: the licence of its source covers it.

    Raises:
        UserError: it cannot be written.
    """
    arrays: dict[str, Any] = {
        **model.arrays(),
        **{f"{REGION}{name}": members.numpy() for name, members in model.regions.items()},
        "format": np.array(FORMAT),
        "kind": np.array("linear" if isinstance(model, LinearModel) else "flame"),
        "name": np.array(model.name),
        "expression_names": np.array(model.expression_names, dtype=np.str_),
        "linear_albedo": np.array(model.linear_albedo),
        "fingerprint": np.array(model.contents()),
    }
    try:
        # An open file, since numpy adds its suffix to other names.
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
    kind = str(arrays.get("kind", "linear"))
    if kind not in KINDS:
        raise _error(path, f"it holds a model of the kind {kind[:20]!r}, this program knows {', '.join(KINDS)}")
    missing = [name for name in (*KINDS[kind][0], "format", *TEXTS, *SWITCHES) if name not in arrays]
    if missing:
        raise _error(path, f"no {', '.join(missing)} in it")
    if arrays["format"].shape != () or arrays["format"] != FORMAT:
        raise _error(path, f"it is of version {str(arrays['format'])[:20]}, this program reads {FORMAT}")
    model = _to_model(path, kind, arrays)
    if str(arrays["fingerprint"]) != model.contents():
        raise _error(path, "its contents are not what was written")
    return model


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a prepared face model: {reason}; {REMEDY}")


def _to_model(path: Path, kind: str, arrays: dict[str, np.ndarray]) -> MorphableModel:
    needed, optional = KINDS[kind]
    fields: dict[str, Any] = {name: arrays[name] for name in (*needed, *(name for name in optional if name in arrays))}
    regions = {name.removeprefix(REGION): array for name, array in arrays.items() if name.startswith(REGION)}
    for name, array in {**fields, **regions}.items():
        wanted = "iu" if name in INDICES or name in regions else "f"
        if array.dtype.kind not in wanted or (wanted == "f" and array.ndim < 2) or not np.isfinite(array).all():
            raise _error(path, f"{name} holds {array.dtype} of shape {array.shape}, or values that are not finite")
    for name, letter in {**dict.fromkeys(TEXTS, "U"), **dict.fromkeys(SWITCHES, "b")}.items():
        if arrays[name].dtype.kind != letter or arrays[name].ndim != (name == "expression_names"):
            raise _error(path, f"{name} holds {arrays[name].dtype} of shape {arrays[name].shape}")
    names = tuple(str(name) for name in arrays["expression_names"])
    try:
        if kind == "flame":
            return FlameModel(name=str(arrays["name"]), regions=regions, **fields)
        return LinearModel(
            name=str(arrays["name"]),
            expression_names=names,
            linear_albedo=bool(arrays["linear_albedo"]),
            regions=regions,
            **fields,
        )
    except (UserError, ValueError, IndexError) as error:
        raise _error(path, " ".join(str(error).split())) from error
