"""Commands of `python -m experiments fit`, a few at a time, as processes that can be interrupted and gone on with."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from experiments.training.run_folder import LOCK, RunFolder, read_json, write_json
from experiments.training.source_code import code_digests
from renderers.io.errors import UserError
from renderers.io.file_lock import locked

GRACE_SECONDS = 60
"""How long an interrupted run may take to save its checkpoint."""


@dataclass(frozen=True)
class PooledRun:
    """One `fit` command and where it leaves what it did.

    Attributes:
        name: what a user calls it.
        path: the run's folder; its log and its stamp lie beside it.
        command: `fit` and its arguments, among them `--run_id` and its value as two words.
    """

    name: str
    path: Path
    command: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.path)

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def stamp(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")


def source_stamp(config: Path) -> str:
    """A digest of a configuration and of the files that it includes: a run made with other ones is not reused."""
    files, contents = [config], []
    for path in files:
        contents.append(path.read_bytes())
        included = (path.parent / name.decode() for name in re.findall(rb"\S+\.yaml\b", contents[-1]))
        files += [file for file in included if file.is_file() and file not in files]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]


def is_trained(run: PooledRun) -> bool:
    """Whether its folder holds the metrics of a training that came to its end."""
    return "final" in read_json(run.folder.metrics)


def is_done(run: PooledRun, stamp: str) -> bool:
    """Whether this very command has been run to its end."""
    return _is_same(run, stamp) and is_trained(run)


def _is_same(run: PooledRun, stamp: str) -> bool:
    recorded = read_json(run.stamp)
    return recorded.get("command") == list(run.command) and recorded.get("configuration") == stamp


class RunPool:
    """At most `jobs` runs at a time, each with its share of the processors.

    A context: whoever leaves it early lets each run save its checkpoint first.

    Args:
        folder: where its runs lie; one pool at a time works there.
        stamp: `source_stamp` of the runs' configuration.
        jobs: runs at a time.
    """

    def __init__(self, folder: Path, stamp: str, jobs: int) -> None:
        self.folder, self._while_open = folder, contextlib.ExitStack()
        self.stamp, self.jobs = stamp, jobs
        self.threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self._active: dict[int, tuple[PooledRun, subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> RunPool:
        def refuse() -> None:
            raise UserError(f"{self.folder}: another process is at work on these runs: wait until it ends, or stop it")

        self.folder.mkdir(parents=True, exist_ok=True)
        self._while_open.enter_context(locked(self.folder / LOCK, refuse))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._while_open:
            _stop([process for _, process in self._active.values()])

    @property
    def active(self) -> list[PooledRun]:
        """The runs that are under way, in the order in which they were started."""
        return [run for run, _ in self._active.values()]

    @property
    def has_room(self) -> bool:
        """Whether one more may start."""
        return len(self._active) < self.jobs

    def start(self, run: PooledRun) -> None:
        """Starts a run: from its checkpoint where the same command was interrupted, else afresh."""
        process = start(run, self.stamp, self.threads)
        self._active[process.pid] = (run, process)

    def ended(self) -> list[tuple[PooledRun, bool]]:
        """The runs that have ended since the last call, each with whether it came to its end well."""
        gone = {pid: pair for pid, pair in self._active.items() if pair[1].poll() is not None}
        for pid in gone:
            del self._active[pid]
        return [(run, process.returncode == 0 and is_trained(run)) for run, process in gone.values()]

    def stop(self, run: PooledRun) -> None:
        """Ends a run that is under way, and waits until it has saved its checkpoint; `ended` does not tell of it."""
        for pid, (other, process) in list(self._active.items()):
            if other == run:
                _stop([process])
                del self._active[pid]


def start(run: PooledRun, stamp: str, threads: str) -> subprocess.Popen[bytes]:
    """The process of a run, on `threads` threads; see `RunPool.start`.

    Raises:
        UserError: the run is under way, as one is whose pool was killed.
    """
    command = [sys.executable, "-m", "experiments", *run.command]
    if _is_same(run, stamp) and run.folder.checkpoints():
        command += ["--resume", "auto"]  # from the newest that is whole
    else:
        if run.path.is_dir():
            with run.folder.held():  # a run may outlive the process that started it
                run.folder.clear()
    made_by = {"commit": current_commit(), "code": code_digests()}
    write_json(run.stamp, {"command": list(run.command), "configuration": stamp, **made_by})
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with run.log.open("wb") as log:
        # Its own session, so that Ctrl-C reaches it once, from here.
        return subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_line(log: Path) -> str:
    """What a run said last: of one that failed, why."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("monoface: error: ") if lines else "it ended without a word"


def current_commit() -> str:
    """The short commit of the code, or "unknown" outside a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def positive(text: str) -> int:
    """A whole number from 1 on, as an argument's type."""
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return value
