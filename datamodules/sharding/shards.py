"""Samples in shards: tar files of about a thousand samples in WebDataset's layout, which are read from end to end.

A data set of millions of small files is slow to list, to open and to copy. Shards are few large files in a known order.
The format is plain tar: `tar`, Python's tarfile and the webdataset package read it too, and nothing in it is unpickled.
(litdata's StreamingDataset asks a package registry for newer versions, and its indices may ask for pickles.)

A shard's first member, `__index__`, holds the places of its samples; WebDataset's readers skip it. `shards.json`
describes a folder of shards; its length does not depend on the number of samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from renderers.io.atomic_file import write_bytes, written_atomically
from renderers.io.errors import UserError

INDEX_NAME, SHARDS_VERSION = "shards.json", 1
TABLE_NAME = "__index__"
BLOCK = tarfile.BLOCKSIZE
MOST_SAMPLES, MOST_SHARDS, LARGEST_SHARD = 10**9, 10**6, 10**6
"""Limits: samples and shards of a part, by the digits in their names; samples of a shard, which memory has to hold."""
ENTRY = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("checksum", "<u4")])
"""The place of a sample's members in its shard, and their CRC-32."""
PARTS = ("train", "val", "test")

Sample = dict[str, bytes]
"""Contents by the endings of their names, which follow the sample's number: {"png": ..., "skin.png": ...}."""


@dataclass(frozen=True)
class ShardFolder:
    """The contents of `shards.json`, the index of a folder of shards.

    Attributes:
        samples_per_shard: the number of samples in each shard; the last shard of a part may hold fewer.
        parts: for "train", "val" and "test": the beginning of its shards' names, and its number of samples. Two parts
            may share their shards.
        settings: the source and the options that the shards were written with, as plain JSON values.
        complete: whether all shards have been written.
    """

    samples_per_shard: int
    parts: dict[str, tuple[str, int]]
    settings: dict[str, Any]
    complete: bool

    @classmethod
    def load(cls, root: Path) -> ShardFolder:
        """Reads ROOT/shards.json.

        Raises:
            FileNotFoundError: there is none.
            UserError: it is damaged, or of another version.
        """
        path = root / INDEX_NAME
        try:
            stored: dict[str, Any] = json.loads(path.read_bytes())
            if stored.pop("version") != SHARDS_VERSION:
                raise UserError(f"{path}: another version, this program reads {SHARDS_VERSION}")
            parts = {name: (str(prefix), int(count)) for name, (prefix, count) in stored.pop("parts").items()}
            folder = cls(**stored, parts=parts)
            if tuple(parts) != PARTS or not isinstance(folder.settings, dict):
                raise ValueError("what it says makes no sense")
            if not 1 <= int(folder.samples_per_shard) <= LARGEST_SHARD:
                raise ValueError(f"{folder.samples_per_shard} samples per shard, of 1 to {LARGEST_SHARD}")
            for name, (prefix, count) in parts.items():
                if prefix not in PARTS or not 0 <= count <= min(MOST_SAMPLES, MOST_SHARDS * folder.samples_per_shard):
                    raise ValueError(f"{count} samples for {name} in shards called {prefix!r}")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): delete {root}, and {shards_hint(root)}") from None
        return folder

    def save(self, root: Path) -> None:
        """Writes ROOT/shards.json in one step."""
        write_bytes(root / INDEX_NAME, json.dumps({"version": SHARDS_VERSION, **asdict(self)}, indent=1).encode())

    def is_own(self, part: str) -> bool:
        """Whether a part has shards of its own instead of another part's."""
        return self.parts[part][0] == part

    def shard_sizes(self, part: str) -> list[int]:
        """The number of samples in each shard of a part."""
        _, count = self.parts[part]
        whole, rest = divmod(count, self.samples_per_shard)
        return [self.samples_per_shard] * whole + [rest] * (rest > 0)


def shards_hint(root: Path) -> str:
    """The remedy for a folder without complete shards, for error messages."""
    return f"run `python -m experiments prepare shards PREPARED --out {root}`, where PREPARED holds prepared faces"


def shard_path(root: Path, prefix: str, number: int) -> Path:
    """The name of a shard, from 0."""
    return root / f"{prefix}-{number:06d}.tar"


def write_shard(path: Path, samples: Iterable[Mapping[str, bytes]], count: int, first: int = 0) -> None:
    """Write one shard, all of it or nothing, with one sample at a time in memory.

    Args:
        path: of the shard.
        samples: `count` samples, each with at least one content.
        count: at least 1.
        first: number of the first sample within the part; members are called NUMBER.ENDING.

    Raises:
        UserError: it cannot be written.
    """
    table = np.zeros(count, ENTRY)
    try:
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            file.write(_member(TABLE_NAME, table.tobytes()))
            for row, (entry, sample) in enumerate(zip(table, samples, strict=True)):
                content = b"".join(_member(f"{first + row:09d}.{end}", held) for end, held in sample.items())
                entry["offset"], entry["bytes"], entry["checksum"] = file.tell(), len(content), zlib.crc32(content)
                file.write(content)
            file.write(bytes(2 * BLOCK))
            file.seek(BLOCK)
            file.write(table.tobytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _member(name: str, content: bytes) -> bytes:
    """A member of a tar file: its header and its content, filled up to a whole block."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def is_whole_shard(path: Path, count: int) -> bool:
    """Whether a complete shard of `count` samples lies there."""
    try:
        with path.open("rb") as file:
            _read_table(file, path, count)
    except (OSError, UserError):
        return False
    return True


def _read_table(file: BufferedReader, path: Path, count: int) -> np.ndarray:
    """(count,) of `ENTRY`.

    Raises:
        UserError: the shard is cut off, or another one than is expected.
    """
    size = os.fstat(file.fileno()).st_size
    held = os.pread(file.fileno(), min(size, BLOCK + count * ENTRY.itemsize), 0)
    try:
        header = tarfile.TarInfo.frombuf(held[:BLOCK], tarfile.ENCODING, "surrogateescape")
        right = header.name == TABLE_NAME and header.size == count * ENTRY.itemsize == len(held) - BLOCK
    except tarfile.HeaderError:
        right = False
    table = np.frombuffer(held, ENTRY, offset=BLOCK) if right else np.zeros(0, ENTRY)
    # Python integers: sums of the table's 64-bit numbers could overflow.
    whole = right and int(table["offset"].max()) <= size
    ends = table["offset"] + table["bytes"]
    if not whole or (ends[:-1] != table["offset"][1:]).any() or int(ends[-1]) > size:
        raise UserError(f"{path} is damaged, or not a shard of {count} samples: {shards_hint(path.parent)}")
    return table


class ShardedSamples(Dataset[Sample]):
    """The samples of one part of one or several folders of shards, numbered through all folders.

    A shard is opened when its first sample is asked for. The operating system is then told to read the whole file into
    its cache, which all processes of a machine share. `ShardSampler` gives an order in which shards are read one after
    the other, each of them once.

    Args:
        roots: the folders.
        part: "train", "val" or "test".
        opened: number of shards that are kept open.

    Raises:
        UserError: a folder holds no shards, or their writing was cut short.
    """

    def __init__(self, roots: Sequence[Path], part: str, opened: int = 16) -> None:
        self.opened = opened
        self.names: list[tuple[Path, str, int]] = []
        """For every folder: the folder, the beginning of its shards' names, the number of shards before it."""
        sizes: list[int] = []
        for root in roots:
            folder = complete_folder(root)
            self.names.append((root, folder.parts[part][0], len(sizes)))
            sizes += folder.shard_sizes(part)
        self.sizes = np.array(sizes, dtype=np.int64)
        self.ends = self.sizes.cumsum()
        self._held: OrderedDict[int, tuple[BufferedReader, np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def shard_of(self, index: int) -> int:
        """The shard that holds a sample."""
        return int(np.searchsorted(self.ends, index, side="right"))

    def path(self, shard: int) -> Path:
        """The file of a shard, counted over all folders."""
        root, prefix, before = next(name for name in reversed(self.names) if name[2] <= shard)
        return shard_path(root, prefix, shard - before)

    def __getitem__(self, index: int) -> Sample:
        """The contents of a sample.

        Raises:
            UserError: its shard is missing or damaged.
        """
        shard = self.shard_of(index)
        file, table = self._open(shard)
        offset, size, checksum = table[index - int(self.ends[shard] - self.sizes[shard])].tolist()
        content = os.pread(file.fileno(), size, offset)
        members = _members(content) if zlib.crc32(content) == checksum else None
        if members is None:
            path = self.path(shard)
            raise UserError(f"{path}: sample {index} of its part is damaged: delete it, and {shards_hint(path.parent)}")
        return members

    def check(self, shard: int) -> None:
        """Check that a shard can be opened and is complete.

        Raises:
            UserError: it is missing or damaged.
        """
        self._open(shard)

    def _open(self, shard: int) -> tuple[BufferedReader, np.ndarray]:
        if shard in self._held:
            self._held.move_to_end(shard)
            return self._held[shard]
        path = self.path(shard)
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}: {shards_hint(path.parent)}") from None
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        held = self._held[shard] = file, _read_table(file, path, int(self.sizes[shard]))
        while len(self._held) > self.opened:
            self._held.popitem(last=False)[1][0].close()
        return held

    def __del__(self) -> None:
        for file, _ in getattr(self, "_held", {}).values():
            file.close()

    def __getstate__(self) -> dict[str, Any]:
        # Each loader process opens its own file handles.
        return {**self.__dict__, "_held": OrderedDict()}


def complete_folder(root: Path) -> ShardFolder:
    """The contents of a folder's `shards.json`, after a check that all shards were written.

    Raises:
        UserError: it holds no shards, or their writing was cut short.
    """
    try:
        folder = ShardFolder.load(root)
    except OSError:
        raise UserError(f"{root} is not a folder of shards: {shards_hint(root)}") from None
    if not folder.complete:
        raise UserError(f"{root}: its shards were not written to the end: {shards_hint(root)}")
    return folder


def _members(content: bytes) -> Sample | None:
    """The contents of consecutive members of a tar file, by the part of their names after the first dot.

    None if the members do not fill `content` exactly: in a damaged file a member's size may be anything, even negative.
    """
    found: Sample = {}
    start = 0
    while start < len(content):
        try:
            header = tarfile.TarInfo.frombuf(content[start : start + BLOCK], tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError:
            return None
        start += BLOCK
        if not 0 <= header.size <= len(content) - start:
            return None
        found[header.name.partition(".")[2]] = content[start : start + header.size]
        start += header.size + -header.size % BLOCK
    return found if start == len(content) else None


def digest(lines: Iterable[str]) -> str:
    """A fingerprint of the shards' source, of which `lines` tell."""
    found = hashlib.sha256()
    for line in lines:
        found.update(line.encode() + b"\n")
    return found.hexdigest()[:16]
