"""Photographs, or a data set of them -> a folder of aligned faces with landmarks and skin weights."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from datamodules.datasets.face_records import Layout
from datamodules.preparation.alignment import default_template
from datamodules.preparation.file_names import printable
from datamodules.preparation.landmarks import LandmarkDetector, best_detector
from datamodules.preparation.photo_file import SUFFIXES
from datamodules.preparation.prepared_folder import INDEX_NAME, PhotoIndex, PhotoLabel
from experiments.commands.counting import counted
from experiments.commands.prepare.pool import prepared_outcomes, process_count
from experiments.commands.prepare.preview import draw_preview
from experiments.commands.prepare.store import JOURNAL_NAME, PreparedStore, load_index, remove_leftovers
from experiments.commands.prepare.worker import GIVEN, Settings, stamp
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError

LISTED = 20  # skipped photographs shown on the screen; all of them are in skipped.json
MANY = 500  # the check of more photographs than this shows a progress bar

Labels = Mapping[str, PhotoLabel | None]


@dataclass(frozen=True)
class _Request:
    """What is asked for: see `prepare_photos`."""

    source: Path
    out: Path
    size: int
    detector: str
    workers: int
    largest: bool
    layout: Layout | None = None


def prepare_photos(
    source: Path, out: Path, size: int = 224, detector: str = "auto", workers: int = 1, largest: bool = False
) -> PhotoIndex:
    """Detects, aligns and writes the faces of every photograph under `source`.

    What an earlier run prepared, or found unusable, is kept as long as the photograph is the same.

    Args:
        source: folder, searched recursively.
        out: prepared folder, see `PhotoIndex`; also gets `preview.jpg` and `skipped.json`.
        size: side of the crops in pixels.
        detector: see `datamodules.preparation.landmarks.best_detector`; "auto" keeps to that of an earlier run.
        workers: processes.
        largest: take only the largest face of each photograph.

    Raises:
        UserError: no such folder, no photographs or none with a face in it, `out` is `source`, prepared with other
            settings, or cannot be written.
        KeyboardInterrupt: interrupted; what was done so far is kept.
    """
    names, others = find_photos(source, out)
    console = Console(stderr=True)
    request = _Request(source, out, size, detector, workers, largest)
    return _prepare(request, dict.fromkeys(names), others, console)


def prepare_dataset(
    layout: Layout, source: Path, out: Path, size: int = 224, detector: str = "auto", workers: int = 1
) -> PhotoIndex:
    """Aligns and writes a data set's faces, one of each photograph, with its owner's splits.

    Landmarks and masks are the owner's where the data set has them. Everything else is as in `prepare_photos`.

    Args:
        layout: how the data set lies on disk.
        source: the data set's folder.
        out: prepared folder.
        size: side of the crops in pixels.
        detector: as in `prepare_photos`; not used where the data set has landmarks.
        workers: processes.

    Raises:
        UserError: the folder is laid out otherwise, or as in `prepare_photos`.
        KeyboardInterrupt: interrupted; what was done so far is kept.
    """
    _check_folders(source, out)
    labels = {record.name: record.label for record in layout.records(source)}
    if not labels:
        raise UserError(f"{source} holds no photographs of {layout.title}")
    console = Console(stderr=True)
    told = Counter(label.split for label in labels.values())
    console.print(f"{layout.title}: " + ", ".join(f"{count} for {split}" for split, count in told.items()))
    request = _Request(source, out, size, GIVEN if layout.gives_landmarks else detector, workers, True, layout)
    return _prepare(request, labels, Counter(), console)


def _prepare(request: _Request, labels: Labels, others: Counter[str], console: Console) -> PhotoIndex:
    source, out = request.source, request.out
    store, found = _open_store(request, console)
    index = store.index
    todo = _not_done(store, request, labels)
    done = len(labels) - len(todo)
    already = f", {done} of them prepared already" if done else ""
    console.print(f"{counted(len(labels), 'photographs')} in {source}{already}")
    if found is not None:
        kind = "2d, whose jaw marks the visible contour" if found.contour else "3d, fixed points of the head"
        console.print(f"landmarks by {found.name}: {kind}")
    if others:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(5))
        console.print(printable(f"other files are left alone: {kinds}"), markup=False)
    if todo:
        settings = Settings(
            source, index.detector, default_template(request.size), request.size, request.largest, request.layout
        )
        try:
            _prepare_all(todo, settings, found, request.workers, store, console)
        except KeyboardInterrupt:
            told = f"{len(index.photos)} of {len(labels)} photographs are done; run the same command to go on"
            raise KeyboardInterrupt(told) from None
    store.forget_removed(labels)
    store.relabel(labels)
    _report_skipped(index, out, console)
    if not index.faces():
        if (out / INDEX_NAME).exists():
            store.save()
        reasons = Counter(index.skipped().values()).most_common(3)
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(f"none of the {counted(len(labels), 'photographs')} in {source} could be prepared ({listed})")
    store.save()
    write_bytes(out / "preview.jpg", draw_preview(out, index))
    told = f"{counted(len(index.faces()), 'faces')} of {counted(len(labels), 'photographs')}"
    console.print(f"{told} in {out}; look at {out / 'preview.jpg'}")
    return index


def _check_folders(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise UserError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    if source.resolve() == out.resolve():
        raise UserError(f"--out is the folder of photographs itself ({source}): choose another one")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, not a folder")


def find_photos(source: Path, out: Path) -> tuple[list[str], Counter[str]]:
    """Photographs under a folder, sorted, relative, and how many other files there are by suffix.

    Hidden files and folders are passed over, and so is `out` where it lies inside.

    Raises:
        UserError: no such folder, no photographs, or `out` is the folder itself.
    """
    _check_folders(source, out)
    inside, outside = source.resolve(), out.resolve()
    names: list[str] = []
    others: Counter[str] = Counter()
    for folder, folders, files in os.walk(inside):
        here = Path(folder)
        others["linked folders"] += sum((here / name).is_symlink() for name in folders)
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
    return sorted(names), +others  # without what there is none of


def _open_store(request: _Request, console: Console) -> tuple[PreparedStore, LandmarkDetector | None]:
    """What an earlier run left, or nothing yet, and the detector that it is made with."""
    out = request.out
    try:
        index = load_index(out)
    except UserError as error:
        console.print(f"[yellow]{error.args[0].partition(': ')[0]}: everything is prepared anew")
        index = None
    source, dataset = str(request.source.resolve()), request.layout.name if request.layout else None
    if index is None:
        found = _detector(request.detector)
        name = found.name if found else GIVEN
        return PreparedStore(out, PhotoIndex(request.size, name, request.largest, source, dataset=dataset)), found
    detector = index.detector if request.detector == "auto" else request.detector
    wanted = {"size": request.size, "detector": detector, "largest": request.largest, "source": source}
    for name, value in {**wanted, "dataset": dataset}.items():
        before = getattr(index, name)
        if before != value:
            raise UserError(
                f"{out} was prepared with {name} = {before}, not {value}: choose another --out, or delete it"
            )
    store = PreparedStore(out, index)
    remove_leftovers(out)
    if (out / JOURNAL_NAME).exists():
        store.save()  # its last line may be incomplete: a new line is begun first
    return store, _detector(index.detector)


def _detector(name: str) -> LandmarkDetector | None:
    return None if name == GIVEN else best_detector(name)


def _not_done(store: PreparedStore, request: _Request, labels: Labels) -> dict[str, PhotoLabel | None]:
    """The photographs that no earlier run prepared as they are now, or whose files are not whole any more."""
    names = labels.keys() & store.index.photos.keys()
    known = track(names, "checking", console=Console(stderr=True), transient=True) if len(names) > MANY else names
    done = {name for name in known if _is_current(store, request, name)}
    return {name: label for name, label in labels.items() if name not in done}


def _is_current(store: PreparedStore, request: _Request, name: str) -> bool:
    photo = store.index.photos[name]
    try:
        now = stamp(request.source, name, request.layout)
    except OSError:
        now = 0, 0  # what the worker notes of a photograph that is not there
    return now == (photo.bytes, photo.modified_ns) and store.is_whole(photo)


def _prepare_all(
    todo: Labels,
    settings: Settings,
    detector: LandmarkDetector | None,
    workers: int,
    store: PreparedStore,
    console: Console,
) -> None:
    """Prepares what is to be done; whatever happens, the index is written at the end."""
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[tally]}"),
    )
    begun = time.monotonic()
    with (
        Progress(*columns, console=console) as progress,
        prepared_outcomes(todo, settings, detector, workers) as outcomes,
    ):
        task = progress.add_task("", total=len(todo), tally="")
        tally = _Tally(store.index, todo)
        try:
            for outcome in outcomes:
                store.add(outcome)
                progress.update(task, advance=1, tally=tally.after(len(outcome.photo.faces)))
        finally:
            store.close()
    seconds = max(time.monotonic() - begun, 1e-3)
    count = process_count(workers, len(todo))
    processes = f"{count} process{'es' if count > 1 else ''}"
    told = f"{counted(len(todo), 'photographs')} in {seconds:.1f} s"
    console.print(f"{told}: {len(todo) / seconds:.1f} images/s on {processes}")


class _Tally:
    """Counts as the work goes on: looking through a large index for every photograph would take longer than it."""

    def __init__(self, index: PhotoIndex, todo: Labels) -> None:
        done = [photo for name, photo in index.photos.items() if name not in todo]
        self.faces, self.skipped = sum(len(photo.faces) for photo in done), sum(not photo.faces for photo in done)

    def after(self, faces: int) -> str:
        """What to show once a photograph gave that many faces."""
        self.faces, self.skipped = self.faces + faces, self.skipped + (faces == 0)
        return counted(self.faces, "faces") + (f", {self.skipped} skipped" if self.skipped else "")


def _report_skipped(index: PhotoIndex, out: Path, console: Console) -> None:
    skipped = index.skipped()
    if not skipped:
        return
    empty, doubtful = sum(not p.faces for p in index.photos.values()), sum(p.doubtful for p in index.photos.values())
    told = f", and {counted(doubtful, 'faces')} of others, whose landmarks are doubtful" if doubtful else ""
    console.print(f"[yellow]skipped {empty} of {counted(len(index.photos), 'photographs')}{told}:")
    for name, reason in list(skipped.items())[:LISTED]:
        console.print(printable(f"  {name}: {reason}"), markup=False, highlight=False)
    if len(skipped) > LISTED:
        console.print(f"  ... and {len(skipped) - LISTED} more, see {out / 'skipped.json'}")
