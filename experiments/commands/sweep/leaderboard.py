"""`runs/PAPER/sweep/leaderboard.json` and `.md`: the parameters of each run and its result."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from experiments.commands.sweep.spec import Parameters, SweepSpec, engine
from experiments.training.run_folder import read_json, write_json, write_text
from experiments.training.stored_module import Builder
from renderers.io.errors import UserError

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
"""States of a run; one that was stopped early counts with its last validation."""


@dataclass
class Entry:
    """One run of the sweep.

    Attributes:
        name: of its folder.
        parameters: what was drawn.
        state: RUNNING (also where the sweep was interrupted), FINISHED, STOPPED or FAILED.
        value: the sweep's metric; None where it is not known or not finite.
        metrics: every `val/...` of its last validation.
        reason: why it failed.
    """

    name: str
    parameters: Parameters
    state: str = RUNNING
    value: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    reason: str = ""


class Leaderboard:
    """The runs of a sweep in the order in which they were drawn, kept in a file.

    Args:
        folder: `runs/PAPER/sweep`.
        spec: of the sweep.
        settings: a digest of `sweep.yaml` and the configuration.

    Raises:
        UserError: the folder holds the runs of a sweep with other settings, which these cannot be compared with, or
            something else than runs.
    """

    def __init__(self, folder: Path, spec: SweepSpec, settings: str) -> None:
        self.folder, self.spec, self.settings = folder, spec, settings
        kept = read_json(self.json)
        if kept and kept.get("settings") != settings:
            raise UserError(
                f"{folder} holds a sweep with other settings (its sweep.yaml or configuration has changed since): "
                "move that folder away, or choose another --runs_dir"
            )
        runs = kept.get("runs", [])
        self.entries = sorted(
            (self._entry(run) for run in (runs if isinstance(runs, list) else [runs])), key=lambda entry: entry.name
        )

    def _entry(self, run: object) -> Entry:
        """A run as the file tells it. Its name is a folder that may be emptied, and its parameters become a command."""
        builder, drawn = Builder(str(self.json)), self.spec.tree["parameters"]
        entry: Entry = builder.build(run, Entry)
        fits = re.fullmatch(r"run_\d{3,}", entry.name) and entry.parameters.keys() == set(self.spec.parameters)
        for name, value in entry.parameters.items() if fits else ():
            listed = drawn[name].get("values", [drawn[name].get("value")])
            fits = fits and (isinstance(value, (int, float, NoneType)) or value in listed)
        if not fits:
            raise UserError(f"{self.json}: {entry.name[:50]!r} is no run of this sweep: move {self.folder} away")
        return entry

    @property
    def json(self) -> Path:
        return self.folder / "leaderboard.json"

    @property
    def markdown(self) -> Path:
        return self.folder / "leaderboard.md"

    @property
    def picture(self) -> Path:
        return self.folder / "parallel_coordinates.png"

    def add(self, parameters: Parameters) -> Entry:
        """A new run of these parameters."""
        entry = Entry(f"run_{len(self.entries) + 1:03d}", parameters)
        self.entries.append(entry)
        return entry

    def ranked(self) -> list[Entry]:
        """The best first, those without a value last."""
        sign = -1 if self.spec.maximizes else 1
        return sorted(self.entries, key=lambda entry: math.inf if entry.value is None else sign * entry.value)

    def engine_runs(self, histories: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> list[Any]:
        """A `sweeps.SweepRun` of every entry.

        Args:
            histories: validations by the name of the run, for early termination.
        """
        sweeps = engine()
        states = {STOPPED: FINISHED}
        return [
            sweeps.SweepRun(
                name=entry.name,
                state=states.get(entry.state, entry.state),
                config={name: {"value": value} for name, value in entry.parameters.items()},
                summaryMetrics={} if entry.value is None else {self.spec.metric: entry.value},
                sampledHistory=list((histories or {}).get(entry.name, [])),
            )
            for entry in self.entries
        ]

    def write(self) -> None:
        """Both files."""
        ranked = self.ranked()
        head = {"paper": self.spec.paper, "metric": self.spec.metric, "settings": self.settings}
        goal = "maximize" if self.spec.maximizes else "minimize"
        write_json(self.json, {**head, "goal": goal, "runs": [asdict(entry) for entry in ranked]})
        header, *lines = self.cells()
        rule = ["---:", "---", "---", *["---:"] * (len(header) - 3)]
        text = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))
        write_text(self.markdown, f"{text}\n\n{self.told_best()}\n")

    def cells(self) -> list[list[str]]:
        """The table's text: a header, then a line for each run, the best first."""
        names = short_names(self.spec.parameters)
        lines = [["rank", "run", "state", self.spec.metric, *names.values()]]
        for rank, entry in enumerate(self.ranked(), start=1):
            value = "" if entry.value is None else f"{entry.value:.4g}"
            drawn = [_shown(entry.parameters.get(name)) for name in names]
            lines.append([str(rank), entry.name, entry.state, value, *drawn])
        return lines

    def told_best(self) -> str:
        """The line that says how to train with the best parameters."""
        best = next((entry for entry in self.ranked() if entry.value is not None), None)
        if best is None:
            return "No run has come to a value yet."
        words = shlex.join(f"--{name}={value}" for name, value in best.parameters.items())
        return f'The best, {best.name}, at full length: make train-{self.spec.paper} ARGS="{words}"'


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted names that tell them apart."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        short[name] = next(
            end for end in ends if end == name or not any(o != name and o.endswith(f".{end}") for o in names)
        )
    return short


def read_history(path: Path) -> list[dict[str, Any]]:
    """The validations in a run's history, in order, one for each step. Skips a line that was cut off."""
    validations: dict[int, dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            validation = json.loads(line)
            validations[int(validation["step"])] = validation
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return [validations[step] for step in sorted(validations)]
