"""Learning-rate schedules."""

from __future__ import annotations

import math

WARMUP_STEPS = 50


def cosine_factor(step: int, total: int) -> float:
    """Learning-rate factor: a linear warm-up over `WARMUP_STEPS`, then half a cosine down to 0 at `total`."""
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, max(total, 1)))
    return warm * 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


def staged_factor(step: int, first: int, total: int) -> float:
    """`cosine_factor` of two stages, one after the other: up to step `first`, and from there to `total`."""
    if step < first:
        return cosine_factor(step, min(first, total))
    return cosine_factor(step - first, total - first)
