"""Synthetic faces whose landmarks are as wrong as a detector's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.batch import MultiViewBatch
from datamodules.synthesis.landmark_noise import measured_noise, upright
from renderers.coefficients import CoefficientLayout

STREAM = 9  # of the random numbers of one face


class DetectedLandmarks(Dataset[MultiViewBatch]):
    """The same faces with dlib's measured bias and noise added to their landmarks; the truth stays exact.

    The noise of item `index` is a function of (key, index) alone: a detector makes the same error every time.

    Args:
        faces: whose `__getitems__` makes one batch of several faces.
        layout: of the truth's coefficients.
        strength: 1 as dlib's errors were measured, 0.5 for half of each error.
        key: the seed and the number of the split.
    """

    def __init__(
        self, faces: Dataset[MultiViewBatch], layout: CoefficientLayout, strength: float, key: Sequence[int]
    ) -> None:
        self.faces, self.layout, self.strength, self.key = faces, layout, strength, tuple(key)
        self.noise = measured_noise()
        self.root = torch.linalg.cholesky(self.noise.covariance.double()).float()

    def __len__(self) -> int:
        return len(self.faces)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> MultiViewBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> MultiViewBatch:
        faces: Any = self.faces
        batch: MultiViewBatch = faces.__getitems__(indices)
        views, points = len(batch) // len(indices), batch.landmarks.shape[1]
        generators = [np.random.default_rng([*self.key, index, STREAM]) for index in indices]
        drawn = np.concatenate([generator.standard_normal((views, 2 * points)) for generator in generators])
        return replace(batch, landmarks=batch.landmarks + self._errors(batch, torch.from_numpy(drawn).float()))

    def _errors(self, batch: MultiViewBatch, drawn: Tensor) -> Tensor:
        """(B, 68, 2) pixels, from independent standard normal numbers (B, 136)."""
        assert batch.truth is not None
        angles = self.layout.split(batch.truth.coefficients).angles
        errors = self.noise.mean(angles[:, 1]) + (drawn @ self.root.T).unflatten(1, (-1, 2))
        box = (batch.landmarks.amax(dim=1) - batch.landmarks.amin(dim=1)).prod(dim=1).sqrt()
        # `upright` turns errors of the picture into the frame of the upright face; here they go back.
        return self.strength * box[:, None, None] * upright(errors, -angles[:, 2])
