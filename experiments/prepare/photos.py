"""Photographs -> a folder of aligned faces with landmarks and skin weights."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.alignment import default_template
from datamodules.landmarks import LandmarkDetector, best_detector
from datamodules.photos import IMAGES, INDEX_NAME, SKIN, SUFFIXES, PhotoIndex, write_atomically
from experiments.prepare.preview import draw_preview
from experiments.prepare.worker import Outcome, Preparer, Settings, prepare_in_worker, start_worker
from renderers.errors import UserError

SAVE_SECONDS = 10.0  # at most this much work is lost when the process is killed
FEW = 8  # photographs that are not worth the start of worker processes
LISTED = 20  # skipped photographs shown on the screen; all of them are in skipped.json


def prepare_photos(
    source: Path, out: Path, size: int = 224, detector: str = "auto", workers: int = 1, largest: bool = False
) -> PhotoIndex:
    """Detects, aligns and writes the faces of every photograph under `source`.

    What an earlier run prepared, or found unusable, is kept as long as the photograph is the same.

    Args:
        source: folder, searched recursively.
        out: prepared folder, see `PhotoIndex`; also gets `preview.jpg` and `skipped.json`.
        size: side of the crops in pixels.
        detector: see `datamodules.landmarks.best_detector`; "auto" keeps to that of an earlier run.
        workers: processes.
        largest: take only the largest face of each photograph.

    Raises:
        UserError: no such folder, no photographs or none with a face in it, `out` is `source`, prepared with other
            settings, or cannot be written.
        KeyboardInterrupt: interrupted; what was done so far is kept.
    """
    console = Console(stderr=True)
    names, others = find_photos(source, out)
    index, found = _open_index(source, out, size, detector, largest, console)
    todo = [name for name in names if not _is_current(index, source, out, name)]
    done = len(names) - len(todo)
    console.print(f"{len(names)} photographs in {source}" + (f", {done} of them prepared already" if done else ""))
    if others:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(5))
        console.print(f"other files are left alone: {kinds}")
    if todo:
        settings = Settings(source, index.detector, default_template(size), size, largest)
        try:
            _prepare_all(todo, settings, found, workers, index, out, console)
        except KeyboardInterrupt:
            told = f"{len(index.photos)} of {len(names)} photographs are done; run the same command to go on"
            raise KeyboardInterrupt(told) from None
    _forget_removed(index, names, out)
    _report_skipped(index, out, console)
    if not index.faces():
        if (out / INDEX_NAME).exists():
            index.save(out)
        reasons = Counter(index.skipped().values()).most_common(3)
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(f"none of the {len(names)} photographs in {source} could be prepared ({listed})")
    index.save(out)
    write_atomically(out / "preview.jpg", draw_preview(out, index))
    console.print(f"{len(index.faces())} faces of {len(names)} photographs in {out}; look at {out / 'preview.jpg'}")
    return index


def find_photos(source: Path, out: Path) -> tuple[list[str], Counter[str]]:
    """Photographs under a folder, sorted, relative, and how many other files there are by suffix.

    Hidden files and folders are passed over, and so is `out` where it lies inside.

    Raises:
        UserError: no such folder, no photographs, or `out` is the folder itself.
    """
    if not source.is_dir():
        raise UserError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    inside, outside = source.resolve(), out.resolve()
    if inside == outside:
        raise UserError(f"--out is the folder of photographs itself ({source}): choose another one")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, not a folder")
    names: list[str] = []
    others: Counter[str] = Counter()
    for folder, folders, files in os.walk(inside):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here / name != outside)
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in SUFFIXES:
                names.append((here / name).relative_to(inside).as_posix())
            else:
                others[Path(name).suffix.lower()] += 1
    if not names:
        raise UserError(f"{source} holds no photographs ({', '.join(SUFFIXES)})")
    return sorted(names), others


def _open_index(
    source: Path, out: Path, size: int, detector: str, largest: bool, console: Console
) -> tuple[PhotoIndex, LandmarkDetector]:
    """The index of an earlier run, or a new one, and the detector that it is made with."""
    try:
        index = PhotoIndex.load(out)
    except FileNotFoundError:
        index = None
    except UserError as error:
        console.print(f"[yellow]{error.args[0].partition(': ')[0]}: everything is prepared anew")
        index = None
    if index is None:
        found = best_detector(detector)
        return PhotoIndex(size, found.name, largest, str(source.resolve())), found
    wanted = {"size": size, "detector": index.detector if detector == "auto" else detector, "largest": largest}
    for name, value in {**wanted, "source": str(source.resolve())}.items():
        before = getattr(index, name)
        if before != value:
            raise UserError(
                f"{out} was prepared with {name} = {before}, not {value}: choose another --out, or delete it"
            )
    return index, best_detector(index.detector)


def _is_current(index: PhotoIndex, source: Path, out: Path, name: str) -> bool:
    """Whether an earlier run's result stands: the photograph has not changed and its files are there."""
    photo = index.photos.get(name)
    if photo is None:
        return False
    status = (source / name).stat()
    if (status.st_size, status.st_mtime_ns) != (photo.bytes, photo.modified_ns):
        return False
    files = [out / folder / f"{face.name}.png" for face in photo.faces for folder in (IMAGES, SKIN)]
    return all(file.is_file() for file in files)


def _prepare_all(
    names: list[str],
    settings: Settings,
    detector: LandmarkDetector,
    workers: int,
    index: PhotoIndex,
    out: Path,
    console: Console,
) -> None:
    """Fills the index and writes every face's files; the index is saved now and then, and whatever happens."""
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[tally]}"),
    )
    saved, pause = time.monotonic(), SAVE_SECONDS
    with Progress(*columns, console=console) as progress, _outcomes(names, settings, detector, workers) as outcomes:
        task = progress.add_task("", total=len(names), tally="")
        try:
            for outcome in outcomes:
                _store(outcome, index, out)
                progress.update(task, advance=1, tally=_tally(index))
                if time.monotonic() - saved > pause and index.faces():
                    begun = time.monotonic()
                    index.save(out)
                    saved = time.monotonic()
                    # A large index takes long to write: never more than a twentieth of the time.
                    pause = max(SAVE_SECONDS, 20 * (saved - begun))
        finally:
            if index.faces():
                index.save(out)


@contextmanager
def _outcomes(
    names: list[str], settings: Settings, detector: LandmarkDetector, workers: int
) -> Iterator[Iterable[Outcome]]:
    """Outcomes in the order of the names, from worker processes where that pays."""
    if workers <= 1 or len(names) <= FEW:
        yield map(Preparer(settings, detector), names)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that holds threads may deadlock
    count = min(workers, math.ceil(len(names) / 2))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=start_worker, initargs=(settings,))
    try:
        yield pool.map(prepare_in_worker, names)
    except BrokenProcessPool as error:
        raise UserError("a worker process died (out of memory?): run the same command with fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _store(outcome: Outcome, index: PhotoIndex, out: Path) -> None:
    for face, (crop, skin) in zip(outcome.photo.faces, outcome.files, strict=True):
        write_atomically(out / IMAGES / f"{face.name}.png", crop)
        write_atomically(out / SKIN / f"{face.name}.png", skin)
    before = index.photos.get(outcome.name)
    index.photos[outcome.name] = outcome.photo
    if before is not None:
        kept = {face.name for face in outcome.photo.faces}
        _delete_files(out, [face.name for face in before.faces if face.name not in kept])


def _forget_removed(index: PhotoIndex, names: list[str], out: Path) -> None:
    """Drops photographs that are no longer there, with their faces."""
    for name in set(index.photos) - set(names):
        _delete_files(out, [face.name for face in index.photos.pop(name).faces])


def _delete_files(out: Path, names: Iterable[str]) -> None:
    for name in names:
        for folder in (IMAGES, SKIN):
            (out / folder / f"{name}.png").unlink(missing_ok=True)


def _tally(index: PhotoIndex) -> str:
    skipped = len(index.skipped())
    return f"{len(index.faces())} faces" + (f", {skipped} skipped" if skipped else "")


def _report_skipped(index: PhotoIndex, out: Path, console: Console) -> None:
    skipped = index.skipped()
    if not skipped:
        return
    console.print(f"[yellow]skipped {len(skipped)} of {len(index.photos)} photographs:")
    for name, reason in list(skipped.items())[:LISTED]:
        console.print(f"  {name}: {reason}", markup=False, highlight=False)
    if len(skipped) > LISTED:
        console.print(f"  ... and {len(skipped) - LISTED} more, see {out / 'skipped.json'}")
