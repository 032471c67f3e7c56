"""The index of a folder of prepared faces, and the pictures in it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from datamodules.preparation.photo_file import decode_png
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError

INDEX_NAME, SKIPPED_NAME, IMAGES, SKIN = "index.json", "skipped.json", "images", "skin"
INDEX_VERSION = 1
OLDER_CONTOUR = {"dlib": True, "face-alignment": False, "given": False}
"""`PreparedFace.contour` by the source of landmarks, for older folders, which do not store it. "given": by the data
set's owner."""
MIXED_LANDMARKS = "300w-lp"  # a data set whose owner gives both kinds of landmarks
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class PreparedFace:
    """One aligned face of a prepared folder.

    Attributes:
        name: its files are images/NAME.png and skin/NAME.png.
        box: left, top, right, bottom in the photograph's continuous pixels.
        score: the detector's confidence.
        landmarks: 68 x, y pairs in the crop's continuous pixels.
        matrix: 2 x 3, the similarity from photograph to crop pixels.
        checksums: CRC-32 of the two files, in that order. Folders prepared by an older version have none.
        contour: whether the jaw's landmarks mark the visible outline of the face; else they are fixed points of the
            head.
    """

    name: str
    box: list[float]
    score: float
    landmarks: list[list[float]]
    matrix: list[list[float]]
    checksums: list[int] = field(default_factory=list)
    contour: bool = False


@dataclass(frozen=True)
class PhotoLabel:
    """A data set's annotation of one photograph.

    Attributes:
        split: training, validation or test.
        identity: the person; one person's photographs are never in both training and validation.
        group: photographs of one group show the same face with the same expression from several sides. None: no group.
        yaw: degrees; None if unknown.
    """

    split: Split
    identity: str
    group: str | None = None
    yaw: float | None = None


@dataclass(frozen=True)
class PreparedPhoto:
    """The result of preparing one photograph.

    Attributes:
        bytes: sizes of the photograph and its annotation when it was prepared, added up.
        modified_ns: the latest modification time of these files. If it or `bytes` has changed, prepare it again.
        faces: the prepared faces; none if there is a `reason`.
        reason: why nothing was prepared.
        label: of a data set's photograph.
        doubtful: number of further faces, which were skipped because their landmarks are doubtful.
    """

    bytes: int
    modified_ns: int
    faces: list[PreparedFace]
    reason: str | None = None
    label: PhotoLabel | None = None
    doubtful: int = 0


@dataclass
class PhotoIndex:
    """The index of a folder of prepared faces.

    Attributes:
        size: side of the crops in pixels.
        detector: which detector found the faces.
        largest: whether only each photograph's largest face was taken.
        source: the folder of photographs.
        photos: by path relative to `source`, with forward slashes.
        dataset: name of the data set, None for a folder of photographs.
    """

    size: int
    detector: str
    largest: bool
    source: str
    photos: dict[str, PreparedPhoto] = field(default_factory=dict)
    dataset: str | None = None

    @classmethod
    def load(cls, root: Path) -> PhotoIndex:
        """Reads ROOT/index.json and, where it is there, ROOT/skipped.json.

        Raises:
            FileNotFoundError: no index.
            UserError: an index that is damaged or of another version.
        """
        path = root / INDEX_NAME
        text = path.read_bytes()
        try:
            stored: dict[str, Any] = json.loads(text)
            if stored["version"] != INDEX_VERSION:
                raise UserError(f"{path}: version {stored['version']}, this program reads {INDEX_VERSION}")
            index = cls.from_settings(stored, {})
            index.photos = {key: index.read_photo(value) for key, value in stored["photos"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): delete it and prepare the photographs again") from None
        return index

    @classmethod
    def from_settings(cls, stored: dict[str, Any], photos: dict[str, PreparedPhoto]) -> PhotoIndex:
        """An index with these photographs and the settings that `settings` returned.

        Raises:
            KeyError, TypeError, ValueError: settings are missing or wrong.
        """
        settings = {name: stored[name] for name in ("size", "detector", "largest", "source")}
        index = cls(**settings, photos=photos, dataset=stored.get("dataset"))
        if not isinstance(index.size, int) or index.size < 1:
            raise ValueError(f"size {index.size}")
        return index

    def read_photo(self, stored: dict[str, Any]) -> PreparedPhoto:
        """An entry that `photo_to_json` wrote. In older ones the kind of landmarks is missing; the detector tells it.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: the entry is damaged.
            UserError: the kind of landmarks cannot be known.
        """
        for face in stored["faces"]:
            if "contour" not in face:
                face["contour"] = self._older_contour()
        return photo_from_json(stored)

    def _older_contour(self) -> bool:
        if self.dataset == MIXED_LANDMARKS or self.detector not in OLDER_CONTOUR:
            raise UserError(
                f"faces of {self.source} were prepared by an older version, which did not note whether their jaw "
                "landmarks are the visible contour: prepare them again"
            )
        return OLDER_CONTOUR[self.detector]

    def settings(self) -> dict[str, Any]:
        """Everything but the photographs, for JSON."""
        given = {name: getattr(self, name) for name in ("size", "detector", "largest", "source")}
        return given if self.dataset is None else {**given, "dataset": self.dataset}

    def save(self, root: Path) -> None:
        """Write ROOT/index.json, and the list of skipped photographs and faces, ROOT/skipped.json, each in one step."""
        photos = {key: photo_to_json(photo) for key, photo in sorted(self.photos.items())}
        content = {"version": INDEX_VERSION, **self.settings(), "photos": photos}
        write_bytes(root / INDEX_NAME, json.dumps(content).encode())
        skipped = json.dumps(self.skipped(), indent=1, ensure_ascii=False)
        # A name that is no UTF-8 becomes the escape that JSON has for it.
        write_bytes(root / SKIPPED_NAME, skipped.encode(errors="backslashreplace"))

    def skipped(self) -> dict[str, str]:
        """Path -> reason, for every photograph of which no face, or not every face, was prepared."""
        reasons = {key: photo.reason or _passed_over(photo) for key, photo in sorted(self.photos.items())}
        return {key: reason for key, reason in reasons.items() if reason is not None}

    def faces(self) -> list[tuple[str, PreparedFace]]:
        """Every prepared face with its photograph's path, in order of path."""
        return [(key, face) for key, photo in sorted(self.photos.items()) for face in photo.faces]


def _passed_over(photo: PreparedPhoto) -> str | None:
    if not photo.doubtful:
        return None
    return f"{photo.doubtful} of its {photo.doubtful + len(photo.faces)} faces, whose landmarks are doubtful"


def photo_to_json(photo: PreparedPhoto) -> dict[str, Any]:
    """An index's entry for JSON. Fields that hold nothing in a plain folder of photographs are left out."""
    stored = asdict(photo)
    if photo.label is None:
        del stored["label"]
    if not photo.doubtful:
        del stored["doubtful"]
    return stored


def photo_from_json(stored: dict[str, Any]) -> PreparedPhoto:
    """The inverse of `photo_to_json`, which checks every number.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: the entry is damaged.
    """
    faces = [PreparedFace(**face) for face in stored["faces"]]
    for face in faces:
        for values, shape in ((face.landmarks, (68, 2)), (face.matrix, (2, 3)), (face.box, (4,))):
            array = np.asarray(values, dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"face {face.name}: {array.shape} numbers where {shape} finite ones belong")
        if Path(face.name).name != face.name:
            raise ValueError(f"face name {face.name!r}")
        if len(face.checksums) not in (0, 2):
            raise ValueError(f"face {face.name}: {len(face.checksums)} checksums")
    label = PhotoLabel(**stored["label"]) if stored.get("label") else None
    if label is not None and not _is_label(label):
        raise ValueError(f"label {label}")
    if not all(isinstance(face.contour, bool) for face in faces):
        raise ValueError("contour is neither true nor false")
    size, modified, doubtful = int(stored["bytes"]), int(stored["modified_ns"]), int(stored.get("doubtful", 0))
    return PreparedPhoto(size, modified, faces, stored["reason"], label, doubtful)


def _is_label(label: PhotoLabel) -> bool:
    yaw = isinstance(label.yaw, float | int | None) and np.isfinite(label.yaw or 0)
    known = label.split in get_args(Split) and isinstance(label.identity, str)
    return bool(known and yaw and isinstance(label.group, str | None))


def face_files(root: Path, name: str) -> tuple[Path, Path]:
    """The files of a prepared face: its crop, and its skin weights."""
    return root / IMAGES / f"{name}.png", root / SKIN / f"{name}.png"


def read_face(root: Path, name: str, checksums: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """A prepared face's crop (S, S, 3) in RGB and skin weights (S, S), both uint8.

    Args:
        root: the prepared folder.
        name: of the face.
        checksums: `PreparedFace.checksums`. If there are some, the files must match them.

    Raises:
        UserError: a file is missing or damaged.
    """
    pictures = []
    modes = (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE)
    for number, (file, mode) in enumerate(zip(face_files(root, name), modes, strict=True)):
        content = file.read_bytes() if file.is_file() else b""
        damaged = not content or (checksums and zlib.crc32(content) != checksums[number])
        pixels = None if damaged else decode_png(content, mode)
        if pixels is None:
            raise UserError(f"{file} is missing or damaged: {prepare_hint(root)}")
        pictures.append(pixels)
    return np.ascontiguousarray(pictures[0][..., ::-1]), pictures[1]


def prepared_index(root: Path) -> PhotoIndex:
    """The index of a prepared folder.

    Raises:
        UserError: it is not prepared, its index is damaged, or it holds no face.
    """
    try:
        index = PhotoIndex.load(root)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{root} is not a folder of prepared faces: {prepare_hint(root)}") from None
    if not index.faces():
        raise UserError(f"{root} holds no face: {prepare_hint(root)}")
    return index


def prepare_hint(root: Path) -> str:
    """The remedy for a folder that is not, or no longer, prepared, for error messages."""
    return f"run `python -m experiments prepare photos DIR --out {root}`, where DIR holds the photographs"
