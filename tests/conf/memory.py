"""How much memory a process holds, and whether that grows."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

TOLERANCE = 0.03
"""By which part the last quarter of a run may be larger than the second."""


def resident_megabytes(process: int | str) -> float:
    """VmRSS of a process that runs; "self" is this one."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(process)  # it has ended


def growth(sizes: list[float]) -> tuple[float, float, float]:
    """(second quarter's mean, last quarter's mean, by which part the last one is larger)."""
    quarter = len(sizes) // 4
    second, last = mean(sizes[quarter : 2 * quarter]), mean(sizes[-quarter:])
    return second, last, last / second - 1
