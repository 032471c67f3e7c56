"""MICC Florence 3D Faces (Bagdanov et al. 2011), a neutral scan and three clips of each of 53 people."""

from __future__ import annotations

from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout, subject_records
from datamodules.datasets.listings import data_folder, mismatch, pictures, subfolders
from datamodules.datasets.scans import ScanSubject
from renderers.io.errors import UserError

TITLE = "MICC Florence"
# The owner's name of each kind of clip, and the papers'.
CLIPS = {"Indoor-Cooperative": "cooperative", "PTZ-Indoor": "indoor", "PTZ-Outdoor": "outdoor"}
VIDEOS = (".avi", ".mjpg", ".mov", ".mp4", ".mpg")


def read_subjects(root: Path) -> tuple[ScanSubject, ...]:
    """A subject for every person and kind of clip; `group` is "cooperative", "indoor" or "outdoor".

    Expected: `subject_01/Model/frontal1/obj/*.obj`, the neutral scan in millimetres (or another .obj under `Model/`),
    and for each clip a folder `Indoor-Cooperative`, `PTZ-Indoor` or `PTZ-Outdoor`, however deep under the subject, that
    holds frames as .jpg or .png. The owner distributes videos. You choose which frames to extract; the papers take 10
    to 20 neutral ones of each clip.

    Raises:
        UserError: another layout, a person without a scan, or no frame at all.
    """
    people = [folder for folder in subfolders(data_folder(root, TITLE, (".",), "subjects")) if _is_subject(folder)]
    if not people:
        raise mismatch(root, TITLE, "folders subject_01, subject_02 ... with a Model/ and clips")
    subjects = []
    for person in people:
        scan = _scan(person)
        for clip, group in CLIPS.items():
            folders = sorted(path for path in person.rglob(clip) if path.is_dir())
            frames = tuple(frame for folder in folders for frame in _frames(folder))
            if frames:
                subjects.append(ScanSubject(person.name, frames, scan, None, group))
    if not subjects:
        video = next((path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEOS), None)
        hint = f"extract frames from the videos first, such as {video}" if video else "no frames"
        raise UserError(f"{root}: no clip has pictures in a folder {', '.join(CLIPS)}: {hint}")
    return tuple(subjects)


def _is_subject(folder: Path) -> bool:
    return folder.name.lower().startswith("subject")


def _frames(folder: Path) -> list[Path]:
    return pictures(folder) + [frame for inner in subfolders(folder) for frame in pictures(inner)]


def _scan(person: Path) -> Path:
    candidates = sorted((person / "Model").rglob("*.obj"))
    frontal = [path for path in candidates if "frontal1" in path.relative_to(person).parts]
    if not candidates:
        raise mismatch(person, TITLE, "Model/frontal1/obj/*.obj, the neutral scan")
    return (frontal or candidates)[0]


def read_records(root: Path) -> list[FaceRecord]:
    """Every frame of every clip, for testing; see `read_subjects`."""
    return subject_records(root, read_subjects(root))


LAYOUT = Layout("micc", TITLE, read_records)
