"""`reconstruct --camera`: cameras by name, a recording and its end by Ctrl-C. FFmpeg draws the pictures."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commands.reconstruct.video.clip_file import frames
from experiments.commands.reconstruct.video.webcam import Webcam, find_webcam, record
from renderers.io.errors import UserError


@pytest.mark.parametrize(
    ("name", "system", "device", "kind"),
    [
        ("", "linux", "/dev/video0", "v4l2"),
        ("2", "linux", "/dev/video2", "v4l2"),
        ("/dev/v4l/by-id/usb-cam", "linux", "/dev/v4l/by-id/usb-cam", "v4l2"),
        ("", "darwin", "0", "avfoundation"),
        ("FaceTime HD Camera", "darwin", "FaceTime HD Camera", "avfoundation"),
        ("Integrated Camera", "win32", "video=Integrated Camera", "dshow"),
    ],
)
def test_a_camera_is_named_as_the_system_names_it(name: str, system: str, device: str, kind: str) -> None:
    found = find_webcam(name, system)
    assert (found.device, found.format) == (device, kind)


def test_windows_has_no_first_camera() -> None:
    with pytest.raises(UserError, match="name the camera"):
        find_webcam("", "win32")


def test_a_recording_has_the_cameras_frames_and_even_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "camera.mp4"
    record(path, Webcam("testsrc=size=97x65:rate=20:duration=1", "lavfi"))
    recorded = list(frames(path))
    assert [frame.pixels.shape for frame in recorded] == [(64, 96, 3)] * 20
    assert [round(frame.seconds, 3) for frame in recorded] == [number / 20 for number in range(20)]
    assert "20 frames, 0.9 s" in capsys.readouterr().out
    with pytest.raises(UserError, match="lies there already"):
        record(path, Webcam("testsrc=size=97x65:rate=20:duration=1", "lavfi"))


def test_ctrl_c_ends_the_recording_and_keeps_it(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    record(tmp_path / "camera.mp4", Webcam("testsrc=size=64x64:rate=20,realtime", "lavfi"))  # without end
    timer.join()
    assert 2 <= len(list(frames(tmp_path / "camera.mp4"))) <= 40
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("device", "kind"),
    [("/dev/absent", "v4l2"), ("nullsrc=size=64x64:duration=0", "lavfi"), ("testsrc", "absent"), ("0", "dshow")],
)
def test_a_camera_without_pictures_is_told(tmp_path: Path, device: str, kind: str) -> None:
    with pytest.raises(UserError, match=r"^camera .*--camera=NAME$"):
        record(tmp_path / "camera.mp4", Webcam(device, kind))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--camera=absent"], ["photo.jpg", "--camera"], ["--camera", "--same-person"]])
def test_the_command_tells_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["reconstruct", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
