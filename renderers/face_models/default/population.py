"""Random heads whose distances are distributed as a survey's: their moments moved by the least change of shape."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

SURVEY_FILE = Path(__file__).with_name("survey.json")
MILLIMETRES = 100.0  # per decimetre
ROUNDS = 6  # distances are nearly linear in the vertices: what one round leaves, the next takes
REST = 0.75  # what is kept of the variation that moves no measured distance: an artist's controls exaggerate it


@dataclass(frozen=True)
class Survey:
    """Distances of a population, men and women in equal parts. D distances.

    Attributes:
        names: the D distances.
        pairs: (D, 2) vertices of the whole head between which they are measured.
        mean: (D,) millimetres.
        apart: (D,) millimetres from this mean to the men's; the women's is as far on the other side.
        within: (D, D) square millimetres, the covariance within a sex, the mean of both.
    """

    names: tuple[str, ...]
    pairs: np.ndarray
    mean: np.ndarray
    apart: np.ndarray
    within: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(D, D) square millimetres, of men and women together."""
        return self.within + np.outer(self.apart, self.apart)

    @property
    def deviation(self) -> np.ndarray:
        """(D,) millimetres."""
        return np.sqrt(np.diag(self.covariance))

    def like_men(self, distances: np.ndarray) -> np.ndarray:
        """(B,) bool: whether distances (B, D) are likelier among the men than among the women (Fisher 1936)."""
        return np.asarray((distances - self.mean) @ np.linalg.solve(self.within, self.apart) > 0)

    def compact(self) -> tuple[np.ndarray, Survey]:
        """The (N,) vertices that are measured, and the same survey with pairs that count these alone."""
        used, pairs = np.unique(self.pairs, return_inverse=True)
        return used, replace(self, pairs=pairs.reshape(-1, 2))

    def measure(self, points: np.ndarray) -> np.ndarray:
        """(B, D) millimetres from heads (B, W, 3) in decimetres."""
        ends = points[:, self.pairs]
        return np.asarray(MILLIMETRES * np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1))


def load_survey() -> Survey:
    """The survey of `survey.json`; its moments are those of the mixture of both sexes."""
    content = json.loads(SURVEY_FILE.read_text(encoding="utf-8"))
    distances = content["distances"]
    men, women = (np.array([distance[sex] for distance in distances]) for sex in ("men", "women"))
    correlation = np.array(content["correlation"])
    within = correlation * sum(np.outer(sex[:, 1], sex[:, 1]) for sex in (men, women)) / 2
    return Survey(
        names=tuple(distance["name"] for distance in distances),
        pairs=np.array([distance["vertices"] for distance in distances]),
        mean=(men + women)[:, 0] / 2,
        apart=(men - women)[:, 0] / 2,
        within=within,
    )


def calibration(points: np.ndarray, survey: Survey) -> np.ndarray:
    """Weights (B, B) that mix aligned heads into others whose distances have the survey's moments.

    Each head's distances go through the linear map of least mean square change (optimal transport between Gaussians;
    Knott and Smith 1984) and its shape follows by linear regression on them: of all shapes with the new distances the
    most probable one. The rest of its variation is scaled by `REST`.

    Args:
        points: (B, W, 3) decimetres; only the vertices of `survey.pairs` are read.
        survey: where the distances shall go.

    Returns:
        Rows that sum to 1.
    """
    used, ends = survey.compact()
    start = points[:, used].reshape(len(points), -1)
    count = len(points)
    center = np.full((count, count), 1 / count)
    total = np.eye(count)
    for step in range(ROUNDS):
        found = ends.measure((total @ start).reshape(count, -1, 3))
        offset = found - found.mean(axis=0)
        covariance = offset.T @ offset / (count - 1)
        regression = np.linalg.solve(covariance, offset.T) / (count - 1)  # (D, B), on the heads' offsets
        change = survey.mean + offset @ transport(covariance, survey.covariance).T - found
        mixing = np.eye(count) + change @ regression @ (np.eye(count) - center)
        if step == 0:
            rest = np.eye(count) - center - offset @ regression @ (np.eye(count) - center)
            mixing -= (1 - REST) * rest
        total = mixing @ total
    return total


def transport(covariance: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The symmetric matrix A (D, D) with A covariance A = wanted."""
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    return inverse @ _power(root @ wanted @ root, 0.5) @ inverse


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * values**exponent) @ vectors.T)
