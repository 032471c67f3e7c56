"""300W-LP (Zhu et al. 2016): photographs of 300W, turned in 3D to ever larger yaws."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from datamodules.datasets.face_records import Annotation, FaceRecord, Layout
from datamodules.datasets.listings import data_folder, mismatch, pictures
from datamodules.datasets.number_files import read_mat
from datamodules.preparation.prepared_folder import PhotoLabel

TITLE = "300W-LP"
PARTS = ("AFW", "HELEN", "IBUG", "LFPW")
FOLDERS = (*PARTS, *(f"{part}_Flip" for part in PARTS))
# MATLAB counts pixels from 1: the centre of the first pixel, our (0.5, 0.5), is its (1, 1).
TO_CONTINUOUS = -0.5


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs, all of them for training; `PhotoFolder` keeps some people back for validation.

    Expected, in `root` or its `300W_LP/`: the folders AFW, HELEN, IBUG, LFPW and their mirrored `_Flip` with pairs
    NAME_k.jpg and NAME_k.mat (Pose_Para (1, 7), pt2d (2, 68)), where a larger k is the same face turned further; and
    `landmarks/PART/NAME_k_pts.mat` with pts_3d (68, 2), the fixed points of the head. These are preferred, but the
    owner gives them only for the four folders that are not mirrored. pt2d marks 300W's visible contour. The views of a
    face are one group; a photograph and its mirror image show one person.

    Raises:
        UserError: another layout.
    """
    base = data_folder(root, TITLE, ("300W_LP", "."), "the folders AFW, HELEN, IBUG and LFPW")
    found = [path for folder in FOLDERS for path in pictures(base / folder, (".jpg",))]
    if not found:
        raise mismatch(root, TITLE, "folders AFW, HELEN, IBUG, LFPW with NAME_0.jpg and NAME_0.mat")
    records = []
    for path in found:
        face = re.sub(r"_\d+$", "", path.stem)
        folder = path.parent.name
        label = PhotoLabel("train", f"{folder.removesuffix('_Flip')}/{face}", f"{folder}/{face}")
        records.append(FaceRecord(path.relative_to(root).as_posix(), label))
    return records


def annotation_files(root: Path, name: str) -> list[Path]:
    """The .mat file of a photograph's pose, and that of its landmarks, which may not exist."""
    path = root / name
    points = path.parent.parent / "landmarks" / path.parent.name / f"{path.stem}_pts.mat"
    return [path.with_suffix(".mat"), points]


def annotate(root: Path, name: str) -> Annotation:
    """68 landmarks in continuous pixels, and the yaw.

    Raises:
        UserError: a file is missing, damaged, or holds arrays of other sizes.
    """
    pose_file, points_file = annotation_files(root, name)
    if points_file.is_file():
        points = read_mat(points_file, {"pts_3d": (68, 2)})["pts_3d"]
        pose = read_mat(pose_file, {"Pose_Para": (1, 7)})["Pose_Para"]
    else:
        arrays = read_mat(pose_file, {"pt2d": (2, 68), "Pose_Para": (1, 7)})
        points, pose = arrays["pt2d"].T, arrays["Pose_Para"]
    yaw = float(np.degrees(pose[0, 1]))
    return Annotation(landmarks=points + TO_CONTINUOUS, contour=not points_file.is_file(), yaw=yaw)


LAYOUT = Layout("300w-lp", TITLE, read_records, annotate, annotation_files, gives_landmarks=True)
