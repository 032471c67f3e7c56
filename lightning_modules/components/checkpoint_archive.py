"""What stands in a checkpoint file, seen before torch reads it: the archive's directory, and every step of its pickle.

Torch's restricted reader runs no code, but it hashes, allocates and nests whatever a file tells it to.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from renderers.io.errors import UserError

ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "Untyped": 1, "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
STORAGES = {
    f"{module} {kind}Storage": size
    for kind, size in ITEM_BYTES.items()
    for module in (("torch.storage", "torch") if kind == "Untyped" else ("torch",))
}
"""Bytes of a number by the name under which torch pickles its storage."""
ORDERED = "collections OrderedDict"
MAKERS = {ORDERED, "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {*CONSTANTS, "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

MOST_STEPS = 500_000  # the papers' checkpoints take some 20 000; this many take seconds
MOST_VALUES = 2 * MOST_STEPS  # counted as often as they are referred to: a walk through them ends soon
DEEPEST = 200  # the readers of what is in a checkpoint have bounds of their own; Python's stack ends at 1000
END, END64 = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
UTF8_AND_DESCRIPTOR = 0x0808  # the flags of a member that torch's writer sets
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file that torch wrote before 1.6: its magic number, pickled."""


class ArchiveError(ValueError):
    """Why a file is no checkpoint that torch wrote, as a clause without the file's name."""


def check_checkpoint(path: Path) -> None:
    """Checks that a file can be a checkpoint. It does not import torch, so that a wrong file is reported at once.

    Raises:
        UserError: no such file, a damaged one, or one that another program wrote.
    """
    if path.is_dir():
        raise UserError(f"checkpoint {path}: this is a folder; name the file, for example {path}/checkpoints/last.ckpt")
    if not path.is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        check_archive(path)
    except PermissionError:
        raise
    except ArchiveError as error:
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint: {error}") from error
    except Exception as error:  # Whatever Python's readers stumble over in a file that is not torch's.
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint ({type(error).__name__})") from error


def check_archive(path: Path) -> None:
    """Reads no more than the archive's directory and its pickle, and builds nothing.

    Raises:
        ArchiveError: torch's reader might see another archive than Python's, or the pickle names, nests or claims
            what no checkpoint of this program does.
        OSError, zipfile.BadZipFile, ValueError: a damaged file.
    """
    with path.open("rb") as file:
        begin = file.read(len(LEGACY))
        if begin == LEGACY:
            raise ArchiveError(
                "it is in torch's format of before 1.6; if you trust it, convert it: "
                "torch.save(torch.load(OLD, weights_only=True), NEW)"
            )
        if not begin.startswith(b"PK\x03\x04"):
            raise ArchiveError("it does not begin as torch's archives do")
        count = _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) != count:
                raise ArchiveError("its directory does not hold as many members as it says")
            _check_members(members, file)
            sizes = {member.filename: member.file_size for member in members}
            root = members[0].filename.split("/")[0] if members else ""
            if f"{root}/data.pkl" not in sizes or not all(name.startswith(f"{root}/") for name in sizes):
                raise ArchiveError("it holds something else than torch's archives do")
            _Walk(sizes, root).run(archive.read(f"{root}/data.pkl"))


def _check_directory(file: BinaryIO) -> int:
    """How many members there are, once there is but one directory that a reader can take for the archive's."""
    end = file.seek(0, 2) - END.size
    file.seek(max(end, 0))
    sign, disk, first, here, count, size, offset, comment = END.unpack(file.read(END.size))
    if sign != b"PK\x05\x06" or disk or first or here != count or comment:
        raise ArchiveError("its directory does not end with the file")
    file.seek(max(end - LOCATOR.size, 0))
    sign, _, place, _ = LOCATOR.unpack(file.read(LOCATOR.size))
    if sign == b"PK\x06\x07":  # of one that may have more than 4 GB, as all of torch's
        end -= LOCATOR.size + END64.size
        file.seek(max(end, 0))
        sign, length, _, _, disk, first, here64, count64, size64, offset64 = END64.unpack(file.read(END64.size))
        large = ((count, 0xFFFF, count64), (size, 0xFFFFFFFF, size64), (offset, 0xFFFFFFFF, offset64))
        agree = all(short == min(most, long) for short, most, long in large)
        if sign != b"PK\x06\x06" or length != 44 or place != end or disk or first or here64 != count64 or not agree:
            raise ArchiveError("its directory does not end with the file")
        count, size, offset = count64, size64, offset64
    if offset + size != end:
        raise ArchiveError("its directory does not stand where it says")
    return int(count)


def _check_members(members: list[zipfile.ZipInfo], file: BinaryIO) -> None:
    # Torch looks members up without regard to case.
    if len({member.filename.lower() for member in members}) != len(members):
        raise ArchiveError("two of its members have one name")
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ArchiveError("it is compressed, which torch's own files never are; it was not read")
        if member.flag_bits & ~UTF8_AND_DESCRIPTOR or member.extra[:2] not in (b"", b"\x01\x00"):
            raise ArchiveError("a member is encrypted, or of a kind that torch does not write")
        if member.orig_filename != member.filename or member.header_offset < end:
            raise ArchiveError("its members overlap, or their names hold zeros")
        file.seek(member.header_offset + 26)
        end = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + member.file_size


@dataclass(slots=True)
class _Value:
    """An entry of the pickle's stack: a plain value itself, or the size of anything else.

    Attributes:
        literal: a number, text, or a tuple of `_Value`; None for all else.
        kind: of opcode that made it, or the name of a global.
        levels: of containers in it.
        size: of values in it, each as often as it is referred to.
        closed: whether it was referred to: from then on it may not grow, or its size would be wrong.
    """

    literal: Any
    kind: str
    levels: int = 0
    size: int = 1
    closed: bool = False


class _Walk:
    """Follows a pickle's steps without building anything."""

    def __init__(self, sizes: dict[str, int], root: str) -> None:
        self.sizes, self.root = sizes, root
        self.stack: list[_Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Value] = {}

    def run(self, content: bytes) -> None:
        """Raises an ArchiveError at the first step that no checkpoint needs."""
        for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if step > MOST_STEPS:
                raise ArchiveError("its pickle has too many steps")
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in LITERALS:
            self.stack.append(_Value(CONSTANTS.get(name, argument), "literal"))
        elif name in EMPTY:
            self.stack.append(_Value(() if name == "EMPTY_TUPLE" else None, name, 1))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            value = self.memo[argument]
            value.closed = True
            self.stack.append(value)
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE" or name in TUPLES:
            items = self._popped(TUPLES[name]) if name in TUPLES else self._marked()
            self._grow(_Value(tuple(items), "tuple", 1), items, push=True)
        elif name in ("APPEND", "APPENDS"):
            items = self._popped(1) if name == "APPEND" else self._marked()
            self._grow(self._top("EMPTY_LIST"), items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._popped(2) if name == "SETITEM" else self._marked()
            if any(key.kind != "literal" for key in items[::2]):
                raise ArchiveError("a name in it is neither text nor a number")
            self._grow(self._top("EMPTY_DICT", "mapping"), items)
        elif name == "GLOBAL":
            if argument not in MAKERS and argument not in STORAGES:
                raise ArchiveError(f"it names {argument[:100]!r}, which no checkpoint needs")
            self.stack.append(_Value(None, argument))
        elif name == "REDUCE":
            self._make(*self._popped(2))
        elif name == "BUILD":
            items = self._popped(1)
            self._grow(self._top("mapping"), items)
        elif name == "BINPERSID":
            self._check_storage(*self._popped(1))
        elif name not in ("PROTO", "STOP"):
            raise ArchiveError(f"its pickle has a step {name}, which no checkpoint needs")

    def _make(self, maker: _Value, given: _Value) -> None:
        if maker.kind not in MAKERS or given.literal is None or (maker.kind == ORDERED and given.literal):
            raise ArchiveError("it makes something else than tensors and mappings")
        self._grow(_Value(None, "mapping" if maker.kind == ORDERED else "tensor", 1), [given], push=True)

    def _check_storage(self, told: _Value) -> None:
        """Torch takes as many bytes as the pickle says, from a member that may be shorter."""
        _, kind, key, _, count = told.literal
        held = self.sizes.get(f"{self.root}/data/{key.literal}")
        if kind.kind not in STORAGES or type(count.literal) is not int or held is None:
            raise ArchiveError("it names numbers that are not in the file")
        if count.literal * STORAGES[kind.kind] != held:
            raise ArchiveError("it claims to hold more numbers than there are in the file, or less")
        self.stack.append(_Value(None, "storage"))

    def _grow(self, value: _Value, items: list[_Value], push: bool = False) -> None:
        value.levels = max([value.levels, *(item.levels + 1 for item in items)])
        value.size += sum(item.size for item in items)
        if value.closed or value.levels > DEEPEST or value.size > MOST_VALUES:
            raise ArchiveError("what it holds is too much, nested too deeply, or holds itself")
        if push:
            self.stack.append(value)

    def _top(self, *kinds: str) -> _Value:
        if not self.stack or (kinds and self.stack[-1].kind not in kinds):
            raise ArchiveError("its pickle fills what is no container")
        return self.stack[-1]

    def _popped(self, count: int) -> list[_Value]:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise ArchiveError("its pickle takes more than it has")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _marked(self) -> list[_Value]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items
