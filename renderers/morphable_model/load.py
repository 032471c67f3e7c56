"""From what a configuration names to a face model."""

from __future__ import annotations

from pathlib import Path

from renderers.errors import UserError
from renderers.morphable_model.model import MorphableModel

ACCEPTED = '"default" (the embedded model) or the path of a BFM_model_front.mat (BFM 2009)'


def load_face_model(spec: str, subdivide: int = 0) -> MorphableModel:
    """The face model that `spec` names.

    Args:
        spec: "default" for the embedded model, or the path of a file: `.mat` is read as BFM 2009.
        subdivide: how often to split each triangle of the embedded model in four (0, 1 or 2).

    Raises:
        UserError: a name or file that is none of these, a file that its reader refuses, or a subdivision of a file.
    """
    if spec == "default":
        from renderers.morphable_model.default import load_default

        return load_default(subdivide)
    path = Path(spec).expanduser()
    if not path.exists():
        raise UserError(f"{spec}: no such face model; expected {ACCEPTED}")
    if path.suffix.lower() != ".mat":
        raise UserError(f"{spec}: this kind of face model is not read; expected {ACCEPTED}")
    if subdivide:
        raise UserError(f"{spec}: subdivide={subdivide} is for the default face model alone; leave it at 0 for a file")
    from renderers.morphable_model.bfm2009 import load_bfm2009

    return load_bfm2009(path)
