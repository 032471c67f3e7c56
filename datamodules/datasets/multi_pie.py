"""CMU Multi-PIE (Gross et al. 2010), people seen by many cameras at once."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout
from datamodules.datasets.listings import data_folder, mismatch, pictures, subfolders
from datamodules.preparation.prepared_folder import PhotoLabel

TITLE = "Multi-PIE"
# Degrees of yaw under which the 13 cameras at head height see a face; 08_1 and 19_1 hang above and look down.
CAMERA_YAWS = {
    "11_0": -90, "12_0": -75, "09_0": -60, "08_0": -45, "13_0": -30, "14_0": -15, "05_1": 0,
    "05_0": 15, "04_1": 30, "19_0": 45, "20_0": 60, "01_0": 75, "24_0": 90,
}  # fmt: skip
NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{3})_(\d{2})")  # subject, session, recording, camera, flash


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs of the cameras at the height of the head, all of them for training, as MGCNet uses them.

    Expected, in `root`, its `data/` or its `Multi-Pie/data/`:
    `sessionSS/multiview/SUBJECT/RECORDING/CAMERA/SUBJECT_SS_RECORDING_CAM_FLASH.png`, the camera 05_1 being 051 in the
    name. The photographs of one subject, session, recording and flash are views of one face with one expression.

    Raises:
        UserError: another layout.
    """
    title = "sessions session01 ... with multiview/SUBJECT/RECORDING/CAMERA/*.png"
    base = data_folder(root, TITLE, ("Multi-Pie/data", "data", "."), title)
    records = []
    for session in subfolders(base):
        if not session.name.startswith("session") or not (session / "multiview").is_dir():
            continue
        for camera in sorted((session / "multiview").glob("*/*/*")):
            for path in pictures(camera) if camera.name in CAMERA_YAWS else []:
                found = NAME.fullmatch(path.stem)
                if found and found[4] == camera.name.replace("_", ""):
                    group = "_".join((found[1], found[2], found[3], found[5]))
                    label = PhotoLabel("train", found[1], group, float(CAMERA_YAWS[camera.name]))
                    records.append(FaceRecord(path.relative_to(root).as_posix(), label))
    if not records:
        raise mismatch(base, TITLE, title)
    return records


LAYOUT = Layout("multi-pie", TITLE, read_records)
