"""A folder of prepared faces -> shards, which `datamodules.sharding.sharded_faces.ShardedFaces` trains on."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.preparation.prepared_folder import (
    PhotoIndex,
    PreparedFace,
    Split,
    face_files,
    prepare_hint,
    prepared_index,
)
from datamodules.preparation.splits import group_views, split_prepared
from datamodules.prepared_data import kind_of
from datamodules.sharding.sharded_faces import (
    CONTOUR_LANDMARKS,
    IMAGE,
    KINDS_SETTING,
    LANDMARKS,
    SKIN,
    encoded_landmarks,
)
from datamodules.sharding.shards import (
    Sample,
    ShardFolder,
    digest,
    is_whole_shard,
    shard_path,
    write_shard,
)
from renderers.io.errors import UserError

Rows = list[tuple[PreparedFace, ...]]
"""Of each sample of a part its face, or its views with the target in the middle."""


def prepare_shards(
    source: Path, out: Path, samples_per_shard: int = 1000, val_fraction: float = 0.1, views: bool = False
) -> ShardFolder:
    """Writes a prepared folder's faces, as they are, into shards for training, validation and testing.

    Shards that an earlier run of the same command wrote are kept.

    Args:
        source: folder that `prepare` made.
        out: folder of shards.
        samples_per_shard: at most; a shard is what is read at a time.
        val_fraction: share kept for validation, as `PhotoFolder` keeps it.
        views: whether a training face that others show from further left and right takes these with it; a face is then
            written with each of its neighbours.

    Raises:
        UserError: `source` is not a prepared folder or one of its files is damaged, `out` holds something else, or it
            cannot be written.
        KeyboardInterrupt: interrupted; what was done so far is kept.
    """
    index = _index(source, out)
    parts = sharded_parts(index, val_fraction, views)
    prefixes = {part: "val" if part == "test" and rows == parts["val"] else str(part) for part, rows in parts.items()}
    kinds = sorted({kind_of(face.contour) for _, face in index.faces()})
    settings = {"digest": _digest(parts), "views": views, KINDS_SETTING: kinds}
    counted = {str(part): (prefixes[part], len(rows)) for part, rows in parts.items()}
    folder = ShardFolder(samples_per_shard, counted, settings, complete=False)
    _begin(folder, out)
    console = Console(stderr=True)
    done, total = _write(folder, parts, source, out, console)
    folder = replace(folder, complete=True)
    folder.save(out)
    written = f"{total - done} of them were there already" if done < total else "all of them new"
    told = ", ".join(f"{count} for {part}" for part, (_, count) in counted.items())
    console.print(f"{total} shards in {out}, {written}; samples: {told}", highlight=False, soft_wrap=True)
    return folder


def _index(source: Path, out: Path) -> PhotoIndex:
    if source.resolve() == out.resolve():
        raise UserError(f"--out is the prepared folder itself ({source}): choose another one")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, not a folder")
    return prepared_index(source)


def sharded_parts(index: PhotoIndex, val_fraction: float, views: bool) -> dict[Split, Rows]:
    """The samples of every part, in `PhotoFolder`'s order."""
    split = split_prepared(index, val_fraction)
    parts: dict[Split, Rows] = {}
    for part in get_args(Split):
        chosen = [pair for pair in index.faces() if pair[0] in split[part]]
        faces = [face for _, face in chosen]
        rows: list[tuple[int, ...]] = [(row,) for row in range(len(faces))]
        if views and part == "train":
            rows = group_views([index.photos[name].label for name, _ in chosen])
        parts[part] = [tuple(faces[row] for row in sample) for sample in rows]
    return parts


def _digest(parts: dict[Split, Rows]) -> str:
    faces = (
        json.dumps([part, [[face.name, face.checksums, face.landmarks, face.contour] for face in sample]])
        for part, rows in parts.items()
        for sample in rows
    )
    return digest(faces)


def _begin(folder: ShardFolder, out: Path) -> None:
    """Says what is going to be written, unless something else is there."""
    try:
        before = ShardFolder.load(out)
    except OSError:
        before = None
    if before is None and out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} holds something else: choose another folder")
    if before is not None and replace(before, complete=False) != folder:
        raise UserError(
            f"{out} was written from other faces or with other settings: choose another --out, or delete it"
        )
    for half in out.glob(".*.tar") if out.is_dir() else []:
        half.unlink(missing_ok=True)  # of a run that was killed
    if before is None:
        folder.save(out)


def _write(folder: ShardFolder, parts: dict[Split, Rows], source: Path, out: Path, console: Console) -> tuple[int, int]:
    """Writes the shards that are not there; (how many it wrote, how many there are)."""
    sizes = {part: folder.shard_sizes(part) for part in parts if folder.is_own(part)}
    shards = [(part, number, size) for part, numbers in sizes.items() for number, size in enumerate(numbers)]
    columns = (TextColumn("writing shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    written = 0
    with Progress(*columns, console=console) as progress:
        for part, number, size in progress.track(shards):
            path = shard_path(out, part, number)
            if is_whole_shard(path, size):
                continue
            first = number * folder.samples_per_shard
            samples = (encoded(source, faces) for faces in parts[part][first : first + size])
            try:
                write_shard(path, samples, size, first)
            except KeyboardInterrupt:
                told = f"{shards.index((part, number, size))} of {len(shards)} shards are written"
                raise KeyboardInterrupt(f"{told}; run the same command to go on") from None
            written += 1
    return written, len(shards)


def encoded(source: Path, faces: tuple[PreparedFace, ...]) -> Sample:
    """The members of a sample: the files of its faces as they are, and their landmarks.

    Raises:
        UserError: a file is missing or damaged.
    """
    sample: Sample = {}
    for view, face in enumerate(faces):
        for number, (name, path) in enumerate(zip((IMAGE, SKIN), face_files(source, face.name), strict=True)):
            content = path.read_bytes() if path.is_file() else b""
            if not content or (face.checksums and zlib.crc32(content) != face.checksums[number]):
                raise UserError(f"{path} is missing or damaged: {prepare_hint(source)}")
            sample[f"{view}.{name}"] = content
        name = CONTOUR_LANDMARKS if face.contour else LANDMARKS
        sample[f"{view}.{name}"] = encoded_landmarks(face.landmarks)
    return sample
