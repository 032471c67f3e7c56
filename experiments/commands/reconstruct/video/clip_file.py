"""Video files, read and written by PyAV, which brings FFmpeg's libraries: no ffmpeg program is needed."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from datamodules.preparation.file_names import printable
from datamodules.preparation.photo_file import MIN_SIDE
from renderers.io.errors import UserError

TICKS = 90_000  # a second, of the times that are written; MPEG's own clock
QUALITY = {"crf": "20", "preset": "veryfast"}  # of x264: hardly visible loss
MOST_PIXELS = 40_000_000  # of a frame; 8K has 33 million


@dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        number: from 0.
        seconds: since the first frame.
        pixels: (H, W, 3) uint8 sRGB, upright.
    """

    number: int
    seconds: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Clip:
    """What is known of a video file after one look through it.

    Attributes:
        path: the file.
        count: frames that can be read.
        size: (height, width) of them.
        spread: some of them, evenly from the first to the last.
        damage: why the rest of the file cannot be read; None where all of it can.
    """

    path: Path
    count: int
    size: tuple[int, int]
    spread: list[Frame]
    damage: str | None = None


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, or else by its content; pictures are none, nor is what cannot be read."""
    kind = mimetypes.guess_type(path.name)[0]
    if kind is not None:
        return kind.startswith("video/")
    try:
        with _opened(path) as container:
            # FFmpeg reads pictures, too, by formats like `png_pipe`.
            return not container.format.name.endswith("_pipe")
    except UserError:
        return False


def look_through(path: Path, spread: int) -> Clip:
    """Count a video's frames, and keep so many of them, evenly from the first to the last, or all of a short one.

    Raises:
        UserError: not a video, one without frames, or one with too small or too large ones.
    """
    kept: list[Frame] = []
    count, step, damage = 0, 1, None
    try:
        for frame in frames(path):
            count += 1
            if frame.number % step == 0:
                kept.append(frame)
            if len(kept) == 2 * spread:
                kept, step = kept[::2], 2 * step
    except UserError as error:
        if not kept:
            raise
        damage = str(error)
    if not kept:
        raise UserError(f"{path}: a video without frames")
    chosen = np.unique(np.linspace(0, len(kept) - 1, spread).round().astype(int))
    return Clip(path, count, kept[0].pixels.shape[:2], [kept[row] for row in chosen], damage)


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a video's first track, one after the other, turned as the file says they were taken.

    Frames of another size than the first end the clip: it was put together from several.

    Raises:
        UserError: not a video, or one that is damaged; then what comes before the damage has been given.
    """
    with _opened(path) as container, _told(path):
        yield from uprighted(container.decode(video=0), str(path))


def uprighted(decoded: Iterable[av.VideoFrame], source: str) -> Iterator[Frame]:
    """Decoded frames as arrays, with times that begin at 0 and ascend.

    Args:
        decoded: in their order.
        source: where they come from, for messages.

    Raises:
        UserError: frames that are too small or too large, or of another size than the first.
    """
    size = None
    begin = last = 0.0
    for number, picture in enumerate(decoded):
        if picture.width * picture.height > MOST_PIXELS or min(picture.width, picture.height) < MIN_SIDE:
            raise UserError(f"{source}: frames of {picture.width} x {picture.height} pixels are not read")
        pixels = np.rot90(picture.to_ndarray(format="rgb24"), round(picture.rotation / 90))
        size = size or pixels.shape
        if pixels.shape != size:
            raise UserError(f"{source}: frame {number} has another size than those before")
        time = number / 25 if picture.time is None else float(picture.time)
        begin = begin if number else time
        # Files from several sources go back in time now and then.
        last = max(time - begin, last + 1e-3) if number else 0.0
        yield Frame(number, last, np.ascontiguousarray(pixels))


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    with _told(path):
        container = av.open(str(path), metadata_errors="ignore")
    with container:
        if not container.streams.video:
            raise UserError(f"{path}: no video in this file")
        container.streams.video[0].thread_type = "AUTO"
        yield container


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What FFmpeg says of a file as a `UserError` that begins with the path."""
    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"{path}: not a video that can be read ({printable(error.strerror or str(error))})") from error


class ClipWriter:
    """Writes an H.264 MP4, frame by frame.

    Args:
        path: of the file, whose folder exists.
        size: (height, width) of the frames, even numbers.
        rate: frames a second, about; every frame brings its own time.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options=QUALITY
        )
        self._stream.height, self._stream.width, self._stream.pix_fmt = *size, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)

    def add(self, pixels: np.ndarray, seconds: float) -> None:
        """Append (H, W, 3) uint8 sRGB, later than all before."""
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
