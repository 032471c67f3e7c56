"""Bootstrap intervals: how much a mean would vary with the people who are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean or another figure of people, and the limits between which 95 % of it lies over resampled people."""

    mean: float
    low: float
    high: float


def people_interval(figures: Mapping[str, Sequence[float]], seed: int = 0) -> Interval:
    """The percentile bootstrap (Efron, 1979) over people, each of whom counts by the mean of their figures.

    Args:
        figures: person -> one value for each photograph, at least one.
        seed: of the draws.
    """
    values = np.array([np.mean(of_person) for of_person in figures.values()])
    return Interval(float(values.mean()), *_percentiles(values[_draws(len(values), seed)].mean(axis=1)))


def ratio_interval(
    figures: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]], seed: int = 0
) -> Interval:
    """The same for the ratio of two means over the same people, who are resampled together.

    Args:
        figures: person -> one value for each photograph, at least one.
        baseline: of the same people.
        seed: of the draws.
    """
    values, base = (np.array([np.mean(side[person]) for person in figures]) for side in (figures, baseline))
    rows = _draws(len(values), seed)
    ratios = values[rows].mean(axis=1) / base[rows].mean(axis=1)
    return Interval(float(values.mean() / base.mean()), *_percentiles(ratios))


def median_difference(figures: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Interval:
    """The same for the difference of two medians over the same faces, which are resampled together.

    Args:
        figures: one value for each face.
        baseline: of the same faces.
        seed: of the draws.
    """
    values, base = np.asarray(figures), np.asarray(baseline)
    rows = _draws(len(values), seed)
    differences = np.median(values[rows], axis=1) - np.median(base[rows], axis=1)
    return Interval(float(np.median(values) - np.median(base)), *_percentiles(differences))


def _draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (DRAWS, count))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
