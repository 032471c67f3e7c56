"""The truth of a photograph: the face model fitted to it by optimization (ROGUE, section 4.1), kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import FaceBatch
from datamodules.collate import collate_faces
from datamodules.photo_folder import PreparedFaces
from datamodules.preparation.prepared_folder import PhotoIndex, PreparedFace, read_face
from experiments.commands.reconstruct.pipeline import fit_settings
from experiments.fitting.photometric_fitting import fit
from renderers.face_models.base import MorphableModel
from renderers.io.atomic_file import written_atomically
from renderers.io.cache import cache_dir

FIT_VERSION = 3
"""Raise this with every change of the fitter that changes its answers, so that older fits are made anew."""


def fitted_coefficients(
    face_model: MorphableModel, root: Path, index: PhotoIndex, faces: Sequence[PreparedFace]
) -> Tensor:
    """(B, L) coefficients of B clean photographs, in the face model's layout, on the CPU.

    No network is used, and the photographs are fitted in the size of the prepared folder, so that the truth is the same
    for every checkpoint. Fits are kept in the user's cache.

    Args:
        face_model: the decoder; the fit runs on its device.
        root: the prepared folder.
        index: of the folder.
        faces: the faces to fit.

    Raises:
        UserError: a photograph's file is missing or damaged.
    """
    layout = face_model.layout()
    paths = [_path(face_model, root, face) for face in faces]
    vectors = [_read(path, layout.length) for path in paths]
    for contour in (False, True):
        missing = [row for row, face in enumerate(faces) if vectors[row] is None and face.contour == contour]
        if not missing:
            continue
        pictures = PreparedFaces(root, [faces[row] for row in missing], index.size, index.size)
        batch = collate_faces([pictures[row] for row in range(len(missing))])
        for row, vector in zip(missing, fitted(face_model, batch, contour), strict=True):
            vectors[row] = vector
            with written_atomically(paths[row]) as temporary:
                np.savez(temporary, coefficients=vector.numpy())
    return torch.stack([vector for vector in vectors if vector is not None])


def fitted(face_model: MorphableModel, clean: FaceBatch, contour: bool) -> Tensor:
    """(B, L) coefficients of B clean pictures by optimization alone, on the CPU.

    Args:
        face_model: the decoder; the fit runs on its device.
        clean: the pictures.
        contour: see `FaceBatch`; the same for all of them.
    """
    batch, settings = clean.to(face_model.mean_shape.device), fit_settings(face_model, contour)
    found = fit(face_model, batch.image, batch.landmarks, batch.skin, batch.intrinsics, settings=settings)
    return face_model.layout().join(found.coefficients).cpu()


def faces_to_fit(face_model: MorphableModel, root: Path, faces: Sequence[PreparedFace]) -> int:
    """The number of these faces that no evaluation has fitted before.

    Raises:
        UserError: a photograph's file is missing or damaged.
    """
    length = face_model.layout().length
    return sum(_read(_path(face_model, root, face), length) is None for face in faces)


def _path(face_model: MorphableModel, root: Path, face: PreparedFace) -> Path:
    """The file of a face's fit. Its name changes with all that the fit depends on."""
    settings = fit_settings(face_model, face.contour)
    digest = hashlib.sha256()
    known = {"version": FIT_VERSION, "face_model": face_model.fingerprint(), "settings": asdict(settings)}
    digest.update(json.dumps({**known, "landmarks": face.landmarks}, sort_keys=True).encode())
    for pixels in read_face(root, face.name):
        digest.update(pixels.tobytes())
    return cache_dir() / "fits" / f"{digest.hexdigest()[:24]}.npz"


def _read(path: Path, length: int) -> Tensor | None:
    """A stored fit; None if there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            vector = torch.from_numpy(stored["coefficients"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    whole = vector.shape == (length,) and vector.dtype == torch.float32 and bool(torch.isfinite(vector).all())
    return vector if whole else None
