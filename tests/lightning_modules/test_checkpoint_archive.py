"""Checkpoints whose pickle or archive was written by hand: each is refused before torch reads it."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.components.checkpoint_archive import DEEPEST, MOST_STEPS, check_archive
from lightning_modules.components.checkpoint_file import read_checkpoint
from renderers.io.errors import UserError
from tests.conf.deep3d import ReconstructionNetwork, write_checkpoint


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def held(value: bytes) -> bytes:
    """A pickle of {"state_dict": {"w": value}}."""
    return b"\x80\x02}(" + text("state_dict") + b"}" + text("w") + value + b"su."


def number(kind: str = "FloatStorage", count: int = 1) -> bytes:
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu") + (
        b"J" + struct.pack("<i", count) + b"tQ"
    )  # fmt: skip


def tensor(storage: bytes, size: int = 1, maker: bytes = b"ctorch._utils\n_rebuild_tensor_v2\n") -> bytes:
    hooks = b"ccollections\nOrderedDict\n)R"
    return maker + b"(" + storage + b"K\0J" + struct.pack("<i", size) + b"\x85K\1\x85\x89" + hooks + b"tR"


def archive(path: Path, pickle: bytes, **more: bytes) -> Path:
    members = {"a/data.pkl": pickle, "a/version": b"3\n", "a/byteorder": b"little", "a/data/0": b"\0\0\0\0", **more}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(UserError) as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_one_written_by_hand_is_read_as_torch_does(tmp_path: Path) -> None:
    """So that those below are refused for what is in them."""
    read = read_checkpoint(archive(tmp_path / "a.ckpt", held(tensor(number()))))
    assert torch.equal(read["state_dict"]["w"], torch.zeros(1))


PAIRS = b")" + b"".join(b"q\0h\0\x86" for _ in range(40))
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.parametrize(
    ("pickle", "said"),
    [
        (held(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"), "it names 'builtins bytearray'"),
        (held(b"c_codecs\nencode\n" + text("x") + text("idna") + b"\x86R"), "it names '_codecs encode'"),
        (held(b"ctorch\nFloatTensor\nJ\xff\xff\xff\x3f\x85R"), "it names 'torch FloatTensor'"),
        (held(tensor(number(), maker=b"ctorch._utils\n_rebuild_wrapper_subclass\n")), "_rebuild_wrapper_subclass'"),
        (held(b"\x82\x01"), "a step EXT1"),
        (b"\x80\x02}(" + PAIRS + b"N" + text("state_dict") + b"}u.", "nested too deeply|neither text nor a number"),
        (b"\x80\x02}()N" + text("state_dict") + b"}u.", "neither text nor a number"),
        (held(b"]" + b"".join(b"q\0](h\0h\0e" for _ in range(40))), "it holds is too much"),
        (held(b"]q\0(h\0h\0e"), "holds itself"),
        (held(b"]q\0" + b"K\0ah\0" * 2 + b"K\0a"), "holds itself|is too much"),
        (held(b")" + b"\x85" * (DEEPEST + 1)), "nested too deeply"),
        (held(b"N" * (MOST_STEPS + 1)), "too many steps"),
        (held(ORDERED + b"()N\x86t\x85R"), "something else than tensors and mappings"),
        (held(b"}" + text("a") + b"}b"), "fills what is no container"),
        (held(tensor(number(count=2))), "more numbers than there are in the file, or less"),
        (held(tensor(number("DoubleStorage"))), "more numbers than there are in the file, or less"),
        (held(b"a" * 4), "fills what is no container|takes more than it has"),
        (held(b"t"), "damaged"),
        (b"", "damaged"),
    ],
)
def test_a_pickle_that_no_checkpoint_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickle: bytes, said: str
) -> None:
    assert re.search(said, refused(archive(tmp_path / "a.ckpt", pickle), monkeypatch))


@pytest.mark.parametrize("name", ["values", "items", "_metadata"])
def test_attributes_of_an_ordered_mapping_hide_nothing(tmp_path: Path, name: str) -> None:
    """A tensor of more numbers than its storage has, behind a `values` of the file's own."""
    mapping = ORDERED + b")R" + text("w") + tensor(number(), 10**9).replace(b"K\1\x85\x89", b"K\0\x85\x89") + b"s"
    pickle = b"\x80\x02}" + text("state_dict") + mapping + b"}" + text(name) + b"K\1sbs."
    with pytest.raises(UserError, match=r"has attributes that torch gives to none|whose numbers are not in the file"):
        read_checkpoint(archive(tmp_path / "a.ckpt", pickle))


def whole() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.arange(3.0)}}, buffer)
    return buffer.getvalue()


def test_torchs_own_files_pass(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(whole())
    check_archive(tmp_path / "a.ckpt")
    check_archive(write_checkpoint(tmp_path / "deep3d.pth", ReconstructionNetwork()))
    parameter = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    kinds = [torch.zeros(2, dtype=kind) for kind in (torch.float64, torch.int8, torch.bool, torch.complex64)]
    torch.save({"state_dict": {"w": parameter, "b": parameter}, "kinds": kinds}, tmp_path / "b.ckpt")
    assert read_checkpoint(tmp_path / "b.ckpt")["kinds"][1].dtype == torch.int8


END = 22 + 20 + 56  # bytes of the records at the end of torch's archives, which are always those of a large one


def joined() -> bytes:
    """Two directories: the one where the record says, and another right before the end, where Python looks."""
    content = whole()
    size, start = struct.unpack("<QQ", content[-END:][40:56])
    end = bytearray(content[-END:])
    end[64:72] = struct.pack("<Q", len(content) - END + size)
    return content[: start + size] + content[start : start + size] + end


def other_size() -> bytes:
    """The two records at the end do not agree on the directory's size."""
    content = bytearray(whole())
    content[-10] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (whole() + b"PK\5\6", "does not end with the file"),
        (whole()[:-2] + b"\4\0" + b"\0" * 4, "does not end with the file"),
        (b"MZ" + whole(), "does not begin"),
        (b"PK\3\4" + whole(), "does not end with the file"),
        (joined(), "does not stand where it says"),
        (other_size(), "does not end with the file"),
        (whole().replace(b"archive/version", b"archive/versio\0"), "names hold zeros"),
        (whole()[:100], "does not end with the file"),
        (b"PK\3\4", "damaged"),
        (b"", "does not begin"),
    ],
)  # fmt: skip
def test_an_archive_that_two_readers_see_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    assert re.search(said, refused(tmp_path / "a.ckpt", monkeypatch))


def test_names_members_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(change: Any) -> str:
        content = bytearray(whole())
        start = struct.unpack("<I", content[-6:-2])[0]
        change(content, start)
        (tmp_path / "a.ckpt").write_bytes(content)
        return refused(tmp_path / "a.ckpt", monkeypatch)

    def encrypted(content: bytearray, start: int) -> None:
        content[start + 8] |= 1

    def overlapping(content: bytearray, start: int) -> None:
        second = content.index(b"PK\1\2", start + 4)
        content[second + 42 : second + 46] = struct.pack("<I", 8)

    assert "encrypted" in said(encrypted)
    assert "overlap" in said(overlapping)
    for name in ("a/data.PKL", "b/version"):
        path = archive(tmp_path / "a.ckpt", held(tensor(number())), **{name: b""})
        assert "have one name" in refused(path, monkeypatch) or "something else" in refused(path, monkeypatch)


def test_an_older_format_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    assert "torch.save(torch.load(OLD, weights_only=True), NEW)" in refused(tmp_path / "a.ckpt", monkeypatch)
