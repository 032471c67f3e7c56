"""A prepared folder while it is being filled: nothing that is done is lost, and nothing damaged is believed."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.preparation.prepared_folder import (
    IMAGES,
    INDEX_NAME,
    SKIN,
    PhotoIndex,
    PhotoLabel,
    PreparedFace,
    PreparedPhoto,
    face_files,
    photo_to_json,
    read_face,
)
from experiments.commands.prepare.worker import Outcome
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError

JOURNAL_NAME = "journal.jsonl"
SAVE_SECONDS = 10.0  # how often the index is written anew


class PreparedStore:
    """The index of a prepared folder, with a journal of what has been added since it was last written.

    A photograph's files are written first, then its line in the journal, which is with the operating system before the
    next photograph begins: a killed process loses no more than what it had in hand. The journal's lines carry a
    checksum, so that a torn or damaged one is passed over. A folder in which nothing was found is not even made.

    Args:
        out: the prepared folder.
        index: what is known of it.
    """

    def __init__(self, out: Path, index: PhotoIndex) -> None:
        self.out, self.index = out, index
        self._journal: BinaryIO | None = None
        self._held = [_line(index.settings())]
        self._saved, self._pause = time.monotonic(), SAVE_SECONDS

    def add(self, outcome: Outcome) -> None:
        """Writes one photograph's files and notes it; deletes those of faces that it no longer has.

        Raises:
            UserError: a file cannot be written.
        """
        for face, files in zip(outcome.photo.faces, outcome.files, strict=True):
            for path, content in zip(face_files(self.out, face.name), files, strict=True):
                write_bytes(path, content)
        before = self.index.photos.get(outcome.name)
        self.index.photos[outcome.name] = outcome.photo
        if before is not None:
            kept = {face.name for face in outcome.photo.faces}
            self._delete([face for face in before.faces if face.name not in kept])
        self._note(_line({"name": outcome.name, "photo": photo_to_json(outcome.photo)}))
        if time.monotonic() - self._saved > self._pause and self._journal is not None:
            begun = time.monotonic()
            self.save()
            self._saved = time.monotonic()
            # A large index takes long to write: never more than a twentieth of the time.
            self._pause = max(SAVE_SECONDS, 20 * (self._saved - begun))

    def _note(self, line: bytes) -> None:
        """Appends a line, or holds it back while there is no face that would be worth a folder."""
        self._held.append(line)
        if self._journal is None and not (self.out / IMAGES).is_dir():
            return
        try:
            if self._journal is None:
                self._journal = (self.out / JOURNAL_NAME).open("ab", buffering=0)
            self._journal.write(b"".join(self._held))
        except OSError as error:
            raise UserError(f"cannot write {self.out / JOURNAL_NAME}: {error.strerror or error}") from error
        self._held = []

    def save(self) -> None:
        """Writes the index, which makes the journal superfluous.

        Raises:
            UserError: it cannot be written.
        """
        self.index.save(self.out)
        if self._journal is not None:
            self._journal.close()
        self._journal, self._held = None, [_line(self.index.settings())]
        (self.out / JOURNAL_NAME).unlink(missing_ok=True)

    def close(self) -> None:
        """Writes the index if there is anything to keep."""
        if self.index.faces() or (self.out / INDEX_NAME).exists():
            self.save()
        elif self._journal is not None:
            self._journal.close()

    def forget_removed(self, names: Iterable[str]) -> None:
        """Drops the photographs that are not among `names`, with their faces."""
        for name in set(self.index.photos) - set(names):
            self._delete(self.index.photos.pop(name).faces)

    def relabel(self, labels: Mapping[str, PhotoLabel | None]) -> None:
        """Takes over what the owner's lists say now of photographs prepared earlier; a yaw that was read stays."""
        for name, photo in self.index.photos.items():
            label = labels.get(name)
            if label is not None and label.yaw is None and photo.label is not None:
                label = replace(label, yaw=photo.label.yaw)
            self.index.photos[name] = replace(photo, label=label)

    def is_whole(self, photo: PreparedPhoto) -> bool:
        """Whether every file of a photograph's faces is there with the content it was written with."""
        return all(self._face_is_whole(face) for face in photo.faces)

    def _face_is_whole(self, face: PreparedFace) -> bool:
        try:
            if not face.checksums:
                read_face(self.out, face.name)  # from an older version: it decodes at least
                return True
            contents = [path.read_bytes() for path in face_files(self.out, face.name)]
        except (UserError, OSError):
            return False
        return [zlib.crc32(content) for content in contents] == face.checksums

    def _delete(self, faces: Iterable[PreparedFace]) -> None:
        for face in faces:
            for path in face_files(self.out, face.name):
                path.unlink(missing_ok=True)


def load_index(out: Path) -> PhotoIndex | None:
    """What an earlier run left in a folder, whether it ended or was killed; None where it left nothing.

    Raises:
        UserError: the index is damaged, and there is no journal either.
    """
    damage: UserError | None = None
    index: PhotoIndex | None = None
    try:
        index = PhotoIndex.load(out)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except UserError as error:
        damage = error
    index = _replayed(out / JOURNAL_NAME, index)
    if index is None and damage is not None:
        raise damage
    return index


def _replayed(path: Path, index: PhotoIndex | None) -> PhotoIndex | None:
    """The index with what the journal holds of its own run; a line of settings begins each run's lines."""
    fits = False
    for entry in _entries(path):
        try:
            if "photo" not in entry:
                if index is None:
                    index = PhotoIndex.from_settings(entry, {})
                fits = index.settings() == entry
            elif fits and index is not None:
                index.photos[str(entry["name"])] = index.read_photo(entry["photo"])
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return index


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _entries(path: Path) -> Iterable[dict[str, Any]]:
    """The journal's lines whose checksum is right."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            entry = json.loads(text)
            if isinstance(entry, dict):
                yield entry


def remove_leftovers(out: Path) -> None:
    """Deletes the half-written files of a run that was killed; they have hidden names."""
    for folder in (out, out / IMAGES, out / SKIN):
        for path in folder.glob(".*.*") if folder.is_dir() else []:
            if path.is_file():
                path.unlink(missing_ok=True)
