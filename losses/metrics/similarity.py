"""Similarity transforms: a rotation, a translation and an isotropic scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """x -> scale R x + t.

    Attributes:
        scale: isotropic, above 0.
        rotation: (3, 3).
        translation: (3,) in the points' unit.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """The transformed points: (N, 3) -> (N, 3)."""
        return self.scale * points @ self.rotation.T + self.translation

    def after(self, first: Similarity) -> Similarity:
        """The similarity that does `first` and then this one."""
        translation = self.scale * self.rotation @ first.translation + self.translation
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, translation)

    def inverse(self) -> Similarity:
        """The similarity that undoes this one."""
        turned = self.rotation.T / self.scale
        return Similarity(1 / self.scale, self.rotation.T, -turned @ self.translation)


def umeyama(points: np.ndarray, targets: np.ndarray, scale: bool = True) -> Similarity:
    """The least-squares similarity from points to their targets (Umeyama, 1991).

    Args:
        points: (N, 3).
        targets: (N, 3), row by row.
        scale: whether it may change the size.
    """
    centre, target_centre = points.mean(axis=0), targets.mean(axis=0)
    centred, target_centred = points - centre, targets - target_centre
    left, singular, right = np.linalg.svd(target_centred.T @ centred)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    spread = float((centred**2).sum())
    size = float(singular @ signs) / spread if scale and spread > 0 else 1.0
    return Similarity(size, rotation, target_centre - size * rotation @ centre)
