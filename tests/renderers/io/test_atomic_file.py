"""Files that are there whole or not at all, whatever happens to the process or to the disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main
from renderers.io import atomic_file
from renderers.io.atomic_file import folder_written_atomically, write_bytes, written_atomically
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may be over 1000 bytes: what a full disk is to a program, but for the number of the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["text", "array", "picture"])
def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path: Path, little_room: None, kind: str) -> None:
    path = tmp_path / "new" / {"text": "a.txt", "array": "a.npz", "picture": "a.png"}[kind]
    with pytest.raises(OSError) as caught, written_atomically(path) as temporary:
        if kind == "text":
            temporary.write_text("x" * 5000)
        elif kind == "array":
            np.savez(temporary, x=np.zeros(1000))
        else:
            Image.effect_noise((100, 100), 50.0).save(temporary)
    assert caught.value.filename == str(path) and caught.value.filename2 is None
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "a.txt"
    with pytest.raises(NotADirectoryError) as caught, written_atomically(path):
        pytest.fail("there is no such folder")
    assert caught.value.filename == str(path)
    with pytest.raises(UserError, match=r"cannot write .*a\.txt: Not a directory"):
        write_bytes(path, b"x")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError) as taken, written_atomically(tmp_path / "folder.png") as temporary:
        temporary.touch()
    assert taken.value.filename == str(tmp_path / "folder.png")


def test_another_files_error_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, written_atomically(tmp_path / "a.txt"):
        (tmp_path / "absent").read_text()
    assert caught.value.filename == str(tmp_path / "absent")


def test_the_command_line_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["sheet", "--count=1", "--size=16", "--subdivide=0", f"--out={tmp_path}/file/sheet.png"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/file/sheet.png" in said and atomic_file.MARK not in said


def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    code = (
        "import os, signal, sys; from pathlib import Path; from renderers.io.atomic_file import written_atomically\n"
        "with written_atomically(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    os.utime(left, (time.time() - atomic_file.QUIET - 1,) * 2)
    users = [".last-20240101.ckpt", ".last.ckpt", "last.monoface-a.ckpt", ".last.monoface"]
    for name in users:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9, 1e9))
    with written_atomically(path) as temporary:
        temporary.write_text("whole")
        in_use = path.with_name(f".last{atomic_file.MARK}b.ckpt")  # of another process, which still writes
        in_use.touch()
        os.utime(in_use, (time.time() - 600,) * 2)  # a slow one: it began before this process
        with written_atomically(path) as second:
            second.write_text("whole")
    assert names(tmp_path) == sorted([*users, in_use.name, "last.ckpt"])
    assert path.read_text() == "whole"


def test_a_folder_of_many_files_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Path] = []
    monkeypatch.setattr(Path, "glob", lambda self, pattern: searched.append(self) or [])
    for count in range(20):
        write_bytes(tmp_path / f"{count}.png", b"x")
    assert searched == [tmp_path]


@pytest.mark.parametrize("name", ["[a]*?.png", "é" * 100 + ".png", "x" * 251 + ".png", ".hidden", "-dash.png"])
def test_any_name_can_be_written(tmp_path: Path, name: str) -> None:
    for content in (b"one", b"two"):
        write_bytes(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
        assert names(tmp_path) == [name]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "train-1"
    path.parent.mkdir()
    left = path.with_name(f".train-1{atomic_file.MARK}x")
    left.mkdir()
    (left / "a.npy").touch()
    for item in (left / "a.npy", left):
        os.utime(item, (1e9, 1e9))
    with pytest.raises(ValueError, match="half"), folder_written_atomically(path) as temporary:
        (temporary / "a.npy").touch()
        raise ValueError("half")
    assert names(path.parent) == []
    with folder_written_atomically(path) as temporary:
        (temporary / "a.npy").touch()
    assert names(path.parent) == ["train-1"] and names(path) == ["a.npy"]
    assert path.stat().st_mode & 0o777 == 0o777 & ~atomic_file._umask()


@pytest.mark.parametrize("written", [written_atomically, folder_written_atomically])
def test_a_failure_leaves_no_folder_that_was_made_for_it(tmp_path: Path, written: Any) -> None:
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "theirs" / "made" / "too" / "result"
    with pytest.raises(KeyboardInterrupt), written(path):
        assert path.parent.is_dir()
        raise KeyboardInterrupt
    assert names(tmp_path) == ["theirs"] and names(tmp_path / "theirs") == []
    with pytest.raises(OSError, match="too long"), written(tmp_path / "theirs" / "made" / ("n" * 300) / "result"):
        pass
    assert names(tmp_path / "theirs") == []
    with pytest.raises(ValueError, match="half"), written(path):
        (path.parent / "another's").touch()
        raise ValueError("half")
    assert names(path.parent) == ["another's"]
