"""A sweep without an account: it draws parameters, trains, stops runs that fall behind, and keeps the leaderboard."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.commands.sweep.leaderboard import FAILED, FINISHED, RUNNING, STOPPED, Entry, Leaderboard, read_history
from experiments.commands.sweep.picture import draw_picture
from experiments.commands.sweep.spec import SweepSpec, draw, engine
from experiments.training.run_folder import read_json
from experiments.training.run_pool import PooledRun, RunPool, last_line, source_stamp
from renderers.io.errors import UserError

MOST_FAILURES = 3
"""After so many failures in a row, and no success, it is not the parameters that are wrong."""


def settings_digest(spec: SweepSpec) -> str:
    """Of `sweep.yaml` and of the configuration files: results are comparable only under the same."""
    text = (spec.folder / "sweep.yaml").read_bytes() + source_stamp(spec.config).encode()
    return hashlib.sha256(text).hexdigest()[:12]


def history_path(run: PooledRun) -> Path:
    """Where a run's `ValidationHistory` lies."""
    return run.path / "history.jsonl"


def plan_run(spec: SweepSpec, entry: Entry, runs_dir: Path) -> PooledRun:
    """The `fit` command of one entry."""
    path = runs_dir / spec.paper / "sweep" / entry.name
    command = (
        *spec.command(entry.parameters),
        *("--wandb", "disabled", "--paper", spec.paper),
        *("--runs_dir", str(runs_dir), "--run_id", f"sweep/{entry.name}"),
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=experiments.commands.sweep.history.ValidationHistory",
        f"--trainer.callbacks.path={path / 'history.jsonl'}",
    )
    return PooledRun(entry.name, path, command)


def sweep_locally(spec: SweepSpec, count: int, jobs: int, runs_dir: Path) -> Leaderboard:
    """Brings the sweep to `count` runs, going on with what an interrupt left and trying failed ones again.

    Args:
        spec: of the sweep.
        count: runs in all, those of earlier calls among them.
        jobs: runs at a time.
        runs_dir: where the runs lie.

    Raises:
        UserError: the folder holds another sweep, or every run fails.
    """
    folder, settings = runs_dir / spec.paper / "sweep", settings_digest(spec)
    bars = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with RunPool(folder, settings, jobs) as pool, Progress(*bars, console=Console(stderr=True)) as progress:
        board = Leaderboard(folder, spec, settings)
        waiting = [entry for entry in board.entries[:count] if entry.state in (RUNNING, FAILED)]
        used_up, failures = False, 0
        bar = progress.add_task("sweep", total=count, completed=min(count, len(board.entries)) - len(waiting))
        while True:
            while pool.has_room and (waiting or (len(board.entries) < count and not used_up)):
                if not waiting:
                    parameters = draw(spec, board.engine_runs())
                    used_up = parameters is None
                    waiting = [] if parameters is None else [board.add(parameters)]
                for entry in waiting[:1]:
                    waiting.pop(0)
                    entry.state, entry.reason = RUNNING, ""
                    board.write()
                    pool.start(plan_run(spec, entry, runs_dir))
            if not pool.active:
                return board
            progress.update(bar, description=", ".join(run.name for run in pool.active))
            time.sleep(0.2)
            over = [(run, STOPPED) for run in falling_behind(board, pool.active)]
            for run, _ in over:
                pool.stop(run)
            over += [(run, FINISHED if ended_well else FAILED) for run, ended_well in pool.ended()]
            for run, state in over:
                entry = next(entry for entry in board.entries if entry.name == run.name)
                settle(board, entry, run, state)
                failures = failures + 1 if entry.state == FAILED else 0
                progress.advance(bar)
                if failures >= MOST_FAILURES and not any(entry.state == FINISHED for entry in board.entries):
                    raise UserError(f"{failures} runs in a row failed, the last: {entry.reason} (see {run.log})")


def falling_behind(board: Leaderboard, active: Sequence[PooledRun]) -> list[PooledRun]:
    """The runs under way that `early_terminate` in sweep.yaml ends; none where it does not stand there."""
    if "early_terminate" not in board.spec.tree:
        return []
    folders = {entry.name: board.folder / entry.name / "history.jsonl" for entry in board.entries}
    histories = {name: read_history(path) for name, path in folders.items()}
    if not any(histories[run.name] for run in active):
        return []
    ended = {run.name for run in engine().stop_runs(dict(board.spec.tree), board.engine_runs(histories))}
    return [run for run in active if run.name in ended]


def settle(board: Leaderboard, entry: Entry, run: PooledRun, state: str) -> None:
    """Takes down how a run ended, and writes the leaderboard and the picture."""
    history = read_history(history_path(run))
    measured = read_json(run.folder.metrics).get("final") if state == FINISHED else (history or [{}])[-1]
    entry.state, entry.metrics = state, {name: value for name, value in (measured or {}).items() if name != "step"}
    entry.value = board.spec.value(entry.metrics) if state != FAILED else None
    if state == FAILED:
        entry.reason = last_line(run.log)
    elif entry.value is None:
        known = ", ".join(entry.metrics) or "none"
        entry.state, entry.reason = FAILED, f"it has no finite {board.spec.metric}; it has {known}"
    board.write()
    if any(other.value is not None for other in board.entries):
        draw_picture(board, board.picture)


def report(board: Leaderboard) -> None:
    """Prints the leaderboard and where everything lies."""
    console = Console(soft_wrap=True)
    header, *lines = board.cells()
    table = Table(title=f"{board.spec.paper}: {len(lines)} runs", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:
        # In a narrow window a name takes several lines; nothing is cut off.
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(board.told_best(), markup=False, highlight=False)
    for name, path in {"leaderboard": board.markdown, "as data": board.json, "picture": board.picture}.items():
        if path.is_file():
            console.print(f"{name:<12} {path}", markup=False, highlight=False)
