"""BU-3DFE (Yin et al. 2006), scans of 100 people with six expressions in four strengths, and neutral."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout, subject_records
from datamodules.datasets.listings import data_folder, mismatch, subfolders
from datamodules.datasets.scans import ScanSubject

TITLE = "BU-3DFE"
SCAN = re.compile(r"([FM]\d{4})_([A-Z]{2}\d{2})([A-Z]{2})_F3D\.wrl")  # person, expression with strength, ancestry
IMAGE_SUFFIXES = (".bmp", ".jpg", ".png")


def read_subjects(root: Path) -> tuple[ScanSubject, ...]:
    """A subject for every scan that has a photograph; `group` is expression and strength, such as "NE00" or "HA04".

    Expected: `F0001/F0001_NE00WH_F3D.wrl` in millimetres, its 83 landmarks `F0001_NE00WH_F3D.bnd`, and the frontal
    photograph `F0001_NE00WH_F2D.bmp` (or .jpg, .png).

    Raises:
        UserError: another layout.
    """
    base = data_folder(root, TITLE, ("BU_3DFE", "."), "people's folders F0001 ...")
    folders = [base, *subfolders(base)]
    scans = sorted(path for folder in folders for path in folder.glob("*_F3D.wrl") if SCAN.fullmatch(path.name))
    subjects = []
    for scan in scans:
        found = SCAN.fullmatch(scan.name)
        stem = scan.name.removesuffix("_F3D.wrl")
        images = [scan.with_name(f"{stem}_F2D{suffix}") for suffix in IMAGE_SUFFIXES]
        held = tuple(image for image in images if image.is_file())[:1]
        landmarks = scan.with_suffix(".bnd")
        if found and held:
            subjects.append(ScanSubject(found[1], held, scan, landmarks if landmarks.is_file() else None, found[2]))
    if not subjects:
        raise mismatch(base, TITLE, "F0001/F0001_NE00WH_F3D.wrl with F0001_NE00WH_F2D.bmp beside it")
    return tuple(subjects)


def read_records(root: Path) -> list[FaceRecord]:
    """Every scan's photograph, for testing; see `read_subjects`."""
    return subject_records(root, read_subjects(root))


LAYOUT = Layout("bu3dfe", TITLE, read_records)
