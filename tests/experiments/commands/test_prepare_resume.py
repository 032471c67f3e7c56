"""`prepare` after kill -9, after a disk's damage, and on pictures made to hurt it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.datasets.layouts import load_layout
from datamodules.preparation.photo_file import read_photo
from datamodules.preparation.prepared_folder import PhotoIndex, face_files
from experiments.commands.prepare import photos
from experiments.commands.prepare.photos import prepare_dataset
from experiments.commands.prepare.store import JOURNAL_NAME, load_index
from renderers.io.errors import UserError
from tests.conf.fake_datasets import fake_face, save_photo, save_torch7
from tests.conf.preparing import TEMPLATE

ROOT = Path(__file__).parents[3]
PHOTOGRAPHS, SIZE = 60, 64
# What is killed: the command's own function, with a fixed template in the place of the default face model's.
PROGRAM = f"""
import sys
from pathlib import Path
import numpy as np
from datamodules.datasets.layouts import load_layout
from experiments.commands.prepare import photos, store

if __name__ == "__main__":
    store.SAVE_SECONDS = 3600.0  # what is kept is kept by the journal
    photos.default_template = lambda size: np.array({TEMPLATE.tolist()}, float) * (size / 224)
    photos.prepare_dataset(load_layout("ls3d-w"), Path(sys.argv[1]), Path(sys.argv[2]), {SIZE}, workers=2)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "default_template", lambda size: TEMPLATE * (size / 224))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with their landmarks."""
    root = tmp_path_factory.mktemp("ls3dw")
    for number in range(PHOTOGRAPHS):
        path = save_photo(root / "Menpo-3D" / f"{number:03d}.png", number % 8)
        save_torch7(path.with_suffix(".t7"), fake_face().landmarks - 0.5)
    return root


def prepare(source: Path, out: Path) -> PhotoIndex:
    return prepare_dataset(load_layout("ls3d-w"), source, out, SIZE, workers=1)


def status(process: int) -> tuple[str, int]:
    """A process's state and its parent, ("X", 0) when it is gone."""
    try:
        state, parent, *_ = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return state, int(parent)


def children(process: int) -> list[int]:
    everyone = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [other for other in everyone if status(other)[1] == process]


@pytest.fixture(scope="module")
def killed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A folder whose preparation by two processes got a SIGKILL on its way, and the processes it left."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "program.py").write_text(PROGRAM)
    out = folder / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(folder / "program.py"), str(source), str(out)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out / JOURNAL_NAME).is_file() or (out / JOURNAL_NAME).read_bytes().count(b"\n") < 6:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return out, workers


def test_a_killed_run_leaves_no_process(killed: tuple[Path, list[int]]) -> None:
    assert len(killed[1]) >= 2
    deadline = time.monotonic() + 30
    while any(status(worker)[0] not in "ZX" for worker in killed[1]):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_run_goes_on_without_redoing_or_losing_work(
    killed: tuple[Path, list[int]], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = killed[0]
    assert not (out / "index.json").exists()  # it was killed before its first saving
    index = load_index(out)
    assert index is not None
    done = {face.name: [path.stat().st_mtime_ns for path in face_files(out, face.name)] for _, face in index.faces()}
    assert 5 <= len(done) < PHOTOGRAPHS
    # What a kill in the middle of a write leaves.
    (out / "images" / ".000.png.abc").write_bytes(b"half")
    with (out / JOURNAL_NAME).open("ab") as journal:
        journal.write(b'deadbeef {"name": "Menpo-3D/059.png", "photo": {"bytes"')
    resumed = prepare(source, out)
    assert f"{len(done)} of them prepared already" in " ".join(capsys.readouterr().err.split())
    for name, times in done.items():
        assert [path.stat().st_mtime_ns for path in face_files(out, name)] == times
    assert {path.name for path in out.iterdir()} == {"images", "skin", "index.json", "skipped.json", "preview.jpg"}
    assert len(list((out / "images").iterdir())) == PHOTOGRAPHS
    whole = prepare(source, tmp_path / "whole")
    assert resumed == whole and len(whole.faces()) == PHOTOGRAPHS
    for folder in ("images", "skin"):
        for path in (tmp_path / "whole" / folder).iterdir():
            assert path.read_bytes() == (out / folder / path.name).read_bytes()


def test_damaged_files_are_prepared_again(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few"
    for path in sorted((source / "Menpo-3D").iterdir())[:8]:
        (few / "Menpo-3D").mkdir(parents=True, exist_ok=True)
        (few / "Menpo-3D" / path.name).symlink_to(path)
    out = tmp_path / "out"
    good = prepare(few, out)
    first, second, third, fourth = [face_files(out, face.name) for _, face in good.faces()]
    contents = [path.read_bytes() for path in (first[0], second[1], third[0])]
    flipped = bytearray(contents[0])
    flipped[len(flipped) // 2] ^= 1
    first[0].write_bytes(flipped)  # a bit of the disk's
    second[1].write_bytes(contents[1][:100])  # cut short
    third[0].write_bytes(fourth[0].read_bytes())  # another face's
    capsys.readouterr()
    assert prepare(few, out) == good
    assert "1 of them prepared already" in " ".join(capsys.readouterr().err.split())
    assert [path.read_bytes() for path in (first[0], second[1], third[0])] == contents


def test_a_damaged_index_is_not_believed(source: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    (few / "Menpo-3D").mkdir(parents=True)
    for path in sorted((source / "Menpo-3D").iterdir())[:4]:
        (few / "Menpo-3D" / path.name).symlink_to(path)
    good = prepare(few, tmp_path / "out")
    for damage in (b"", b"{}", (tmp_path / "out" / "index.json").read_bytes()[:-30]):
        (tmp_path / "out" / "index.json").write_bytes(damage)
        assert prepare(few, tmp_path / "out") == good


def png_with_size(width: int, height: int) -> bytes:
    """A PNG whose header declares a size that its few bytes of pixels cannot fill."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(fake_face().image).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def jpeg_with_size(width: int, height: int) -> bytes:
    content = bytearray(jpeg_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@settings(max_examples=20, deadline=None)
@given(st.integers(20_000, 65_000), st.integers(20_000, 65_000), st.sampled_from([png_with_size, jpeg_with_size]))
def test_monstrous_headers_are_refused_at_once(hostile: Path, width: int, height: int, make: object) -> None:
    path = hostile / "monster.jpg"
    path.write_bytes(make(width, height))  # type: ignore[operator]
    begun = time.process_time()
    with pytest.raises(UserError, match=r"monster\.jpg: more than .* megapixels"):
        read_photo(path)
    assert time.process_time() - begun < 1


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.binary(max_size=8), st.booleans())
def test_damaged_jpegs_are_read_or_refused_by_name(hostile: Path, where: float, damage: bytes, cut: bool) -> None:
    content = jpeg_bytes()
    place = int(where * len(content))
    path = hostile / "damaged.jpg"
    path.write_bytes(content[:place] if cut else content[:place] + damage + content[place + len(damage) :])
    try:
        image = read_photo(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_truncated_jpegs_are_refused(hostile: Path) -> None:
    content = jpeg_bytes()
    for share in (0.3, 0.6, 0.9):
        (hostile / "cut.jpg").write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"cut\.jpg: damaged or truncated"):
            read_photo(hostile / "cut.jpg")
