"""From what was found in each frame to smooth curves over the whole clip; frames without the face are bridged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.commands.reconstruct.video.parts import Frames, FrameTable
from experiments.commands.reconstruct.video.smoothing import smoothed
from experiments.fitting.frame_fitting import ALSO

POSE_CUTOFF, EXPRESSION_CUTOFF, LID_CUTOFF = 2.5, 6.0, 9.0  # Hz; a blink lasts 0.2 s
LIDS = ("eyeBlink", *ALSO)  # how the names of what moves the lids begin
BRIDGED = 1.0  # seconds without the face over which its motion is believed to have gone on
FOUND, INTERPOLATED, ABSENT = "found", "interpolated", "absent"


@dataclass(frozen=True)
class SmoothMotion(Frames):
    """The smooth motion in every frame.

    Attributes:
        status: (T,) `FOUND`, `INTERPOLATED` between frames that are near in time, or `ABSENT`.
    """

    status: np.ndarray


def smooth_motion(
    table: FrameTable, expression_names: Sequence[str], bounds: tuple[float, float] | None
) -> SmoothMotion:
    """Smooth every stretch of frames in which the person was found; between stretches the motion is a straight line.

    Args:
        table: of a clip in which the person was found somewhere.
        expression_names: of its expressions; empty where they have none.
        bounds: least and most that they may be.
    """
    runs = _runs(table)
    lids = np.array([name.startswith(LIDS) for name in expression_names] or [False] * table.expression.shape[1])
    angles = _curve(table, runs, np.unwrap(table.angles, axis=0), POSE_CUTOFF)
    faces, eyes = (_curve(table, runs, table.expression, cutoff) for cutoff in (EXPRESSION_CUTOFF, LID_CUTOFF))
    expression = np.where(lids, eyes, faces)
    status = np.full(len(table.seconds), ABSENT, dtype="<U12")
    for run in runs:
        status[run[0] : run[-1] + 1] = INTERPOLATED
    status[table.found] = FOUND
    return SmoothMotion(
        seconds=table.seconds,
        status=status,
        scene=table.scene,
        angles=angles,
        translation=_curve(table, runs, table.translation, POSE_CUTOFF),
        expression=expression if bounds is None else expression.clip(*bounds),
        illumination=_curve(table, runs, table.illumination, POSE_CUTOFF),
    )


def _runs(table: FrameTable) -> list[np.ndarray]:
    """The frames with the person, cut where the scene changes and where the person was away for long."""
    rows = np.flatnonzero(table.found)
    apart = (np.diff(table.seconds[rows]) > BRIDGED) | (np.diff(table.scene[rows]) != 0)
    return np.split(rows, np.flatnonzero(apart) + 1)


def _curve(table: FrameTable, runs: list[np.ndarray], values: np.ndarray, cutoff: float) -> np.ndarray:
    """(T, C) smoothed over each run, and a straight line between them."""
    seconds = table.seconds
    curve = np.empty(values.shape)
    covered = np.zeros(len(values), dtype=bool)
    for run in runs:
        rows = slice(run[0], run[-1] + 1)
        curve[rows] = smoothed(seconds[run], values[run], cutoff, seconds[rows])
        covered[rows] = True
    known = seconds[covered]
    return np.stack([np.interp(seconds, known, column[covered]) for column in curve.T], axis=1)
