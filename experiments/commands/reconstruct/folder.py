"""A folder of photographs or frames: each is written as it ends, and what goes wrong with one costs no other."""

from __future__ import annotations

import csv
import io
import math
import re
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.preparation.file_names import printable
from experiments.commands.counting import counted
from experiments.commands.prepare.pool import process_count
from experiments.commands.reconstruct.folder_work import Loader, Look, Order, Workshop, workshop
from experiments.commands.reconstruct.output import (
    INDEX,
    RESULT,
    check_replaceable,
    check_results_folder,
    marker_text,
    read_marker,
    remove_leftovers,
)
from experiments.commands.reconstruct.photo import open_photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.report import data_uri, index_page
from experiments.commands.reconstruct.results import THUMBNAIL, made_with, nme_line, progress_bar, stamp
from experiments.commands.reconstruct.tracking import FaceTracker, sequence_name
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError, reason

SAVE_SECONDS = 10.0  # how often `index.json` is written
PAGE, FAILED = "index.html", "failed.csv"
TOLD = 20  # files that were skipped, at most, one line each
CARDS = 100  # photographs on a page
SEQUENCES = 64  # whose faces keep their numbers at a time

Record = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        paths: its visible files, frame 2 before frame 10.
        passed_over: what else there is, in the plural -> how many.
    """

    paths: list[Path]
    passed_over: dict[str, int]


def look_into(source: Path, out: Path) -> Listing:
    """The files of a folder, and how much in it is not looked at; `out` does not count.

    Raises:
        UserError: there are no files.
    """
    entries = [path for path in source.iterdir() if not path.name.startswith(".")]
    counts = Counter(_kind(path) for path in entries if not (path.is_dir() and path.resolve() == out.resolve()))
    passed_over = {kind: counts[kind] for kind in sorted(counts) if kind != "files"}
    paths = [path for path in entries if path.is_file()]
    if not paths:
        rest = f" (not looked at: {_listed(passed_over)})" if passed_over else ""
        raise UserError(f"{source}: no files in this folder{rest}; put photographs or video frames into it")
    # Every second part is a number.
    parts = {path: re.split(r"(\d+)", path.name) for path in paths}
    key = {path: [int(p) if k % 2 else p for k, p in enumerate(parts[path])] for path in paths}
    return Listing(sorted(paths, key=lambda path: key[path]), passed_over)


def _kind(path: Path) -> str:
    if path.is_file():
        return "files"
    if path.is_dir():
        return "sub-folders"
    return "broken links" if path.is_symlink() else "special files"


def _listed(passed_over: Mapping[str, int]) -> str:
    return ", ".join(counted(count, kind) for kind, count in passed_over.items())


def result_names(paths: Sequence[Path], earlier: Mapping[str, str], foreign: Sequence[str]) -> dict[Path, str]:
    """The name of each photograph's result: its own without the ending, or with it where that is not enough.

    No two are the same, not even on a disk that takes capital and small letters for the same.

    Args:
        paths: the photographs.
        earlier: printable file name -> the name that an earlier run gave.
        foreign: names that are taken by something else.
    """
    stems = Counter(_folded(path.stem) for path in paths)
    pages = [page_name(number + 1) for number in range(math.ceil(len(paths) / CARDS) or 1)]
    used = {_folded(name) for name in ["index", INDEX, FAILED, *pages, *earlier.values(), *foreign]}
    names: dict[Path, str] = {}
    for path in paths:
        name, whole = printable(path.stem), printable(path.name).replace(".", "_")
        if stems[_folded(path.stem)] > 1 or _folded(name) in used:
            name = whole
        number = 1
        while _folded(name) in used:
            number += 1
            name = f"{whole}_{number}"
        names[path] = earlier.get(printable(path.name), name)
        used.add(_folded(names[path]))
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def reconstruct_folder(
    source: Path, out: Path, pipeline: ReconstructionPipeline, loader: Loader | None = None, workers: int = 1
) -> None:
    """Reconstruct every photograph of a folder into folders of `out`; what cannot be is listed with its reason.

    Each result is there when its photograph is finished. The same command, run again, goes on where it stopped: it
    keeps the results that were made in the same way from files that have not changed since.

    Args:
        source: the folder.
        out: where the results go.
        pipeline: what reconstructs them.
        loader: what other processes load the same pipeline by; without it this process does everything.
        workers: processes at most.

    Raises:
        UserError: an empty folder, one in which nothing could be reconstructed, or `out` cannot be written.
        KeyboardInterrupt: interrupted; what was finished is kept.
    """
    run = _FolderRun(source, out, pipeline, loader, workers)
    try:
        run.reconstruct()
    except (UserError, KeyboardInterrupt) as error:
        # A full disk or a missing folder would stop every further photograph too.
        with suppress(UserError):
            run.save()
        told = f"{len(run.photos)} of {len(run.names)} files are finished, in {out}; run the same command to go on"
        if isinstance(error, UserError):
            raise UserError(f"{error}; {told}") from error
        raise KeyboardInterrupt(told) from None
    run.finish()


class _FolderRun:
    """One pass over a folder, and what is known of its results.

    Attributes:
        names: photograph -> the name of its result.
        photos: printable file name -> what `index.json` says of its result.
        skipped: printable file name -> reason.
    """

    def __init__(
        self, source: Path, out: Path, pipeline: ReconstructionPipeline, loader: Loader | None, workers: int
    ) -> None:
        check_results_folder(out)
        self.source, self.out, self.pipeline, self.loader, self.workers = source, out, pipeline, loader, workers
        self.listing, self.made_with = look_into(source, out), made_with(pipeline)
        self.photos: dict[str, Record] = {}
        self.skipped: dict[str, str] = {}
        self._made: deque[tuple[Path, Future[str | None]]] = deque()
        self._trackers: dict[str, FaceTracker] = {}
        self._saved = time.monotonic()
        self._is_new = not out.exists()
        results = self._earlier_results()
        foreign = [entry.name for entry in out.iterdir()] if out.exists() else []
        self.names = result_names(self.listing.paths, {key: name for key, (name, _) in results.items()}, foreign)
        self._done = {path: self._finished(path, results) for path in self.names}
        self._held = {path: fault for path in self.names if (fault := self._in_the_way(path))}

    def _earlier_results(self) -> dict[str, tuple[str, Record]]:
        """Printable file name -> the result's name and `reconstruction.json`, of every result that lies in `out`."""
        found: dict[str, tuple[str, Record]] = {}
        for marker in sorted(self.out.glob(f"*/{RESULT}")):
            record = read_marker(marker)
            if isinstance(record.get("photo_file"), str):
                found.setdefault(record["photo_file"], (marker.parent.name, record))
        return found

    def _finished(self, path: Path, results: Mapping[str, tuple[str, Record]]) -> Record | None:
        """What an earlier run's result says, if it is whole and this run would make the same."""
        name, record = results.get(printable(path.name), ("", {}))
        wanted = {**self.made_with, "photo_stamp": stamp(path)}
        if any(record.get(key) != value for key, value in wanted.items()):
            return None
        return record if all((self.out / name / file).is_file() for file in record["files"]) else None

    def _in_the_way(self, path: Path) -> str | None:
        """Why a photograph's result cannot be written: something of the user's lies in its place."""
        try:
            if self._done[path] is None:
                check_replaceable(self.out / self.names[path])
        except UserError as error:
            return str(error)
        return None

    def reconstruct(self) -> None:
        """Every photograph that is not finished."""
        done = sum(record is not None for record in self._done.values())
        print(
            f"{counted(len(self.names), 'files')} in {printable(str(self.source))}"
            + (f", {done} of them finished already" if done else "")
        )
        self._begin()
        processes = process_count(self.workers, len(self.names) - done)
        with workshop(self.pipeline, self.loader, processes) as shop, progress_bar(len(self.names)) as (bar, task):
            looks: deque[tuple[Path, Future[Look] | None]] = deque()
            for path in self.names:
                bar.update(task, description=printable(path.name))
                looks.append((path, None if self._done[path] or path in self._held else shop.look(path)))
                if len(looks) == shop.ahead:
                    self._number(*looks.popleft(), shop)
                    bar.advance(task)
            while looks:
                self._number(*looks.popleft(), shop)
                bar.advance(task)
            while self._made:
                self._finish(*self._made.popleft())
        self.save()

    def _begin(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.out}: cannot be written ({error.strerror or error}); choose another OUT") from error
        remove_leftovers(self.out)
        # The marker says that the folder is ours, even if this run is killed.
        if not (self.out / INDEX).exists():
            self.save()

    def _number(self, path: Path, looked: Future[Look] | None, shop: Workshop) -> None:
        """Give the faces of the next photograph their numbers, and order its result."""
        key, record = printable(path.name), self._done[path]
        if path in self._held:
            self.skipped[key] = self._held[path]
            return
        tracker = self._tracker(sequence_name(path))
        if record is not None:
            numbered = {face["number"]: np.array(face["box"]) for face in record["faces"]}
            tracker.recall(record["sequence"], lambda: open_photo(path).pixels, numbered)
            self._note(key, self.names[path], record)
            return
        assert looked is not None
        try:
            look = looked.result()
        except BrokenProcessPool:
            raise
        except Exception as error:  # whatever is wrong with one file, the others are not lost
            self._skip(path, reason(error))
            return
        numbers = tracker.follow_scene(key, look.scene, np.array([face.box for face in look.found]))
        more = {"photo_file": key, "photo_stamp": stamp(path), "sequence": tracker.first}
        order = Order(path, self.out / self.names[path], look, numbers, more)
        self._made.append((path, shop.make(order)))
        if len(self._made) == shop.ahead:
            self._finish(*self._made.popleft())

    def _tracker(self, sequence: str) -> FaceTracker:
        """The sequence's own; those that have not been asked for longest are forgotten."""
        tracker = self._trackers.pop(sequence, None) or FaceTracker()
        self._trackers[sequence] = tracker
        if len(self._trackers) > SEQUENCES:
            del self._trackers[next(iter(self._trackers))]
        return tracker

    def _finish(self, path: Path, made: Future[str | None]) -> None:
        fault = made.result()
        if fault is None:
            name = self.names[path]
            self._note(printable(path.name), name, read_marker(self.out / name / RESULT))
        else:
            self._skip(path, fault)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def _skip(self, path: Path, fault: str) -> None:
        self.skipped[printable(path.name)] = printable(fault).removeprefix(f"{printable(str(path))}: ")

    def _note(self, key: str, name: str, record: Record) -> None:
        faces = record["faces"]
        self.photos[key] = {
            "folder": name,
            "faces": [face["number"] for face in faces],
            "landmark_nme": [face["landmark_nme"] for face in faces],
            "adapted_landmark_nme": [face.get("adapted_landmark_nme") for face in faces],
            "confidence": [face["confidence"] for face in faces],
            "smallest_face": record["smallest_face"],
        }

    def save(self) -> None:
        """Write `index.json`, and the table of what failed."""
        content = {
            "source": printable(str(self.source)),
            "photos": self.photos,
            "skipped": self.skipped,
            "passed_over": self.listing.passed_over,
        }
        write_bytes(self.out / INDEX, marker_text(content))
        if self.skipped:
            table = io.StringIO(newline="")
            csv.writer(table).writerows([("file", "reason"), *self.skipped.items()])
            write_bytes(self.out / FAILED, table.getvalue().encode(errors="backslashreplace"))
        else:
            (self.out / FAILED).unlink(missing_ok=True)
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Write the page that links all results, and say what came of the folder.

        Raises:
            UserError: nothing could be reconstructed.
        """
        for key, why in islice(self.skipped.items(), TOLD):
            print(f"skipped       {key}: {why}")
        if len(self.skipped) > TOLD:
            print(f"skipped       {len(self.skipped) - TOLD} more, listed in {printable(str(self.out / FAILED))}")
        if self.listing.passed_over:
            print(printable(f"not looked at {_listed(self.listing.passed_over)}"))
        if not self.photos:
            if self._is_new:
                (self.out / INDEX).unlink()
                (self.out / FAILED).unlink(missing_ok=True)
                self.out.rmdir()
            raise UserError(f"{self.source}: none of its {counted(len(self.names), 'files')} could be reconstructed")
        self._write_pages()
        columns = ("landmark_nme", "adapted_landmark_nme", "confidence")
        faces = [face for held in self.photos.values() for face in zip(*(held[name] for name in columns), strict=True)]
        trusted = [errors for *errors, confidence in faces if confidence != "doubtful"]
        adapted = [errors for errors in trusted if errors[1] is not None]
        smallest = max(record["smallest_face"] for record in self.photos.values())
        error = f", mean landmark NME {np.mean([plain for plain, _ in trusted]):.2f} %" if trusted else ""
        if adapted:
            before, after = np.mean(adapted, axis=0)
            many = counted(len(adapted), "faces")
            error += f" ({after:.2f} instead of {before:.2f} % without the detector's usual error, {many})"
        print(f"reconstructed {len(self.photos)} of {counted(len(self.names), 'files')}{error}")
        for key, held in self.photos.items():
            doubtful = held["confidence"].count("doubtful")
            if doubtful:
                print(f"doubtful      {key}: {doubtful} of {counted(len(held['faces']), 'faces')}; look at the overlay")
        print(f"faces         {len(faces)}; none smaller than {smallest:.0f} px was looked for")
        print(f"reports       {printable(str(self.out / PAGE))}")

    def _write_pages(self) -> None:
        """Pages of `CARDS` photographs each, so that a browser stays quick and only one of them is in memory."""
        held = list(self.photos.values())
        count = math.ceil(len(held) / CARDS)
        names = [page_name(number) for number in range(1, count + 1)]
        for number, name in enumerate(names, start=1):
            records = held[CARDS * (number - 1) : CARDS * number]
            done = [(record["folder"], _line(record), self._card(record["folder"])) for record in records]
            links = [(other, other != name) for other in names] if count > 1 else []
            first = number == 1
            skipped, passed_over = (self.skipped, self.listing.passed_over) if first else ({}, {})
            title = printable(self.source.resolve().name)
            page = index_page(title, done, skipped, passed_over, links, len(held))
            write_bytes(self.out / name, page.encode(errors="backslashreplace"))

    def _card(self, name: str) -> str:
        return data_uri((self.out / name / THUMBNAIL).read_bytes())


def page_name(number: int) -> str:
    """Of the number-th page, from 1."""
    return PAGE if number == 1 else f"index_{number}.html"


def _line(record: Record) -> str:
    return f"{counted(len(record['faces']), 'faces')}, NME {nme_line(_told(record))}"


def _told(record: Record) -> list[tuple[float, str]]:
    return list(zip(record["landmark_nme"], record["confidence"], strict=True))
