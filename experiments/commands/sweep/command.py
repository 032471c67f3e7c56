"""`python -m experiments sweep PAPER`: hyperparameters, on W&B or with `--local` on this machine alone."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from experiments.commands.launch.account import account_entity
from experiments.commands.sweep.spec import SweepSpec, read_spec
from experiments.papers import EXPERIMENTS
from experiments.training.run_pool import positive
from renderers.io.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("paper", help="a folder of experiments/ that has a sweep.yaml, by name or by path")
    parser.add_argument("--runs", type=positive, default=12, help="runs in all (default 12)")
    parser.add_argument("--local", action="store_true", help="without an account: leaderboard and picture in runs/")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time, with --local (default 1)")
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs"), help="where the runs lie, with --local (default runs)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Sweeps, and ends with the leaderboard or with the sweep's place on W&B."""
    spec = read_spec(arguments.paper)
    if not arguments.local:
        return _sweep_online(spec, arguments.runs)
    from experiments.commands.sweep.local import report, sweep_locally

    report(sweep_locally(spec, arguments.runs, arguments.jobs, arguments.runs_dir))
    return 0


def _sweep_online(spec: SweepSpec, count: int) -> int:
    """Registers the sweep with W&B and works on it as one of its agents.

    Raises:
        UserError: no account, no network, or W&B does not take the sweep.
    """
    entity = account_entity("make sweep-PAPER LOCAL=1 needs none")
    import wandb

    project = str(spec.tree["project"])
    try:
        identifier = wandb.sweep(dict(spec.tree), entity=entity, project=project)
    except wandb.errors.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())} (or stay here: --local)") from error
    place = f"{entity}/{project}/{identifier}"
    print(f"Another machine joins with: .venv/bin/wandb agent {place}", flush=True)
    # sweep.yaml's command says `python` and names files as seen from the repository.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    agent = [sys.executable, "-m", "wandb", "agent", "--count", str(count), place]
    return subprocess.run(agent, cwd=EXPERIMENTS.parent, env={**os.environ, "PATH": path}, check=False).returncode
