"""Loads the face model that a configuration names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from renderers.face_models.base import MorphableModel
from renderers.io.errors import UserError

ACCEPTED = (
    '"default" (the embedded model) or the path of a BFM_model_front.mat (BFM 2009), of a BFM 2017 or 2019 .h5, of a '
    "prepared .npz, of the folder of BFM 2009's raw files, of FLAME or of ICT-FaceKit's FaceXModel"
)
HDF5 = (".h5", ".hdf5")


def load_face_model(
    spec: str,
    subdivide: int = 0,
    albedo: str | None = None,
    landmarks: str | None = None,
    expressions: int | None = None,
    mesh: Literal["front", "trimmed"] = "front",
) -> MorphableModel:
    """The face model that `spec` names.

    Args:
        spec: "default" for the embedded model, or a path: a `.mat` is read as BFM 2009, a `.h5` as BFM 2017 or 2019, a
            `.npz` as what `prepare face-model` wrote, a folder as BFM 2009's raw files or as ICT-FaceKit's FaceXModel.
        subdivide: how often to split each triangle of the embedded model in four (0, 1 or 2).
        albedo: the path of an AlbedoMM `.h5`: diffuse and specular albedo for a BFM 2017.
        landmarks: the path of a text file of 68 vertex indices from 0, for a BFM 2017 or 2019; found by themselves
            where none is given.
        expressions: how many of BFM 2009's expressions to keep, the strongest first; 64 where None.
        mesh: of BFM 2009's raw files: the front model's 35,709 vertices, or the trimmed mesh's 53,215.

    Raises:
        UserError: a name or file that is none of these, a file that its reader refuses, or an argument that does not go
            with it.
    """
    suffix = Path(spec).suffix.lower()
    if suffix not in HDF5:
        for name, value in {"albedo": albedo, "landmarks": landmarks}.items():
            if value is not None:
                raise UserError(f"{spec}: {name}={value} goes with a BFM 2017 or 2019 .h5 alone; leave it out")
    path = Path(spec).expanduser()
    if expressions is not None and not (path.is_dir() or suffix == ".mat"):
        raise UserError(f"{spec}: expressions={expressions} goes with BFM 2009 alone; leave it out")
    if mesh != "front" and not path.is_dir():
        raise UserError(f"{spec}: mesh={mesh} goes with the folder of BFM 2009's raw files alone; leave it out")
    if spec == "default":
        from renderers.face_models.default.model import load_default

        return load_default(subdivide)
    if not path.exists():
        raise UserError(f"{spec}: no such face model; {_remedy(path)}")
    if not path.is_dir() and suffix not in (".mat", ".npz", *HDF5):
        raise UserError(f"{spec}: this kind of face model is not read; expected {ACCEPTED}")
    if subdivide:
        raise UserError(f"{spec}: subdivide={subdivide} is for the default face model alone; leave it at 0 for a file")
    if path.is_dir():
        return _load_folder(path, expressions, mesh)
    if suffix == ".npz":
        from renderers.face_models.prepared import load_prepared

        return load_prepared(path)
    if suffix == ".mat":
        from renderers.face_models.bfm2009 import load_bfm2009

        return load_bfm2009(path, expressions)
    from renderers.face_models.bfm_h5 import load_bfm_h5

    return load_bfm_h5(path, *(None if name is None else Path(name).expanduser() for name in (albedo, landmarks)))


def _remedy(path: Path) -> str:
    """What to do about a file that is absent."""
    prepared = re.fullmatch(r"face_model_(\w+)\.npz", path.name)
    if prepared is None:
        return f"expected {ACCEPTED}"
    if prepared[1] == "ict":
        return "make it: make face-model-ict"
    return f"make it: python -m experiments prepare face-model {prepared[1]} PATH"


def _load_folder(path: Path, expressions: int | None, mesh: Literal["front", "trimmed"]) -> MorphableModel:
    """The model whose files lie in a folder."""
    from renderers.face_models.bfm2009 import RAW_FILES, load_bfm2009_folder
    from renderers.face_models.flame import MODEL_FILES, load_flame_folder
    from renderers.face_models.ict import INDICES, NEUTRAL, load_ict

    kinds = {"ICT-FaceKit": ((NEUTRAL, INDICES), load_ict), "FLAME": (MODEL_FILES, load_flame_folder)}
    for title, (files, read) in kinds.items():
        if any((path / name).is_file() for name in files):
            if expressions is not None or mesh != "front":
                raise UserError(f"{path}: expressions and mesh go with BFM 2009 alone; {title} has neither choice")
            return read(path)
    if any((path / name).is_file() for name in RAW_FILES):
        return load_bfm2009_folder(path, expressions, mesh)
    raise UserError(f"{path}: no face model in this folder; expected {ACCEPTED}")
