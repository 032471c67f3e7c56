"""Learning-rate schedules by training step. A schedule starts anew in each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["constant", "cosine", "decay"]

WARMUP_STEPS = 50
DECAY = 0.9


def cosine_factor(step: int, total: int) -> float:
    """Learning-rate factor: a linear warm-up over `WARMUP_STEPS`, then half a cosine down to 0 at `total`."""
    warm = min(1.0, (step + 1) / min(WARMUP_STEPS, max(total, 1)))
    return warm * 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


def stage_at(step: int, starts: Sequence[int], total: int) -> tuple[int, int]:
    """(first step, end) of the stage that a step belongs to.

    Args:
        step: of the training.
        starts: the stages' first steps, in order, the first one 0; a stage that begins at `total` or later never comes.
        total: steps of the training.

    >>> stage_at(70, (0, 50, 90), total=100)
    (50, 90)
    """
    begun = [start for start in starts if start <= step]
    return begun[-1], min([start for start in starts if start > step] + [total])


def learning_rate_factor(schedule: Schedule, step: int, starts: Sequence[int], total: int, decay_steps: int) -> float:
    """What the learning rate is multiplied by at a step; every stage starts anew.

    Args:
        schedule: `constant` is 1, `cosine` is `cosine_factor` over the stage, `decay` is `DECAY` to the power of the
            whole `decay_steps` that the stage has lasted.
        step: see `stage_at`, as the next two.
        starts: of the stages.
        total: of the training.
        decay_steps: see `schedule`.
    """
    first, end = stage_at(step, starts, total)
    if schedule == "cosine":
        return cosine_factor(step - first, end - first)
    return DECAY ** ((step - first) // decay_steps) if schedule == "decay" else 1.0
