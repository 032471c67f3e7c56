"""Timing one function, and the row that a benchmark reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

LINUX_STATUS = Path("/proc/self/status")
LINUX_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measurement:
    """What repeated runs of one function took.

    Attributes:
        median_s: seconds a run.
        spread: interquartile range over the median; None after a single run.
        peak_mib: most memory held meanwhile (the process's resident set on the CPU, torch's allocations on CUDA); None
            where the system does not tell.
    """

    median_s: float
    spread: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        name: of the benchmark.
        case: what was run.
        device: "cpu" or "cuda".
        against: what it was measured against, in the same run.
        ratio: time of `against` over time of the case, for the same work; above 1 the case is the faster one.
        median_s, spread, peak_mib: of the case, see `Measurement`.
    """

    name: str
    case: str
    device: str
    against: str
    ratio: float
    median_s: float
    spread: float | None
    peak_mib: float | None


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif LINUX_RESET.exists():
        LINUX_RESET.write_text("5", encoding="ascii")


def _peak_mib(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not LINUX_RESET.exists():
        return None
    status = dict(line.split(":", 1) for line in LINUX_STATUS.read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measure(
    function: Callable[[], object], device: torch.device, budget_s: float = 2.0, repeats: int = 20, warm_up: bool = True
) -> Measurement:
    """Run `function` until `repeats` or the budget is reached, at least once; the warm-up is not counted."""
    if warm_up:
        function()
    _reset_peak(device)
    seconds: list[float] = []
    start = time.perf_counter()
    while not seconds or (len(seconds) < repeats and time.perf_counter() - start < budget_s):
        seconds.append(_seconds(function, device))
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    spread = float((high - low) / median) if len(seconds) > 1 else None
    return Measurement(float(median), spread, _peak_mib(device))


def compare(name: str, case: str, device: torch.device, ours: Measurement, against: str, reference_s: float) -> Row:
    """The row for `ours` beside a reference that takes `reference_s` seconds for the same work."""
    ratio = reference_s / ours.median_s
    return Row(name, case, device.type, against, ratio, ours.median_s, ours.spread, ours.peak_mib)
