"""Labeled Faces in the Wild (Huang et al. 2008)."""

from __future__ import annotations

from pathlib import Path

from datamodules.datasets.face_records import FaceRecord, Layout
from datamodules.datasets.listings import data_folder, mismatch, pictures, read_text, subfolders
from datamodules.preparation.prepared_folder import PhotoLabel, Split
from renderers.io.errors import UserError

TITLE = "LFW"
DEVELOPMENT: dict[str, Split] = {"peopleDevTrain.txt": "train", "peopleDevTest.txt": "test"}


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs; ROGUE trains on the training people, the fine-grained paper tests on all of them.

    Expected: `lfw/NAME/NAME_0001.jpg` (or the people's folders in `root` itself, or in `lfw-deepfunneled/` or
    `lfw_funneled/`). The owner's lists `peopleDevTrain.txt` and `peopleDevTest.txt` (a count, then rows "NAME photos")
    name the people for training and for tests, if they lie in `root`. Everybody else is for tests.

    Raises:
        UserError: another layout, or a list that is wrong.
    """
    folders = ("lfw", "lfw-deepfunneled", "lfw_funneled", ".")
    base = data_folder(root, TITLE, folders, "a folder for each person")
    found = [path for person in subfolders(base) for path in pictures(person) if path.name.startswith(person.name)]
    if not found:
        raise mismatch(base, TITLE, "NAME/NAME_0001.jpg for each person")
    splits = _splits(root)
    records = []
    for path in found:
        person = path.parent.name
        records.append(FaceRecord(path.relative_to(root).as_posix(), PhotoLabel(splits.get(person, "test"), person)))
    return records


def _splits(root: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for name, split in DEVELOPMENT.items():
        if not (root / name).is_file():
            continue
        for number, line in enumerate(read_text(root / name).splitlines(), start=1):
            words = line.split()
            if len(words) > 2 or (words and not words[-1].isdecimal()):
                raise UserError(f"{root / name}, line {number}: expected 'NAME photos', found {line[:80]!r}")
            if len(words) == 2:
                splits[words[0]] = split
    return splits


LAYOUT = Layout("lfw", TITLE, read_records)
