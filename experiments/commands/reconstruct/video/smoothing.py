"""Smooth curves through what was measured in each frame: over the whole clip at once, so that nothing lags behind."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import make_smoothing_spline

FEWEST = 5  # values through which SciPy lays a smoothing spline


def smoothed(seconds: np.ndarray, values: np.ndarray, cutoff: float, at: np.ndarray | None = None) -> np.ndarray:
    """The smoothing spline through (N, C) values at N ascending times, at these or at (M,) other times between them.

    It is what a Rauch-Tung-Striebel smoother of a point that moves with a random acceleration finds (Wahba 1978). A
    wave of frequency f keeps 1 / (1 + (f / cutoff)^4) of its size and none of its phase.

    Args:
        seconds: (N,).
        values: (N, C).
        cutoff: Hz, of which half is left.
        at: (M,) seconds; `seconds` where absent.
    """
    at = seconds if at is None else at
    if len(seconds) < FEWEST:
        return np.stack([np.interp(at, seconds, column) for column in values.T], axis=1)
    step = float(np.median(np.diff(seconds)))
    # The spline weighs the sum over frames of squared errors against the integral of the squared second derivative.
    weight = 1 / (step * (2 * np.pi * cutoff) ** 4)
    return np.asarray(make_smoothing_spline(seconds, values, lam=weight, axis=0)(at))
