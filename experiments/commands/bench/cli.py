"""How soon the command line answers, in CPU seconds, against importing what a training needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from experiments.commands.bench.measure import Row, race
from experiments.papers import EXPERIMENTS

CASES = {
    "--help": ["-m", "experiments", "--help"],
    "fit with a misspelt argument": [
        "-m", "experiments", "fit", "--config", "experiments/mgcnet/default.yaml", "--model.init_args.wieghts=1",
    ],
    "a misspelt argument of a command": ["-m", "experiments", "reconstruct", "--uot", "somewhere"],
}  # fmt: skip
REFERENCE = ["-c", "import torch, lightning"]


def started(arguments: list[str]) -> Callable[[], subprocess.CompletedProcess[bytes]]:
    """Runs Python in a process of its own, whatever it exits with."""

    def start() -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=EXPERIMENTS.parent, capture_output=True, check=False)

    return start


def children_seconds() -> float:
    """CPU seconds of every process that was started from here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(device: torch.device) -> Iterator[Row]:
    """One row an answer; no matter of a GPU."""
    if device.type != "cpu":
        return
    for case, arguments in CASES.items():
        row = race(
            "cli", case, device, started(arguments), "import torch, lightning", started(REFERENCE),
            repeats=5, clock=children_seconds,
        )  # fmt: skip
        yield replace(row, peak_mib=None)  # This process's memory says nothing about theirs.
