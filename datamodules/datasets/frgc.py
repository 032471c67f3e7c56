"""FRGC v2 (Phillips et al. 2005), range images with a photograph taken at the same time."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout, subject_records
from datamodules.datasets.listings import data_folder, mismatch
from datamodules.datasets.scans import ScanSubject

TITLE = "FRGC v2"
SCAN = re.compile(r"(\d{5})d(\d+)\.abs(?:\.gz)?")  # person, number of the recording
IMAGE_SUFFIXES = (".ppm", ".jpg", ".JPG", ".png")
SEASON = "range"  # the end of the folders' names: Spring2003range, Fall2003range, Spring2004range


def read_subjects(root: Path) -> tuple[ScanSubject, ...]:
    """A subject for every range image that has its photograph; `group` is the season's folder.

    Expected, however deep: folders `Spring2003range`, `Fall2003range`, `Spring2004range` with range images in
    millimetres, `02463d546.abs` or `.abs.gz`, and beside each the photograph with the next number, `02463d547.ppm` (or
    .jpg, .png; unpack packed ones). FRGC v2's own 4,007 range images are those of the last two folders. A test chooses
    which of them it takes.

    Raises:
        UserError: another layout.
    """
    base = data_folder(root, TITLE, (".",), "range images")
    subjects = []
    for scan in sorted(path for path in base.rglob("*.abs*") if SCAN.fullmatch(path.name)):
        found = SCAN.fullmatch(scan.name)
        if found is None or not scan.parent.name.endswith(SEASON):
            continue
        numbers = (str(int(found[2]) + 1).zfill(len(found[2])), found[2])
        candidates = [scan.with_name(f"{found[1]}d{number}{suffix}") for number in numbers for suffix in IMAGE_SUFFIXES]
        images = tuple(path for path in candidates if path.is_file())[:1]
        if images:
            subjects.append(ScanSubject(found[1], images, scan, None, scan.parent.name))
    if not subjects:
        raise mismatch(root, TITLE, "Fall2003range/02463d546.abs.gz with the photograph 02463d547.ppm beside it")
    return tuple(subjects)


def read_records(root: Path) -> list[FaceRecord]:
    """Every range image's photograph, for testing; see `read_subjects`."""
    return subject_records(root, read_subjects(root))


LAYOUT = Layout("frgc", TITLE, read_records)
