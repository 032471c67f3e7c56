"""A folder's photographs through one process or several: each loads once, and few photographs wait at a time."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch

from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.prepare.worker import leave_with_parent
from experiments.commands.reconstruct.loading import load_pipeline
from experiments.commands.reconstruct.output import replacing
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.results import write_result
from experiments.commands.reconstruct.tracking import scene_of
from experiments.training.stored_module import Trust
from renderers.io.errors import UserError, reason

AHEAD = 2  # photographs a process that are handed out before they are asked for: bounds the memory, keeps all busy

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Look:
    """What is in a photograph.

    Attributes:
        found: its faces, from left to right.
        seconds: that each of them took.
        scene: see `scene_of`.
    """

    found: list[DetectedFace]
    seconds: float
    scene: np.ndarray


@dataclass(frozen=True, eq=False)
class Order:
    """A photograph to be reconstructed.

    Attributes:
        path: the file.
        out: the folder of its result.
        look: what is in it.
        numbers: of its faces.
        more: what else `reconstruction.json` is to say.
    """

    path: Path
    out: Path
    look: Look
    numbers: list[int]
    more: dict[str, Any]


class Workshop(Protocol):
    """What reconstructs photographs.

    Attributes:
        ahead: how many of them may wait.
    """

    ahead: int

    def look(self, path: Path) -> Future[Look]:
        """Find the faces of a photograph; whatever is wrong with it is the future's exception."""
        ...

    def make(self, order: Order) -> Future[str | None]:
        """Write a result; the future says why it could not be made, and fails where no other could be written."""
        ...


@dataclass
class Craftsman:
    """Does everything in this process, at once."""

    pipeline: ReconstructionPipeline
    ahead: int = 1
    _held: tuple[Path, Photo] | None = field(default=None, init=False)

    def look(self, path: Path) -> Future[Look]:
        """See `Workshop.look`."""
        return _done(lambda: self.look_at(path))

    def make(self, order: Order) -> Future[str | None]:
        """See `Workshop.make`."""
        return _done(lambda: self.written(order))

    def look_at(self, path: Path) -> Look:
        """The faces of a photograph."""
        photo = open_photo(path)
        self._held = path, photo
        found, seconds = self.pipeline.detect(photo)
        return Look(found, seconds, scene_of(photo.pixels))

    def written(self, order: Order) -> str | None:
        """Write a result, or say what is wrong with the photograph.

        Raises:
            UserError: the result cannot be written.
        """
        try:
            photo = self._again(order.path)
            faces = self.pipeline.solved(photo, order.look.found, order.look.seconds)
            numbered = [replace(face, number=number) for face, number in zip(faces, order.numbers, strict=True)]
            numbered.sort(key=lambda face: face.number)
        except Exception as error:  # whatever is wrong with one file, the others are not lost
            return reason(error)
        try:
            with replacing(order.out) as folder:
                write_result(folder, photo, numbered, self.pipeline, order.more)
        except UserError:
            raise
        except Exception as error:
            return reason(error)
        return None

    def _again(self, path: Path) -> Photo:
        """A photograph that this process, or another, has looked at."""
        held, self._held = self._held, None
        return held[1] if held is not None and held[0] == path else open_photo(path)


@dataclass(frozen=True)
class Loader:
    """What a process loads its pipeline by, see `load_pipeline`."""

    checkpoint: Path | None
    face_model: str | None
    detector: str
    refine: bool
    detail_size: int | None
    trust: Trust

    def __call__(self) -> ReconstructionPipeline:
        """Load it."""
        return load_pipeline(self.checkpoint, self.face_model, self.detector, self.refine, self.detail_size, self.trust)


class Factory:
    """Has the work done by several processes, one core each.

    Args:
        pool: of them.
        count: how many.
    """

    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool, self.ahead = pool, AHEAD * count

    def look(self, path: Path) -> Future[Look]:
        """See `Workshop.look`."""
        return self._pool.submit(_look, path)

    def make(self, order: Order) -> Future[str | None]:
        """See `Workshop.make`."""
        return self._pool.submit(_make, order)


@contextmanager
def workshop(pipeline: ReconstructionPipeline, loader: Loader | None, processes: int) -> Iterator[Workshop]:
    """One process or several, until the block ends; then what was not begun is dropped.

    Args:
        pipeline: of this process.
        loader: of the others; without it this process does everything.
        processes: at most 1 means this one.

    Raises:
        UserError: a process died.
    """
    if loader is None or processes < 2:
        yield Craftsman(pipeline)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads may deadlock
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(loader,))
    try:
        yield Factory(pool, processes)
    except BrokenProcessPool as error:
        raise UserError("a worker process died (out of memory?): run the same command with fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


_state: dict[str, Craftsman] = {}


def _start(loader: Loader) -> None:
    """Prepares a worker process; Ctrl-C is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _state["craftsman"] = Craftsman(loader())


def _look(path: Path) -> Look:
    return _state["craftsman"].look_at(path)


def _make(order: Order) -> str | None:
    return _state["craftsman"].written(order)


def _done(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future
