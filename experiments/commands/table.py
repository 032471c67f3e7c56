"""`python -m experiments table PAPER`: a paper's ablation table, every row a few command-line overrides."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.papers import EXPERIMENTS, paper_folder, papers_with
from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import read_json, write_json, write_text
from experiments.training.run_pool import PooledRun, RunPool, current_commit, is_done, last_line, positive, source_stamp
from experiments.training.source_code import code_digests, parts_of
from renderers.io.errors import UserError

MIXED = "mixed"  # instead of a digest, where a table's runs were made by different code
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One line of the table: what differs from the common command, what the paper measured, and the fewest seeds."""

    name: str
    overrides: tuple[str, ...]
    paper: Mapping[str, float]
    seeds: int = 1

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class TableSpec:
    """What `table.yaml` says.

    Attributes:
        folder: where it lies, `experiments/PAPER`.
        results: where `table.json` is written; in another folder than that, no README is changed.
        config: the configuration that every row starts from.
        overrides: common to all rows.
        metrics: names in the runs' `metrics.json`, the columns.
        per_image: overrides of all rows where pictures are optimized instead of a network trained.
        parts: (title, word) of every table to print: the columns that hold the word; one table of all by default.
        warm_start: where it is given, the overrides of a run from whose weights every row of that seed goes on.
        warm_starts: of how many seeds there is such a run, which the others then share in turn; of all where absent.
        rows: the lines.
    """

    folder: Path
    results: Path
    config: Path
    overrides: tuple[str, ...]
    metrics: tuple[str, ...]
    per_image: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    warm_start: Row | None
    warm_starts: int | None
    rows: tuple[Row, ...]

    @property
    def paper(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Run(PooledRun):
    """One row with one seed."""

    row: Row
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("paper", nargs="?", help="a folder of experiments/ that has a table.yaml, by name or by path")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; say which tables (PAPER's, or all) are older than the code"
    )
    parser.add_argument(
        "--per-image", action="store_true",
        help="train nothing: optimize each picture's coefficients by the rows' losses, what these can show",
    )  # fmt: skip
    parser.add_argument("--people", type=positive, default=12, help="of --per-image (default 12)")
    parser.add_argument("--steps", type=positive, default=300, help="of --per-image (default 300)")
    parser.add_argument(
        "--seeds", type=positive, default=3, help="runs of each row (default 3); a row of table.yaml may want more"
    )
    parser.add_argument("--jobs", type=positive, default=None, help="runs at a time (default 2, or the processors)")
    parser.add_argument("--only", metavar="ROW", help="this row alone; the others keep what table.json says")
    parser.add_argument("--config", type=Path, help="start from this configuration instead of the table's")
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE.npz",
        help="a prepared face model for every run; the table goes to RUNS_DIR/PAPER, and the one in git stays",
    )  # fmt: skip
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where the runs lie (default runs)")
    parser.add_argument(
        "--override", metavar="NAME=VALUE", action="append", default=[], help="an argument of `fit` for every run"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs what is missing, then writes table.json and the READMEs' tables, and prints the table."""
    if arguments.check:
        papers = [arguments.paper] if arguments.paper else papers_with("table.json")
        for paper in papers:
            print(age(paper))
        return 0
    if not arguments.paper:
        raise UserError(f"which paper's table? {', '.join(papers_with('table.yaml'))}")
    spec = read_spec(arguments.paper)
    if arguments.face_model is not None:
        spec = with_face_model(spec, arguments.face_model, arguments.runs_dir)
    config = arguments.config or spec.config
    if not config.is_file():
        raise UserError(f"{config}: no such configuration")
    rows = spec.rows
    if arguments.only:
        rows = tuple(row for row in rows if arguments.only in (row.name, row.slug))
        if not rows:
            raise UserError(f"--only {arguments.only}: the rows are {', '.join(row.name for row in spec.rows)}")
    common = (*spec.overrides, *map(_option, arguments.override))
    if arguments.per_image:
        _write(spec, optimized(spec, rows, config, common, arguments))
        return 0
    stamp, jobs, runs_dir = source_stamp(config), arguments.jobs or min(2, os.cpu_count() or 1), arguments.runs_dir
    most = max(arguments.seeds, *(row.seeds for row in rows))
    starts: dict[int, tuple[str, ...]] = {}
    if spec.warm_start is not None:
        count = min(most, spec.warm_starts or most)
        warm = [plan_run(spec, spec.warm_start, seed, config, common, runs_dir) for seed in range(count)]
        execute(warm, stamp, jobs)
        weights = [f"--model.init_args.init_weights={run.folder.checkpoint}" for run in warm]
        starts = {seed: (weights[seed % count],) for seed in range(most)}
    runs = [
        plan_run(spec, row, seed, config, (*common, *starts.get(seed, ())), runs_dir)
        for seed in range(most)
        for row in rows
        if seed < max(arguments.seeds, row.seeds)
    ]
    execute(runs, stamp, jobs)
    _write(spec, collect(spec, rows, runs, arguments))
    return 0


def _write(spec: TableSpec, table: Mapping[str, Any]) -> None:
    """table.json, the READMEs' tables, and the screen."""
    write_json(spec.results / "table.json", table)
    if spec.results == spec.folder:
        text = markdown(table, spec.parts)
        for readme in (spec.folder / "README.md", spec.folder.parent.parent / "README.md"):
            replace_block(readme, f"table:{spec.paper}", text)
    for title, word in spec.parts:
        _print(cells(table, word), title or spec.paper)
    if lines := per_image_cells(table):
        _print(lines, f"{spec.paper}, per image")


def with_face_model(spec: TableSpec, path: Path, runs_dir: Path) -> TableSpec:
    """The table of the same rows on another face model, whose runs and results stand apart.

    Raises:
        UserError: no such file.
    """
    from renderers.face_models.load import load_face_model

    load_face_model(str(path))  # what is wrong with it is told before anything runs
    named = f"--model.init_args.face_model={EXPERIMENTS / 'shared' / 'face_model_prepared.yaml'}"
    overrides = (*spec.overrides, named, f"--model.init_args.face_model.init_args.spec={path}")
    return replace(spec, overrides=overrides, results=runs_dir / spec.paper / f"table_{path.stem}")


def optimized(
    spec: TableSpec, rows: Sequence[Row], config: Path, common: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """table.json as it stood, with `per_image` in the rows that were asked for and in the first, which
    all are compared with.

    Raises:
        UserError: the paper's rows differ in more than a loss of coefficients.
    """
    from experiments.commands.per_image import compared, measure

    table = read_json(spec.results / "table.json")
    lines = {row["name"]: row for row in table.get("rows", [])}
    baseline: dict[str, list[float]] = {}
    first = spec.rows[0]
    for row in (first, *(row for row in rows if row != first)):
        words = ["--config", str(config), *common, *spec.per_image, *row.overrides]
        figures = measure(words, arguments.people, arguments.steps)
        baseline = baseline or figures
        names = [name for name in spec.metrics if name in figures]
        line = lines.setdefault(
            row.name, {"name": row.name, "overrides": list(row.overrides), "paper": dict(row.paper)}
        )
        line["per_image"] = compared(figures, baseline, names)
    words = ["python", "-m", "experiments", "table", spec.paper, "--per-image"]
    words += ["--people", str(arguments.people), "--steps", str(arguments.steps)]
    words += [f"--override={override}" for override in arguments.override]
    words += [f"--face-model={arguments.face_model}"] if arguments.face_model else []
    in_order = [lines[row.name] for row in spec.rows if row.name in lines]
    return {**table, "rows": in_order, "per_image": {"command": shlex.join(words), "commit": current_commit()}}


def age(paper: str) -> str:
    """One line: whether the code and the configuration are still those that made a paper's committed table.

    Raises:
        UserError: the paper has no table.json.
    """
    folder = paper_folder(paper, "table.json")
    table, spec = read_json(folder / "table.json"), read_spec(str(folder))
    made_by = table.get("code")
    if not isinstance(made_by, Mapping):
        return (
            f"{spec.paper}: older than the code: it was made before tables recorded theirs (commit {table['commit']})"
        )
    now = _made_by(spec.paper, code_digests(), source_stamp(spec.config))
    changed = [part for part, digest in now.items() if made_by.get(part) != digest]
    if table.get("settings", _settings(spec)) != _settings(spec):
        changed.append("what all rows of table.yaml share")
    measured = {row["name"]: tuple(row["overrides"]) for row in table["rows"]}
    changed += [f"row {row.name!r}" for row in spec.rows if measured.get(row.name, row.overrides) != row.overrides]
    missing = sum(row.name not in measured for row in spec.rows)
    lacks = f"; {missing} of {len(spec.rows)} rows have not been run" if missing else ""
    if changed:
        return f"{spec.paper}: older than the code: since commit {table['commit']} changed {', '.join(changed)}{lacks}"
    return f"{spec.paper}: made by this code{lacks}"


def _option(override: str) -> str:
    """`NAME=VALUE` of the command line as an option of `fit`."""
    return f"--{override.lstrip('-')}"


def _settings(spec: TableSpec, overrides: Sequence[str] = ()) -> dict[str, list[str]]:
    """What all rows share; `overrides` are the command line's. Tables that were made before 0.2 do not record it."""
    warm = () if spec.warm_start is None else spec.warm_start.overrides
    return {"overrides": [*spec.overrides, *map(_option, overrides)], "warm_start": list(warm)}


def _made_by(paper: str, digests: Mapping[str, str], configuration: str) -> dict[str, str]:
    """Of all digests those that a table of this paper depends on, and its configuration's."""
    return {part: digests.get(part, MIXED) for part in parts_of(paper)} | {"configuration": configuration}


def read_spec(paper: str) -> TableSpec:
    """experiments/PAPER/table.yaml.

    Raises:
        UserError: there is none, or it does not say what a table needs.
    """
    folder = paper_folder(paper, "table.yaml")
    path = folder / "table.yaml"
    try:
        tree = read_yaml(path)
        rows = tuple(
            Row(str(row["name"]), tuple(row.get("overrides") or ()), dict(row.get("paper") or {}), row.get("seeds", 1))
            for row in tree["rows"]
        )
        config, metrics = folder / tree["config"], tuple(tree["metrics"])
        parts = tuple((str(title), str(word)) for title, word in (tree.get("parts") or {"": ""}).items())
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    slugs = [row.slug for row in rows]
    if len(set(slugs)) != len(slugs) or not all(slugs):
        raise UserError(f"{path}: rows need names that differ in letters or digits")
    warm_start = Row("warm start", tuple(tree["warm_start"]), {}) if tree.get("warm_start") else None
    common, per_image = (tuple(tree.get(name) or ()) for name in ("overrides", "per_image"))
    return TableSpec(
        folder, folder, config, common, metrics, per_image, parts, warm_start, tree.get("warm_starts"), rows
    )


def plan_run(spec: TableSpec, row: Row, seed: int, config: Path, common: Sequence[str], runs_dir: Path) -> Run:
    """The `fit` command of one row and seed."""
    place = "table" if spec.results == spec.folder else spec.results.name
    command = (
        *("fit", "--config", str(config), "--wandb", "disabled", *common, *row.overrides),
        *("--paper", spec.paper, "--seed_everything", str(seed)),
        *("--runs_dir", str(runs_dir), "--run_id", f"{place}/{row.slug}/seed_{seed}"),
        "--trainer.enable_progress_bar=false",
    )
    path = runs_dir / spec.paper / place / row.slug / f"seed_{seed}"
    return Run(f"{row.name!r}, seed {seed}", path, command, row, seed)


def execute(runs: Sequence[Run], stamp: str, jobs: int) -> None:
    """Runs what is not done yet, `jobs` at a time; an interrupt lets each save its checkpoint first.

    Raises:
        UserError: a run failed; the others that were under way are stopped and resume next time.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    folder = runs[0].path.parents[1]
    with RunPool(folder, stamp, jobs) as pool, Progress(*columns, console=Console(stderr=True)) as progress:
        waiting = [run for run in runs if not is_done(run, stamp)]
        bar = progress.add_task("table", total=len(runs), completed=len(runs) - len(waiting))
        while waiting or pool.active:
            while waiting and pool.has_room:
                pool.start(waiting.pop(0))
            progress.update(bar, description="; ".join(run.name for run in pool.active))
            time.sleep(0.1)
            for run, ended_well in pool.ended():
                if not ended_well:
                    raise UserError(f"row {run.name}: {last_line(run.log)} (see {run.log})")
                progress.advance(bar)


def collect(spec: TableSpec, rows: Sequence[Row], runs: Sequence[Run], arguments: argparse.Namespace) -> dict[str, Any]:
    """table.json: the rows that were asked for from their runs, the others as they stood.

    Others that were made with other settings are left out, and the user is told.

    Raises:
        UserError: a run has no such metric.
    """
    old = read_json(spec.results / "table.json")
    settings, wanted = _settings(spec, arguments.override), {row.name for row in rows}
    stood = {row["name"]: row for row in old.get("rows", [])}
    kept = {row.name for row in spec.rows if row.name in stood and stood[row.name]["overrides"] == list(row.overrides)}
    kept = kept - wanted if old.get("settings", settings) == settings else set()
    if left := stood.keys() - wanted - kept:
        print(f"left out, because they were made with other settings: {', '.join(sorted(left))}")
    lines = []
    for row in spec.rows:
        if row.name in wanted:
            finals = [read_json(run.folder.metrics)["final"] for run in runs if run.row == row]
            ours = {metric: summary([_value(final, metric, row) for final in finals]) for metric in spec.metrics}
            line = {"name": row.name, "overrides": list(row.overrides), "paper": dict(row.paper), "ours": ours}
            lines.append(line | {name: v for name, v in stood.get(row.name, {}).items() if name == "per_image"})
        elif row.name in kept:
            lines.append(stood[row.name])
    stamps = [read_json(run.stamp) for run in runs]
    commits = {str(stamp.get("commit", "unknown")) for stamp in stamps}
    made_by = [_made_by(spec.paper, stamp.get("code", {}), stamp.get("configuration", MIXED)) for stamp in stamps]
    if kept and old.get("commit"):
        commits.update(str(old["commit"]).split(", "))
        made_by.append(old.get("code", {}))
    code = {part: _common([made.get(part, MIXED) for made in made_by]) for part in made_by[0]}
    made: dict[str, Any] = {"command": _command(spec, arguments), "commit": ", ".join(sorted(commits)), "code": code}
    if not kept or "settings" in old:
        made["settings"] = settings
    made["rows"] = lines
    return made | {name: old[name] for name in ("per_image",) if name in old}


def _common(digests: Sequence[str]) -> str:
    return digests[0] if len(set(digests)) == 1 else MIXED


def _command(spec: TableSpec, arguments: argparse.Namespace) -> str:
    """What to type to have this table again: all rows, whichever were run this time."""
    words = ["python", "-m", "experiments", "table", spec.paper, "--seeds", str(arguments.seeds)]
    for name in ("config", "face_model"):
        if value := getattr(arguments, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
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
    """The names of the columns that contain `word`: those with the paper's figures, and those with ours."""
    paper = dict.fromkeys(name for row in table["rows"] for name in row["paper"] if word in name)
    ours = dict.fromkeys(name for row in table["rows"] for name in row.get("ours", ()) if word in name)
    return list(paper), list(ours)


def cells(table: Mapping[str, Any], word: str = "") -> list[list[str]]:
    """The table's text: a header, then a line for each row.

    Each of our figures is a mean and a standard deviation over seeds. In brackets stands the 95 % interval of the
    difference from the first row, paired by seed.
    """
    paper, ours = columns(table, word)
    lines = [["row", *(f"{name} (paper)" for name in paper), *(f"{name} (ours)" for name in ours)]]
    for row in table["rows"]:
        published = [f"{row['paper'][name]:g}" if name in row["paper"] else "" for name in paper]
        measured = [_compared(row, table["rows"][0], name) for name in ours]
        lines.append([row["name"], *published, *measured])
    return lines


def _compared(row: Mapping[str, Any], first: Mapping[str, Any], name: str) -> str:
    """One figure of a row with as many decimals as three significant digits of its mean need."""
    value = row.get("ours", {}).get(name)
    if value is None:
        return ""
    mean = abs(value["mean"])
    decimals = 2 if mean == 0 else max(0, 2 - math.floor(math.log10(mean)))
    spread = f" ± {value['std']:.{decimals}f}" if len(value["seeds"]) > 1 else ""
    baseline = first.get("ours", {}).get(name)
    gaps = [own - other for own, other in zip(value["seeds"], baseline["seeds"], strict=False)] if baseline else []
    between = ""
    if row is not first and len(gaps) > 1:
        gap, half = interval(gaps)
        between = f" ({gap - half:+.{decimals}f} to {gap + half:+.{decimals}f})"
    return f"{value['mean']:.{decimals}f}{spread}{between}"


def interval(seeds: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its confidence interval by Student's t; the latter is infinite for one seed."""
    from scipy.stats import t as student

    if len(seeds) < 2:
        return statistics.fmean(seeds), math.inf
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1))
    return statistics.fmean(seeds), quantile * statistics.stdev(seeds) / math.sqrt(len(seeds))


def markdown(table: Mapping[str, Any], parts: Sequence[tuple[str, str]] = (("", ""),)) -> str:
    """table.json as a Markdown table for each (title, word) of `parts`, with the command that makes it."""
    texts = []
    for title, word in parts:
        body = _grid(cells(table, word))
        texts.append(f"{title}:\n\n{body}" if title else body)
    if "command" in table:
        texts.append(f"`{table['command']}` at commit {table['commit']}.")
    if lines := per_image_cells(table):
        made = table["per_image"]
        texts += [_grid(lines), f"`{made['command']}` at commit {made['commit']}."]
    return "\n\n".join(texts)


def _grid(lines: Sequence[Sequence[str]]) -> str:
    header, *below = lines
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *below))


def per_image_cells(table: Mapping[str, Any]) -> list[list[str]]:
    """The rows by optimization of each picture: means, and where 95 % of the paired differences from the first lie."""
    rows = [row for row in table["rows"] if "per_image" in row]
    names = list(rows[0]["per_image"]) if rows else []
    lines = [["row, per image", *names]] if rows else []
    for row in rows:
        texts = []
        for name in names:
            found = row["per_image"][name]
            gap = found["difference"]
            between = "" if row is rows[0] else f" ({gap['low']:+.2f} to {gap['high']:+.2f})"
            texts.append(f"{found['mean']:.2f}{between}")
        lines.append([row["name"], *texts])
    return lines


def replace_block(path: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- NAME -->` and `<!-- /NAME -->` where a file has these marks."""
    if not path.is_file():
        return
    old = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    new = pattern.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", old)
    if new != old:
        write_text(path, new)


def _print(lines: Sequence[Sequence[str]], title: str) -> None:
    header, *below = map(list, lines)
    shape = f"{title}: {len(below)} rows"
    if len(header) > len(below) + 1:  # a terminal is narrow: as many columns as there are rows
        header, *below = (list(column) for column in zip(header, *below, strict=True))
    shown = Table(*header, title=shape)
    for line in below:
        shown.add_row(*line)
    Console().print(shown)
