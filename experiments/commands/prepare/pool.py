"""Photographs through worker processes, in order, with never more than a few waiting."""

from __future__ import annotations

import math
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from datamodules.preparation.landmarks import LandmarkDetector
from datamodules.preparation.prepared_folder import PhotoLabel
from experiments.commands.prepare.worker import Outcome, Preparer, Settings, prepare_in_worker, start_worker
from renderers.io.errors import UserError

FEW = 8  # for so few photographs worker processes are not started
AHEAD = 8  # photographs a process that are handed out before they are asked for: bounds the memory, keeps all busy


def process_count(workers: int, photographs: int) -> int:
    """How many processes prepare that many photographs. 1 means that this process does it alone."""
    return 1 if photographs <= FEW else min(workers, math.ceil(photographs / 2))


@contextmanager
def prepared_outcomes(
    names: Mapping[str, PhotoLabel | None], settings: Settings, detector: LandmarkDetector | None, workers: int
) -> Iterator[Iterable[Outcome]]:
    """Outcomes in the order of the names, from worker processes where that pays.

    Args:
        names: each photograph with its label.
        settings: what all are prepared with.
        detector: for this process, where no other one is started.
        workers: processes at most.

    Raises:
        UserError: a worker process died.
    """
    count = process_count(workers, len(names))
    if count == 1:
        preparer = Preparer(settings, detector)
        yield (preparer(name, label) for name, label in names.items())
        return
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads may deadlock
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=start_worker, initargs=(settings,))
    try:
        yield _in_order(pool, names, AHEAD * count)
    except BrokenProcessPool as error:
        raise UserError("a worker process died (out of memory?): run the same command with fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, names: Mapping[str, PhotoLabel | None], ahead: int) -> Iterator[Outcome]:
    waiting: deque[Future[Outcome]] = deque()
    for name, label in names.items():
        waiting.append(pool.submit(prepare_in_worker, name, label))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
