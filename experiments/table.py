"""`python -m experiments table PAPER`: a paper's ablation table, every row a few command-line overrides."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.run_folder import RunFolder, read_json, write_json, write_text
from renderers.errors import UserError

EXPERIMENTS = Path(__file__).parent
GRACE_SECONDS = 60
"""How long an interrupted run may take to save its checkpoint."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what differs from the common command, and what the paper measured."""

    name: str
    overrides: tuple[str, ...]
    paper: Mapping[str, float]

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class TableSpec:
    """What `table.yaml` says.

    Attributes:
        folder: where it lies, `experiments/PAPER`.
        config: the configuration that every row starts from.
        overrides: common to all rows.
        metrics: names in the runs' `metrics.json`, the columns.
        parts: (title, word) of every table to print: the columns that hold the word; one table of all by default.
        warm_start: where it is given, the overrides of a run from whose weights every row of that seed goes on.
        rows: the lines.
    """

    folder: Path
    config: Path
    overrides: tuple[str, ...]
    metrics: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    warm_start: Row | None
    rows: tuple[Row, ...]

    @property
    def paper(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: Row
    seed: int
    base: Path
    command: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.base / self.row.slug / f"seed_{self.seed}")

    @property
    def log(self) -> Path:
        return self.base / self.row.slug / f"seed_{self.seed}.log"

    @property
    def stamp(self) -> Path:
        return self.base / self.row.slug / f"seed_{self.seed}.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("paper", help="a folder of experiments/ that has a table.yaml, by name or by path")
    parser.add_argument("--seeds", type=_positive, default=3, help="runs of each row (default 3)")
    parser.add_argument("--jobs", type=_positive, default=None, help="runs at a time (default 2, or the processors)")
    parser.add_argument("--only", metavar="ROW", help="this row alone; the others keep what table.json says")
    parser.add_argument("--config", type=Path, help="start from this configuration instead of the table's")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where the runs lie (default runs)")
    parser.add_argument(
        "--override", metavar="NAME=VALUE", action="append", default=[], help="an argument of `fit` for every run"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs what is missing, then writes table.json and the READMEs' tables, and prints the table."""
    spec = read_spec(arguments.paper)
    config = arguments.config or spec.config
    if not config.is_file():
        raise UserError(f"{config}: no such configuration")
    rows = spec.rows
    if arguments.only:
        rows = tuple(row for row in rows if arguments.only in (row.name, row.slug))
        if not rows:
            raise UserError(f"--only {arguments.only}: the rows are {', '.join(row.name for row in spec.rows)}")
    common = (*spec.overrides, *(f"--{override.lstrip('-')}" for override in arguments.override))
    stamp, jobs, runs_dir = source_stamp(config), arguments.jobs or min(2, os.cpu_count() or 1), arguments.runs_dir
    starts: dict[int, tuple[str, ...]] = {}
    if spec.warm_start is not None:
        warm = [plan_run(spec, spec.warm_start, seed, config, common, runs_dir) for seed in range(arguments.seeds)]
        execute(warm, stamp, jobs)
        starts = {run.seed: (f"--model.init_args.init_weights={run.folder.checkpoint}",) for run in warm}
    runs = [
        plan_run(spec, row, seed, config, (*common, *starts.get(seed, ())), runs_dir)
        for seed in range(arguments.seeds)
        for row in rows
    ]
    execute(runs, stamp, jobs)
    table = collect(spec, rows, runs, arguments)
    write_json(spec.folder / "table.json", table)
    text = markdown(table, spec.parts)
    for readme in (spec.folder / "README.md", spec.folder.parent.parent / "README.md"):
        replace_block(readme, f"table:{spec.paper}", text)
    for title, word in spec.parts:
        _print(table, title or spec.paper, word)
    return 0


def read_spec(paper: str) -> TableSpec:
    """experiments/PAPER/table.yaml.

    Raises:
        UserError: there is none, or it does not say what a table needs.
    """
    folder = EXPERIMENTS / paper if (EXPERIMENTS / paper / "table.yaml").is_file() else Path(paper)
    path = folder / "table.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.parent.name for found in EXPERIMENTS.glob("*/table.yaml")))
        raise UserError(f"{paper}: no table.yaml there; papers with a table: {known or 'none'}")
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = tuple(
            Row(str(row["name"]), tuple(row.get("overrides") or ()), dict(row.get("paper") or {}))
            for row in tree["rows"]
        )
        config, metrics = folder / tree["config"], tuple(tree["metrics"])
        parts = tuple((str(title), str(word)) for title, word in (tree.get("parts") or {"": ""}).items())
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    slugs = [row.slug for row in rows]
    if len(set(slugs)) != len(slugs) or not all(slugs):
        raise UserError(f"{path}: rows need names that differ in letters or digits")
    warm_start = Row("warm start", tuple(tree["warm_start"]), {}) if tree.get("warm_start") else None
    return TableSpec(folder.resolve(), config, tuple(tree.get("overrides") or ()), metrics, parts, warm_start, rows)


def plan_run(spec: TableSpec, row: Row, seed: int, config: Path, common: Sequence[str], runs_dir: Path) -> Run:
    """The `fit` command of one row and seed."""
    command = (
        *("fit", "--config", str(config), "--wandb", "disabled", *common, *row.overrides),
        *("--paper", spec.paper, "--seed_everything", str(seed)),
        *("--runs_dir", str(runs_dir), "--run_id", f"table/{row.slug}/seed_{seed}"),
        "--trainer.enable_progress_bar=false",
    )
    return Run(row, seed, runs_dir / spec.paper / "table", command)


def source_stamp(config: Path) -> str:
    """A digest of the configuration files: a run made with other ones is not reused."""
    files = [config, *sorted(config.parent.parent.glob("shared/*.yaml"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]


def is_done(run: Run, stamp: str) -> bool:
    """Whether this very command has been run to its end."""
    recorded = read_json(run.stamp)
    same = recorded.get("command") == list(run.command) and recorded.get("configuration") == stamp
    return same and "final" in read_json(run.folder.metrics)


def execute(runs: Sequence[Run], stamp: str, jobs: int) -> None:
    """Runs what is not done yet, `jobs` at a time; an interrupt lets each save its checkpoint first.

    Raises:
        UserError: a run failed; the others that were under way are stopped and resume next time.
    """
    waiting = [run for run in runs if not is_done(run, stamp)]
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    active: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("table", total=len(runs), completed=len(runs) - len(waiting))
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    run = waiting.pop(0)
                    process = _start(run, stamp, threads)
                    active[process.pid] = (run, process)
                names = ", ".join(f"{run.row.name} (seed {run.seed})" for run, _ in active.values())
                progress.update(bar, description=names)
                time.sleep(0.1)
                for pid, (run, process) in list(active.items()):
                    if process.poll() is None:
                        continue
                    del active[pid]
                    if process.returncode or "final" not in read_json(run.folder.metrics):
                        raise UserError(f"row {run.row.name!r}, seed {run.seed}: {_last_line(run.log)} (see {run.log})")
                    progress.advance(bar)
        finally:
            _stop([process for _, process in active.values()])


def _start(run: Run, stamp: str, threads: str) -> subprocess.Popen[bytes]:
    """Starts a run: from its checkpoint where the same command was interrupted, else afresh."""
    record = read_json(run.stamp)
    resumes = record.get("command") == list(run.command) and record.get("configuration") == stamp
    command = [sys.executable, "-m", "experiments", *run.command]
    if resumes and run.folder.checkpoint.is_file():
        # Without --run_id the run goes on in the folder of its checkpoint.
        place = command.index("--run_id")
        command[place : place + 2] = ["--ckpt_path", str(run.folder.checkpoint)]
    else:
        shutil.rmtree(run.folder.path, ignore_errors=True)
    write_json(run.stamp, {"command": list(run.command), "configuration": stamp, "commit": current_commit()})
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


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("monoface: error: ") if lines else "it ended without a word"


def current_commit() -> str:
    """The short commit of the code, or "unknown" outside a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=EXPERIMENTS, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def collect(spec: TableSpec, rows: Sequence[Row], runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, Any]:
    """table.json: the rows that were asked for from their runs, the others as they stood.

    Raises:
        UserError: a run has no such metric.
    """
    old = read_json(spec.folder / "table.json")
    kept = {row["name"]: row for row in old.get("rows", [])}
    wanted = {row.name for row in rows}
    lines = []
    for row in spec.rows:
        if row.name in wanted:
            finals = [read_json(run.folder.metrics)["final"] for run in runs if run.row == row]
            ours = {metric: summary([_value(final, metric, row) for final in finals]) for metric in spec.metrics}
            lines.append({"name": row.name, "overrides": list(row.overrides), "paper": dict(row.paper), "ours": ours})
        elif row.name in kept:
            lines.append(kept[row.name])
    commits = {str(read_json(run.stamp).get("commit", "unknown")) for run in runs}
    if wanted != {row.name for row in spec.rows} and old.get("commit"):
        commits.update(str(old["commit"]).split(", "))
    return {"command": _command(spec, arguments), "commit": ", ".join(sorted(commits)), "rows": lines}


def _command(spec: TableSpec, arguments: argparse.Namespace) -> str:
    """What to type to have this table again: all rows, whichever were run this time."""
    words = ["python", "-m", "experiments", "table", spec.paper, "--seeds", str(arguments.seeds)]
    if arguments.config:
        words += ["--config", str(arguments.config)]
    return shlex.join([*words, *(f"--override={override}" for override in arguments.override)])


def _value(final: Mapping[str, float | None], metric: str, row: Row) -> float:
    value = final.get(metric)
    if value is None:
        raise UserError(f"row {row.name!r}: its runs have no finite {metric}; they have {', '.join(final) or 'none'}")
    return value


def summary(seeds: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for one seed) and the values themselves."""
    deviation = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
    return {"mean": statistics.fmean(seeds), "std": deviation, "seeds": list(seeds)}


def columns(table: Mapping[str, Any], word: str = "") -> tuple[list[str], list[str]]:
    """Names of the paper's and of our columns that hold `word`."""
    paper = dict.fromkeys(name for row in table["rows"] for name in row["paper"] if word in name)
    ours = dict.fromkeys(name for row in table["rows"] for name in row["ours"] if word in name)
    return list(paper), list(ours)


def cells(table: Mapping[str, Any], word: str = "") -> list[list[str]]:
    """The table's text: a header, then a line for each row."""
    paper, ours = columns(table, word)
    lines = [["row", *(f"{name} (paper)" for name in paper), *(f"{name} (ours)" for name in ours)]]
    for row in table["rows"]:
        published = [f"{row['paper'][name]:g}" if name in row["paper"] else "" for name in paper]
        measured = [_measured(row["ours"][name]) if name in row["ours"] else "" for name in ours]
        lines.append([row["name"], *published, *measured])
    return lines


def _measured(value: Mapping[str, Any]) -> str:
    """Mean and deviation with as many decimals as three significant digits of the mean need."""
    mean = abs(value["mean"])
    decimals = 2 if mean == 0 else max(0, 2 - math.floor(math.log10(mean)))
    spread = f" ± {value['std']:.{decimals}f}" if len(value["seeds"]) > 1 else ""
    return f"{value['mean']:.{decimals}f}{spread}"


def markdown(table: Mapping[str, Any], parts: Sequence[tuple[str, str]] = (("", ""),)) -> str:
    """table.json as a Markdown table for each (title, word) of `parts`, with the command that makes it."""
    texts = []
    for title, word in parts:
        header, *lines = cells(table, word)
        rule = ["---"] + ["---:"] * (len(header) - 1)
        body = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))
        texts.append(f"{title}:\n\n{body}" if title else body)
    return "\n\n".join([*texts, f"`{table['command']}` at commit {table['commit']}."])


def replace_block(path: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- NAME -->` and `<!-- /NAME -->` where a file has these marks."""
    if not path.is_file():
        return
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    new = pattern.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", old)
    if new != old:
        write_text(path, new)


def _print(table: Mapping[str, Any], title: str, word: str) -> None:
    header, *lines = cells(table, word)
    shown = Table(*header, title=f"{title}: {len(lines)} rows")
    for line in lines:
        shown.add_row(*line)
    Console().print(shown)


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return value
