"""AFLW2000-3D (Zhu et al. 2016): 2,000 photographs with a fitted 3D face each, only for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.datasets.face_records import Annotation, FaceRecord, Layout
from datamodules.datasets.listings import data_folder, mismatch, pictures
from datamodules.datasets.number_files import read_mat
from datamodules.preparation.prepared_folder import PhotoLabel

TITLE = "AFLW2000-3D"
# MATLAB counts pixels from 1: the centre of the first pixel, our (0.5, 0.5), is its (1, 1).
TO_CONTINUOUS = -0.5


@dataclass(frozen=True, eq=False)
class AFLWAnnotation:
    """The annotation of one photograph, from its fitted face.

    Attributes:
        landmarks: (68, 3) x and y in continuous pixels of the photograph, y downwards; z in pixels, towards the viewer.
        roi_box: (4,) left, top, right, bottom in continuous pixels.
        pose: (3,) pitch, yaw, roll in degrees.
    """

    landmarks: np.ndarray
    roi_box: np.ndarray
    pose: np.ndarray


def read_annotation(mat_path: Path) -> AFLWAnnotation:
    """The annotation of one photograph: pt3d_68 (3, 68), roi (1, 4) and Pose_Para (1, 7) of its .mat file.

    Raises:
        UserError: the file is missing, damaged, or holds arrays of other sizes.
    """
    arrays = read_mat(mat_path, {"pt3d_68": (3, 68), "roi": (1, 4), "Pose_Para": (1, 7)})
    landmarks = arrays["pt3d_68"].T.copy()
    landmarks[:, :2] += TO_CONTINUOUS
    pose = np.degrees(arrays["Pose_Para"][0, :3])
    return AFLWAnnotation(landmarks, arrays["roi"][0] + TO_CONTINUOUS, pose)


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs.

    Expected, in `root` or its `AFLW2000/`: pairs image00002.jpg and image00002.mat.

    Raises:
        UserError: another layout.
    """
    base = data_folder(root, TITLE, ("AFLW2000", "."), "pairs image00002.jpg and image00002.mat")
    found = [path for path in pictures(base, (".jpg",)) if path.with_suffix(".mat").is_file()]
    if not found:
        raise mismatch(base, TITLE, "pairs image00002.jpg and image00002.mat")
    return [FaceRecord(path.relative_to(root).as_posix(), PhotoLabel("test", path.stem)) for path in found]


def annotation_files(root: Path, name: str) -> list[Path]:
    """The photograph's .mat."""
    return [(root / name).with_suffix(".mat")]


def annotate(root: Path, name: str) -> Annotation:
    """68 landmarks in continuous pixels, and the yaw; see `read_annotation`."""
    annotation = read_annotation((root / name).with_suffix(".mat"))
    return Annotation(landmarks=annotation.landmarks[:, :2], yaw=float(annotation.pose[1]))


LAYOUT = Layout("aflw2000", TITLE, read_records, annotate, annotation_files, gives_landmarks=True)
