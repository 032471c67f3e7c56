"""The NoW benchmark (Sanyal et al. 2019): photographs of people in four challenges, and a scan of each person."""

from __future__ import annotations

from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout, subject_records
from datamodules.datasets.listings import data_folder, find_file, inside, mismatch, read_text
from datamodules.datasets.scans import ScanSubject
from renderers.io.errors import UserError

TITLE = "NoW"
CHALLENGES = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
LIST = "imagepathsvalidation.txt"
PHOTOS = "iphone_pictures"
BASES = (".", "NoW_Dataset", "NoW_Dataset/final_release_version", "final_release_version")
"""Folders in which the list and the scans may lie, depending on where their archives were unpacked."""


def read_subjects(root: Path) -> tuple[ScanSubject, ...]:
    """A subject for every person and challenge of the validation set, in the list's order; `group` is the challenge.

    Expected: `imagepathsvalidation.txt` with rows "SUBJECT/CHALLENGE/IMAGE.jpg" (a longer path's last three parts
    count); the photographs under `NoW_Dataset/final_release_version/iphone_pictures/` (or a shorter way there);
    `scans/SUBJECT/*.obj` in millimetres and `scans_lmks_onlypp/SUBJECT/*.pp`, seven points. A prediction's file is
    named after SUBJECT, CHALLENGE and IMAGE, which are `name`, `group` and the image's stem.

    Raises:
        UserError: another layout, a row that is wrong, or a scan or its landmarks missing.
    """
    ways = [f"{base}/{PHOTOS}" for base in BASES]
    photos = data_folder(root, TITLE, (*ways, "NoW_Dataset"), "SUBJECT/CHALLENGE/IMAGE.jpg")
    listed = find_file(root, TITLE, [f"{base}/{LIST}" for base in BASES])
    images: dict[tuple[str, str], list[Path]] = {}
    for number, line in enumerate(read_text(listed).splitlines(), start=1):
        if not line.strip():
            continue
        parts = inside(line.strip(), f"{listed}, line {number}").split("/")[-3:]
        if len(parts) != 3 or parts[1] not in CHALLENGES:
            expected = f"SUBJECT/CHALLENGE/IMAGE.jpg with one of {', '.join(CHALLENGES)}"
            raise UserError(f"{listed}, line {number}: expected {expected}; found {line.strip()[:80]!r}")
        images.setdefault((parts[0], parts[1]), []).append(photos.joinpath(*parts))
    if not images:
        raise UserError(f"{listed} lists no photograph")
    scans = {person: (_scan(root, "scans", person, "*.obj"), _scan(root, "scans_lmks_onlypp", person, "*.pp"))
             for person in dict.fromkeys(person for person, _ in images)}  # fmt: skip
    return tuple(ScanSubject(name, tuple(paths), *scans[name], group) for (name, group), paths in images.items())


def _scan(root: Path, folder: str, person: str, pattern: str) -> Path:
    for base in BASES:
        found = sorted((root / base / folder / person).glob(pattern))
        if found:
            return found[0]
    if not (root / folder).is_dir():
        raise mismatch(root, TITLE, f"{folder}/{person}/{pattern}")
    raise UserError(f"{root / folder / person}: no {pattern}, which the benchmark has for every person")


def read_records(root: Path) -> list[FaceRecord]:
    """Every listed photograph, for testing; see `read_subjects`."""
    return subject_records(root, read_subjects(root))


LAYOUT = Layout("now", TITLE, read_records)
