"""Bootstrap intervals: how far a mean would differ if other people had been measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over people, and where 95 of 100 means over people drawn anew lie."""

    mean: float
    low: float
    high: float


def people_interval(figures: Mapping[str, Sequence[float]], seed: int = 0) -> Interval:
    """The percentile bootstrap over people, each with the mean of their own figures (Efron, 1979).

    Args:
        figures: person -> one value a photograph, at least one.
        seed: of the draws.
    """
    values = np.array([np.mean(of_person) for of_person in figures.values()])
    return Interval(float(values.mean()), *_percentiles(values[_draws(len(values), seed)].mean(axis=1)))


def ratio_interval(
    figures: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]], seed: int = 0
) -> Interval:
    """The same of the ratio of two means over the same people, who are drawn together.

    Args:
        figures: person -> one value a photograph, at least one.
        baseline: of the same people.
        seed: of the draws.
    """
    values, base = (np.array([np.mean(side[person]) for person in figures]) for side in (figures, baseline))
    rows = _draws(len(values), seed)
    ratios = values[rows].mean(axis=1) / base[rows].mean(axis=1)
    return Interval(float(values.mean() / base.mean()), *_percentiles(ratios))


def _draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (DRAWS, count))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
