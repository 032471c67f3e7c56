"""CelebA (Liu et al. 2015), aligned and cropped photographs with the owner's partition."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from datamodules.datasets.face_records import FaceRecord, Layout
from datamodules.datasets.listings import data_folder, find_file, inside, read_rows
from datamodules.preparation.prepared_folder import PhotoLabel, Split
from renderers.io.errors import UserError

TITLE = "CelebA"
SPLITS: tuple[Split, ...] = get_args(Split)  # train, val, test: 0, 1 and 2 in the owner's list


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs with the official split, which the papers train on and test by.

    Expected: `img_align_celeba/000001.jpg ...` (or `Img/img_align_celeba/`) and `list_eval_partition.txt` (or under
    `Eval/`) with rows "file split". Rows "file person" in `identity_CelebA.txt` (or under `Anno/`) name the people.
    Without that file every photograph counts as a person of its own.

    Raises:
        UserError: another layout, or a row that is wrong.
    """
    folder = data_folder(root, TITLE, ("img_align_celeba", "Img/img_align_celeba"), "photographs 000001.jpg ...")
    partition = find_file(root, TITLE, ("list_eval_partition.txt", "Eval/list_eval_partition.txt"))
    people = _people(root)
    prefix = folder.relative_to(root).as_posix()
    records = []
    for number, (file, split) in read_rows(partition, 2):
        if split not in ("0", "1", "2"):
            raise UserError(f"{partition}, line {number}: split {split!r}, expected 0, 1 or 2")
        name = inside(file, f"{partition}, line {number}")
        records.append(FaceRecord(f"{prefix}/{name}", PhotoLabel(SPLITS[int(split)], people.get(name, name))))
    return records


def _people(root: Path) -> dict[str, str]:
    for candidate in ("identity_CelebA.txt", "Anno/identity_CelebA.txt"):
        if (root / candidate).is_file():
            return {file: person for _, (file, person) in read_rows(root / candidate, 2)}
    return {}


LAYOUT = Layout("celeba", TITLE, read_records)
