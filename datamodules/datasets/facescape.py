"""FaceScape (Yang et al. 2020), people photographed by about 60 cameras while they make 20 expressions."""

from __future__ import annotations

import re
from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout, subject_records
from datamodules.datasets.listings import data_folder, mismatch, subfolders
from datamodules.datasets.number_files import read_json
from datamodules.datasets.scans import ScanSubject
from renderers.io.errors import UserError

TITLE = "FaceScape"
VALID = re.compile(r"([0-9]{1,4})_valid")


def read_subjects(root: Path) -> tuple[ScanSubject, ...]:
    """A subject for every person and expression; `group` is the expression, such as "1_neutral" or "16_grin".

    Expected: `ID/EXPRESSION/V.jpg` and its `params.json` with "V_valid" for each view V (in `root` or its
    `fsmview_images/`), and the registered mesh in millimetres, `models_reg/ID_EXPRESSION.obj` or
    `ID/models_reg/EXPRESSION.obj`. Views with an invalid calibration, as the owner says, are skipped. The images are in
    order of V, so that a paper's "first 40 views" are the first 40 images.

    Raises:
        UserError: another layout, or a `params.json` that is damaged.
    """
    base = data_folder(root, TITLE, ("fsmview_images", "."), "ID/EXPRESSION/0.jpg and params.json")
    subjects = []
    for person in subfolders(base):
        for expression in subfolders(person):
            if (expression / "params.json").is_file():
                images = tuple(_views(expression))
                scan = _scan(root, person, expression.name)
                subjects.append(ScanSubject(person.name, images, scan, None, expression.name))
    if not subjects:
        raise mismatch(base, TITLE, "ID/EXPRESSION/0.jpg ... with a params.json in each")
    return tuple(subject for subject in subjects if subject.images)


def _views(expression: Path) -> list[Path]:
    """The valid views' photographs that are there, in order of number."""
    file = expression / "params.json"
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise UserError(f"{file}: expected an object with V_valid for each view V")
    views = []
    for key, value in settings.items():
        if not key.endswith("_valid"):
            continue
        found = VALID.fullmatch(key)
        if found is None or not isinstance(value, bool):
            raise UserError(f"{file}: {key[:40]} is {str(value)[:40]!r}, expected NUMBER_valid to be true or false")
        if value and (expression / f"{int(found[1])}.jpg").is_file():
            views.append(int(found[1]))
    return [expression / f"{number}.jpg" for number in sorted(views)]


def _scan(root: Path, person: Path, expression: str) -> Path | None:
    candidates = (
        root / "models_reg" / f"{person.name}_{expression}.obj",
        person / "models_reg" / f"{person.name}_{expression}.obj",
        person / "models_reg" / f"{expression}.obj",
    )
    return next((path for path in candidates if path.is_file()), None)


def read_records(root: Path) -> list[FaceRecord]:
    """Every valid view, for testing; see `read_subjects`."""
    return subject_records(root, read_subjects(root))


LAYOUT = Layout("facescape", TITLE, read_records)
