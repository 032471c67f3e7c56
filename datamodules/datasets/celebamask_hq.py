"""CelebAMask-HQ (Lee et al. 2020), photographs whose parts are masked by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from datamodules.datasets.face_records import Annotation, FaceRecord, Layout
from datamodules.datasets.listings import data_folder, find_file, read_rows
from datamodules.preparation.photo_file import read_photo
from datamodules.preparation.prepared_folder import PhotoLabel, Split
from renderers.io.errors import UserError

TITLE = "CelebAMask-HQ"
PHOTOS, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MASKS_A_FOLDER = 2000
ROW = re.compile(r"([0-9]{1,6}) ([0-9]{1,6})\.jpg")  # index, original file
# Parts that are skin, and parts that hide it. Masks overlap; in this order each part covers the ones before it.
SKIN_PARTS = ("skin", "nose", "l_brow", "r_brow", "u_lip", "l_lip")
OTHER_PARTS = ("mouth", "l_eye", "r_eye", "eye_g", "ear_r", "neck", "neck_l", "cloth", "hair", "hat")
# CelebA's split goes by file number: the last photographs for training and for validation.
LAST_TRAIN, LAST_VAL = 162_770, 182_637


def read_records(root: Path) -> list[FaceRecord]:
    """The photographs with CelebA's own split, which its authors' face parser is trained and tested by.

    Expected: `CelebA-HQ-img/0.jpg ...`, `CelebAMask-HQ-mask-anno/{0..14}/00000_skin.png ...` and
    `CelebA-HQ-to-CelebA-mapping.txt` with a title line and rows "index original-index original-file".

    Raises:
        UserError: another layout, or a row that is wrong.
    """
    data_folder(root, TITLE, (PHOTOS,), "photographs 0.jpg ...")
    data_folder(root, TITLE, (MASKS,), "folders 0 to 14 of masks 00000_skin.png ...")
    mapping = find_file(root, TITLE, ("CelebA-HQ-to-CelebA-mapping.txt",))
    records = []
    for number, (index, _, original) in read_rows(mapping, 3):
        if number == 1 and not index.isdecimal():
            continue
        found = ROW.fullmatch(f"{index} {original}")
        if found is None:
            raise UserError(f"{mapping}, line {number}: expected two numbers and a file 000001.jpg")
        records.append(FaceRecord(f"{PHOTOS}/{int(found[1])}.jpg", PhotoLabel(_split(int(found[2])), original)))
    return records


def _split(number: int) -> Split:
    return "train" if number <= LAST_TRAIN else "val" if number <= LAST_VAL else "test"


def _mask_file(root: Path, name: str, part: str) -> Path:
    number = int(Path(name).stem)
    return root / MASKS / str(number // MASKS_A_FOLDER) / f"{number:05d}_{part}.png"


def mask_files(root: Path, name: str) -> list[Path]:
    """The paths of all masks that a photograph may have. Parts that are not visible have no file."""
    return [_mask_file(root, name, part) for part in (*SKIN_PARTS, *OTHER_PARTS)]


def annotate(root: Path, name: str) -> Annotation:
    """Skin is where the skin, nose, brows or lips are marked and neither glasses nor hair nor anything else hides it.

    Raises:
        UserError: no mask of skin, or a mask that is damaged or of another size.
    """
    first = _mask_file(root, name, "skin")
    if not first.is_file():
        raise UserError(f"{first}: no such mask")
    skin = np.zeros(read_photo(first).shape[:2], np.float32)
    for parts, value in ((SKIN_PARTS, 1.0), (OTHER_PARTS, 0.0)):
        for part in parts:
            file = _mask_file(root, name, part)
            if not file.is_file():
                continue
            mask = read_photo(file)[..., 0] > 127
            if mask.shape != skin.shape:
                raise UserError(f"{file}: {mask.shape[1]} x {mask.shape[0]} pixels, the mask of skin has another size")
            skin[mask] = value
    return Annotation(skin=skin)


LAYOUT = Layout("celebamask-hq", TITLE, read_records, annotate, mask_files)
