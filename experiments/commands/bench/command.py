"""`python -m experiments bench [NAME] --json FILE`: speed as ratios measured in one run."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from experiments.commands.bench.measure import Row

# Each a module of this package with run(device) -> rows.
BENCHMARKS = (
    "rasterizer", "render", "decoder", "shading", "view_synthesis", "wavelets", "graph_refiner", "encoders", "icp",
    "data", "step", "full_step", "reconstruct", "cli",
)  # fmt: skip
SCALING = "scaling"  # another such module, which runs when it is asked for by name alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    known = ", ".join(BENCHMARKS)
    parser.add_argument(
        "name", nargs="?", choices=(*BENCHMARKS, SCALING), metavar="NAME",
        help=f"one of {known}; all of them without it; or {SCALING}, cost against size",
    )  # fmt: skip
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="measure on this alone; without it on the CPU and on a GPU if there is one",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"where {SCALING} draws its plots, a PNG")
    parser.add_argument(
        "--against", type=Path, metavar="FILE",
        help="measure what this file of --json holds, and exit with 1 where a ratio fell far below it",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the benchmarks on the CPU and, where there is one, on the GPU, or on one of the two; print a table.

    Returns:
        The exit code: 0, or 1 where a ratio fell below `guard.ALLOWED` of that in `--against`.

    Raises:
        UserError: FILE's folder does not exist, the benchmark asked for needs a package that is not installed, there is
            no such device, or options that do not go together.
        OSError: FILE cannot be written.
    """
    import torch
    from rich.console import Console

    from experiments.commands.bench.guard import guarded, moved, read_expected
    from experiments.training.run_folder import write_json
    from renderers.io.errors import UserError

    for option in ("json", "out"):
        path = getattr(args, option)
        if path is not None and not path.absolute().parent.is_dir():
            raise UserError(f"--{option} {path}: there is no folder {path.absolute().parent}; make it first")
    if args.out is not None and args.name != SCALING:
        raise UserError(f"--out {args.out}: only `bench {SCALING}` draws; the others take --json FILE")
    if args.device is not None and args.against is not None:
        raise UserError(f"--device {args.device}: with --against the file says what is measured where; leave one out")
    expected = None if args.against is None else read_expected(args.against)
    console = Console()
    console.print(environment(), highlight=False)
    devices = [torch.device(name) for name in chosen_devices(args.device)]
    rows: list[Row] = []
    fallen: list[str] = []
    for name in chosen(args.name, expected):
        begun = time.perf_counter()
        found: list[Row] = []
        try:
            for device in devices:
                measure = partial(_measured, console, name, device, args.out)
                if expected is None:
                    found += measure()
                    continue
                wanted = [row for row in expected if (row.name, row.device) == (name, device.type)]
                guarded_rows = guarded(wanted, measure)
                found += guarded_rows
                fallen += moved(wanted, guarded_rows)
        except UserError as error:
            if args.name is not None or "is not installed" not in str(error):
                raise
            console.print(f"{name} left out: {error}", highlight=False)
            continue
        rows += found
        console.print(table(found, f"{name}, in {time.perf_counter() - begun:.0f} s"))
        if args.json is not None:
            write_json(args.json, {"rows": [asdict(row) for row in rows]})
    console.print("median: of the case; spread: interquartile range over the median", highlight=False)
    for line in fallen:
        console.print(f"slower than before: {line}", highlight=False, soft_wrap=True)
    return 1 if fallen else 0


def chosen_devices(wanted: str | None) -> list[str]:
    """The devices that are measured on: the one that was asked for, or all there are.

    Raises:
        UserError: CUDA was asked for where there is none.
    """
    import torch

    from renderers.io.errors import UserError

    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if wanted is not None and wanted not in there:
        raise UserError(f"--device {wanted}: this machine has no CUDA device that torch can use; leave the option out")
    return [wanted] if wanted is not None else there


def chosen(name: str | None, expected: Sequence[Row] | None) -> list[str]:
    """The benchmarks that run: the one that was asked for, or all, or all that are expected."""
    if name is not None:
        return [name]
    return [known for known in BENCHMARKS if expected is None or any(row.name == known for row in expected)]


def _measured(console: Console, name: str, device: torch.device, picture: Path | None) -> Iterable[Row]:
    run: Callable[..., Iterable[Row]] = import_module(f"experiments.commands.bench.{name}").run
    with console.status(f"{name} on {device.type}"):
        yield from run(device) if picture is None else run(device, picture)


def environment() -> str:
    """One line on what the figures were measured with."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so CUDA is not measured"
    return f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, {platform.machine()}; GPU: {gpu}"


def table(rows: Sequence[Row], title: str) -> Table:
    """The rows as a table for the terminal; 80 columns are enough."""
    from rich.table import Table

    view = Table(title=title, title_justify="left")
    view.add_column("case")
    view.add_column("against")
    for column in ("times as fast", "median", "spread", "peak MiB"):
        view.add_column(column, justify="right")
    for row in rows:
        spread = "one run" if row.spread is None else f"{100 * row.spread:.0f} %"
        peak = "unknown" if row.peak_mib is None else f"{row.peak_mib:,.0f}"
        case = f"{row.case} ({row.device})"
        view.add_row(case, row.against, _times(row.ratio), f"{1000 * row.median_s:,.1f} ms", spread, peak)
    return view


def _times(ratio: float) -> str:
    """A slower case is told by how many times the cost it has."""
    if ratio < 1:
        return f"1 / {1 / ratio:.3g}"
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
