"""The faces that the ablation measures: in photographs, and a scan's in pictures of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.datasets.listings import pictures
from datamodules.datasets.own_scans import read_people, read_points
from datamodules.preparation.alignment import Alignment, align
from experiments.commands.reconstruct.face import CROP_SIZE, photo_pose
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.fitting.photometric_fitting import project_landmarks
from lightning_modules.base import FaceModule
from losses.metrics import landmark_nme
from losses.metrics.scan import INNER_LANDMARKS
from renderers.camera import default_intrinsics
from renderers.io.errors import UserError
from renderers.jaw_contour import contour_table
from renderers.landmarks68 import JAW, LANDMARKS

NME, INNER_NME, YAW = "nme", "inner_nme", "yaw_error_deg"

Errors = dict[str, list[float]]
"""Measure -> one value a face."""


@dataclass(frozen=True)
class MeasuredFace:
    """A face of a picture that no network has learned from.

    Attributes:
        name: of the picture, and which of its faces.
        image: (3, S, S) in [0, 1], the crop, S = `CROP_SIZE`.
        landmarks: (68, 2) pixels of the crop, with which a network's are compared; the jaw's may be NaN.
        alignment: picture <-> crop.
        yaw: degrees, in the picture.
    """

    name: str
    image: Tensor
    landmarks: Tensor
    alignment: Alignment
    yaw: float


def photographed_faces(folder: Path, pipeline: ReconstructionPipeline) -> Iterator[MeasuredFace]:
    """Every face that the detector finds in a folder's photographs: its landmarks, and the yaw of the pipeline's fit.

    Raises:
        UserError: no such folder, or a photograph that cannot be read.
    """
    for path in pictures(folder):
        photo = open_photo(path)
        for number, found in enumerate(pipeline.detector.detect(photo.pixels), start=1):
            fitted = pipeline.aligned(photo, found)
            yaw = photo_pose(pipeline.solve(fitted).coefficients, fitted.alignment)["yaw"]
            yield _cropped(f"{path.name}, face {number}", photo, found.landmarks, yaw, pipeline.template)


def scanned_faces(folder: Path, template: np.ndarray) -> Iterator[MeasuredFace]:
    """The face of every picture of scans, with the points and the yaw that are beside it.

    The crop is placed by these points too: a detector misses faces that are turned far.

    Args:
        folder: see `datamodules.datasets.own_scans.read_people`.
        template: (5, 2) pixels, of the crops.

    Raises:
        UserError: no such folder, or a picture without a pose or points.
    """
    for person in read_people(folder):
        for path in person.images:
            if path not in person.poses or path not in person.points:
                raise UserError(f"{path}: needs a line in poses.txt and points in {path.stem}.pts")
            points = read_points(person.points[path])
            landmarks = np.full((LANDMARKS, 2), np.nan)
            landmarks[LANDMARKS - len(points) :] = points
            yield _cropped(f"{person.name}/{path.name}", open_photo(path), landmarks, person.poses[path][1], template)


def _cropped(name: str, photo: Photo, landmarks: np.ndarray, yaw: float, template: np.ndarray) -> MeasuredFace:
    try:
        alignment = align(landmarks, template, CROP_SIZE)
    except ValueError as error:
        raise UserError(f"{photo.source}: {error}") from error
    image = torch.from_numpy(alignment.crop(photo.pixels)).permute(2, 0, 1).float() / 255
    return MeasuredFace(name, image, torch.from_numpy(alignment.to_crop(landmarks)).float(), alignment, yaw)


@torch.no_grad()
def errors(module: FaceModule, faces: Sequence[MeasuredFace]) -> Errors:
    """Landmark errors, percent of sqrt(w h) of the box of the points that are compared, and yaw errors, degrees.

    `NME` is of all landmarks, with those of the jaw on the visible contour, as a detector marks them; without the
    faces' own jaw it is left out. `INNER_NME` is of the 51 others.
    """
    found = module.answer(torch.stack([face.image for face in faces]))
    true = torch.stack([face.landmarks for face in faces])
    camera, contour = default_intrinsics(CROP_SIZE).expand(len(faces), -1, -1), contour_table(module.face_model)
    marks, _ = project_landmarks(module.renderer, found, camera, contour)
    inner = list(INNER_LANDMARKS)
    poses = [photo_pose(found.index(slice(row, row + 1)), face.alignment) for row, face in enumerate(faces)]
    measured = {
        INNER_NME: landmark_nme(marks[:, inner], true[:, inner]).tolist(),
        YAW: [abs(pose["yaw"] - face.yaw) for pose, face in zip(poses, faces, strict=True)],
    }
    if not true[:, JAW].isnan().any():
        measured[NME] = landmark_nme(marks, true).tolist()
    return measured
