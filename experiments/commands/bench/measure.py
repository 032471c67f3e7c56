"""Timing functions beside each other, and the row that a benchmark reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

LINUX_STATUS = Path("/proc/self/status")
LINUX_RESET = Path("/proc/self/clear_refs")

Clock = Callable[[], float]


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


class Stopwatch:
    """Runs one function again and again, and keeps what each run took.

    Args:
        function: what is timed.
        device: on CUDA the device's own events tell the time.
        clock: tells it on the CPU.
    """

    def __init__(self, function: Callable[[], object], device: torch.device, clock: Clock = time.perf_counter) -> None:
        self.function, self.device, self.clock = function, device, clock
        self.seconds: list[float] = []
        self.peak_mib: float | None = None

    def run(self) -> None:
        """Once more."""
        reset_peak(self.device)
        self.seconds.append(_seconds(self.function, self.device, self.clock))
        peak = peak_mib(self.device)
        if peak is not None:
            self.peak_mib = max(peak, self.peak_mib or 0.0)

    def wants_more(self, budget_s: float, repeats: int) -> bool:
        """Whether it ran less than once, or less than `repeats` times within the budget."""
        return not self.seconds or (len(self.seconds) < repeats and sum(self.seconds) < budget_s)

    @property
    def measurement(self) -> Measurement:
        """Of the runs so far."""
        return summary(self.seconds, self.peak_mib)


def summary(seconds: Sequence[float], peak: float | None) -> Measurement:
    """Median and spread of at least one run."""
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return Measurement(float(median), float((high - low) / median) if len(seconds) > 1 else None, peak)


def _seconds(function: Callable[[], object], device: torch.device, clock: Clock) -> float:
    if device.type != "cuda":
        start = clock()
        function()
        return clock() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def reset_peak(device: torch.device) -> None:
    """Forget the most memory that was held so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif LINUX_RESET.exists():
        LINUX_RESET.write_text("5", encoding="ascii")


def peak_mib(device: torch.device) -> float | None:
    """The most memory held since `reset_peak`; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if not LINUX_RESET.exists():
        return None
    status = dict(line.split(":", 1) for line in LINUX_STATUS.read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def take_turns(watches: Sequence[Stopwatch], budget_s: float, repeats: int) -> None:
    """Run each at least once, and up to `repeats` times within its budget of seconds.

    Whichever has had the least time runs next: what else the machine does meets all alike, and a slow one is not waited
    for with nothing in between.
    """
    while waiting := [watch for watch in watches if watch.wants_more(budget_s, repeats)]:
        min(waiting, key=lambda watch: sum(watch.seconds)).run()


def race(
    name: str,
    case: str,
    device: torch.device,
    ours: Callable[[], object],
    against: str,
    reference: Callable[[], object],
    *,
    share: float = 1.0,
    budget_s: float = 4.0,
    repeats: int = 20,
    warm_reference: bool = True,
    clock: Clock = time.perf_counter,
) -> Row:
    """Time two functions in turns, and report the first.

    Args:
        name: of the benchmark.
        case: what is run.
        device: where.
        ours: what is reported.
        against: what the reference is called.
        reference: what it is measured against.
        share: how many times the reference's work `ours` does in a run.
        budget_s: seconds for each of the two; at least one run of each is made, whatever it takes.
        repeats: of each, at most.
        warm_reference: run the reference once uncounted first, as is always done with `ours`.
        clock: tells the seconds on the CPU.
    """
    ours()
    if warm_reference:
        reference()
    sides = [Stopwatch(function, device, clock) for function in (ours, reference)]
    take_turns(sides, budget_s, repeats)
    mine, other = (side.measurement for side in sides)
    return compare(name, case, device, mine, against, share * other.median_s)


def compare(name: str, case: str, device: torch.device, ours: Measurement, against: str, reference_s: float) -> Row:
    """The row for `ours` beside a reference that takes `reference_s` seconds for the same work."""
    ratio = reference_s / ours.median_s
    return Row(name, case, device.type, against, ratio, ours.median_s, ours.spread, ours.peak_mib)
