"""LS3D-W (Bulat and Tzimiropoulos 2017), photographs with 68 landmarks that are fixed points of the head."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from datamodules.datasets.face_records import Annotation, FaceRecord, Layout
from datamodules.datasets.listings import data_folder, mismatch
from datamodules.datasets.number_files import arrays_of_shape, read_mat, read_torch7
from datamodules.preparation.photo_file import SUFFIXES
from datamodules.preparation.prepared_folder import PhotoLabel
from renderers.io.errors import UserError

TITLE = "LS3D-W"
# Parts for tests: the balanced set of 7,200 (`new_dataset`), and the re-annotated test sets.
TEST_PARTS = ("new_dataset", "AFLW2000-3D-Reannotated", "300W-Testset-3D")
ANNOTATIONS = (".t7", ".mat")
# The authors' tools count pixels from 0, with whole numbers at their centres.
TO_CONTINUOUS = 0.5


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs: MGCNet and ROGUE train on them, the fine-grained paper tests on the balanced part.

    Expected: folders, however deep, of pairs NAME.jpg (or .png) and NAME.t7 or NAME.mat. The parts `new_dataset`,
    `AFLW2000-3D-Reannotated` and `300W-Testset-3D` are for testing, every other one (`300VW-3D`, `Menpo-3D`) for
    training. A video's frames, which lie in one folder, are one person.

    Raises:
        UserError: another layout.
    """
    data_folder(root, TITLE, (".",), "photographs")
    records = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        held = set(files)
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)  # noqa: PTH122  (hundreds of thousands of names)
            if suffix.lower() in SUFFIXES and any(stem + ending in held for ending in ANNOTATIONS):
                path = Path(folder, file)
                records.append(FaceRecord(path.relative_to(root).as_posix(), _label(path.relative_to(root))))
    if not records:
        raise mismatch(root, TITLE, "pairs NAME.jpg and NAME.t7 or NAME.mat")
    return sorted(records, key=lambda record: record.name)


def _label(path: Path) -> PhotoLabel:
    testing = any(part in TEST_PARTS for part in path.parts[:-1])
    video = "300VW-3D" in path.parts[:-1]
    person = path.parent.as_posix() if video else path.with_suffix("").as_posix()
    return PhotoLabel("test" if testing else "train", person)


def annotation_files(root: Path, name: str) -> list[Path]:
    """The .t7 and the .mat that may lie beside the photograph."""
    return [(root / name).with_suffix(ending) for ending in ANNOTATIONS]


def annotate(root: Path, name: str) -> Annotation:
    """68 landmarks in continuous pixels.

    Raises:
        UserError: the file is missing, damaged, or holds anything but 68 points.
    """
    torch7, mat = annotation_files(root, name)
    points = read_torch7(torch7) if torch7.is_file() else _points_of_mat(mat)
    if points.shape in ((2, 68), (3, 68)):
        points = points.T
    if points.shape not in ((68, 2), (68, 3)):
        file = torch7 if torch7.is_file() else mat
        raise UserError(f"{file}: numbers of shape {points.shape}, expected (68, 2)")
    return Annotation(landmarks=points[:, :2] + TO_CONTINUOUS)


def _points_of_mat(path: Path) -> np.ndarray:
    """The one array of 68 points, whatever its name."""
    found = arrays_of_shape(path, {(68, 2), (68, 3), (2, 68), (3, 68)})
    if len(found) != 1:
        raise UserError(f"{path}: {len(found)} arrays of 68 points ({', '.join(found) or 'none'}), expected one")
    return read_mat(path, found)[next(iter(found))]


LAYOUT = Layout("ls3d-w", TITLE, read_records, annotate, annotation_files, gives_landmarks=True)
