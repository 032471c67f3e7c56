"""`python -m experiments bench [NAME] --json FILE`: speed as ratios measured in one run."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.bench.measure import Row

BENCHMARKS = ("rasterizer", "render")  # each a module of this package with run(device) -> rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    known = ", ".join(BENCHMARKS)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, metavar="NAME", help=f"one of {known}; all without it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")


def run(args: argparse.Namespace) -> int:
    """Run the benchmarks on the CPU and, where there is one, on the GPU; print a table; return the exit code.

    Raises:
        UserError: FILE's folder does not exist, or the benchmark asked for needs a package that is not installed.
        OSError: FILE cannot be written.
    """
    import torch
    from rich.console import Console

    from experiments.run_folder import write_json
    from renderers.errors import UserError

    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no folder {args.json.absolute().parent}; make it first")
    console = Console()
    console.print(environment(), highlight=False)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    rows: list[Row] = []
    for name in BENCHMARKS if args.name is None else (args.name,):
        try:
            for device in devices:
                with console.status(f"{name} on {device.type}"):
                    rows += import_module(f"experiments.bench.{name}").run(device)
        except UserError as error:
            if args.name is not None:
                raise
            console.print(f"{name} left out: {error}", highlight=False)
    console.print(table(rows))
    if args.json is not None:
        write_json(args.json, {"rows": [asdict(row) for row in rows]})
    return 0


def environment() -> str:
    """One line on what the figures were measured with."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so CUDA was not measured"
    return f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, {platform.machine()}; GPU: {gpu}"


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal; 80 columns are enough."""
    from rich.table import Table

    view = Table(caption="median: of the case; spread: interquartile range over the median")
    view.add_column("case")
    view.add_column("against")
    for column in ("times as fast", "median", "spread", "peak MiB"):
        view.add_column(column, justify="right")
    for place, row in enumerate(rows):
        spread = "one run" if row.spread is None else f"{100 * row.spread:.0f} %"
        peak = "unknown" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
        times = f"{row.ratio:,.0f}" if row.ratio >= 100 else f"{row.ratio:.3g}"
        ends = place + 1 == len(rows) or rows[place + 1].name != row.name
        case = f"{row.case} ({row.device})"
        view.add_row(case, row.against, times, f"{1000 * row.median_s:,.1f} ms", spread, peak, end_section=ends)
    return view
