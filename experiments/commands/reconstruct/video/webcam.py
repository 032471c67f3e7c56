"""`reconstruct --camera`: a webcam's pictures become a video file, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import av
from av.container import InputContainer

from experiments.commands.reconstruct.results import progress_bar
from experiments.commands.reconstruct.video.clip_file import ClipWriter, uprighted
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError

PAUSE = 0.005  # seconds until a camera that had no picture is asked again


@dataclass(frozen=True)
class Webcam:
    """A camera by the names that FFmpeg gives it.

    Attributes:
        device: its name.
        format: FFmpeg's input device, which depends on the operating system.
        options: of that input device.
    """

    device: str
    format: str
    options: dict[str, str] = field(default_factory=dict)


def find_webcam(name: str, system: str = sys.platform) -> Webcam:
    """The camera that a user names; an empty name is the first camera.

    Args:
        name: a number, or the name that the operating system gives it.
        system: the operating system as `sys.platform` names it.

    Raises:
        UserError: there is no first camera on this system.
    """
    if system == "darwin":
        # The cameras of Macs refuse the 29.97 frames a second that FFmpeg asks for by default.
        return Webcam(name or "0", "avfoundation", {"framerate": "30"})
    if system == "win32":
        if not name:
            raise UserError("--camera: name the camera as Windows does, for example --camera='Integrated Camera'")
        return Webcam(f"video={name.removeprefix('video=')}", "dshow")
    return Webcam(f"/dev/video{name or 0}" if name.isdecimal() or not name else name, "v4l2")


def record(path: Path, webcam: Webcam) -> None:
    """Write a camera's pictures into an MP4 until Ctrl-C, or until the camera ends, and print how long that was.

    Raises:
        UserError: `path` exists, or the camera gives no pictures.
        KeyboardInterrupt: Ctrl-C before the first picture. Nothing is written.
    """
    if path.exists():
        raise UserError(f"{path}: a recording lies there already; choose another OUT")
    count, seconds, writer = 0, 0.0, None
    with (
        written_atomically(path) as temporary,
        _opened(webcam) as container,
        _interruption() as interrupted,
        progress_bar() as (bar, task),
    ):
        rate = container.streams.video[0].average_rate or 30
        for frame in uprighted(_pictures(container), f"camera {webcam.device}"):
            if interrupted.is_set():
                break
            height, width = (side // 2 * 2 for side in frame.pixels.shape[:2])  # H.264 takes even sides only.
            writer = writer or ClipWriter(temporary, (height, width), float(rate))
            writer.add(frame.pixels[:height, :width], frame.seconds)
            count, seconds = frame.number + 1, frame.seconds
            bar.update(task, description=f"recording {seconds:.0f} s; Ctrl-C ends it")
        if writer is None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            raise UserError(f"camera {webcam.device}: it gives no pictures; try another: --camera=NAME")
        writer.close()
    print(f"recording     {path}: {count} frames, {seconds:.1f} s")


def _pictures(container: InputContainer) -> Iterator[av.VideoFrame]:
    """The decoded frames of a camera, which on a Mac now and then has none and says so by an error."""
    while True:
        try:
            yield from container.decode(video=0)
            return
        except av.BlockingIOError:
            time.sleep(PAUSE)


@contextmanager
def _opened(webcam: Webcam) -> Iterator[InputContainer]:
    try:
        with av.open(webcam.device, format=webcam.format, options=webcam.options) as container:
            yield container
    except (av.FFmpegError, ValueError) as error:  # FFmpeg libraries without this input device are a ValueError.
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"camera {webcam.device}: it cannot be read ({told}); plug one in, end the program that uses it, or name "
            "another: --camera=NAME"
        ) from error


@contextmanager
def _interruption() -> Iterator[Event]:
    """Is set by the first Ctrl-C, so that no frame is cut in half; the second one interrupts as always."""
    interrupted, before = Event(), signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
