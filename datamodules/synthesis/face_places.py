"""Places of a UV chart's texels on the skin: coordinates for all that formulas paint or carve there."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from renderers.face_models.base import MorphableModel
from renderers.face_models.default.regions import polygon_distance, smooth_curve
from renderers.uv.chart import UVChart

WAVES = 24  # of each noise
WAVELENGTHS = {"fine": 0.045, "medium": 0.13, "soft": 0.24, "broad": 0.40}  # decimetres
FRONT = -0.45  # decimetres; neck, ears and scalp lie behind this z
SPOT_REACH = 1.7  # radii from a spot's centre where it has faded to 0


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, and smooth between them; it falls if `low` exceeds `high`."""
    share = np.minimum(np.maximum((values - low) * (1 / (high - low)), 0), 1)
    return np.asarray(share * share * (3 - 2 * share))


def bell(values: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian of height 1 and deviation `width`."""
    return np.asarray(np.exp(-0.5 * np.square(values / width)))


class FacePlaces:
    """The N texels of a chart that show skin or lips, with their places on the mean face in decimetres.

    It works for every face model with 68 landmarks, the region `skin` and a UV chart.

    Attributes (float32):
        points: (N, 3) model space.
        skin: (N,) in (0, 1], below 1 on triangles that join skin to an eyeball or the inner mouth.
        mark: (68, 3) the landmarks.
        lips, eyes: (N,) signed distance to the outlines of the lips and of the nearer eye in the frontal plane,
            positive inside.
        front: (N,) 1 on the face's front, 0 on neck, ears and scalp.
    """

    def __init__(self, face_model: MorphableModel, chart: UVChart) -> None:
        self.size = chart.size
        skin = torch.zeros(face_model.vertex_count, 1)
        skin[face_model.regions["skin"]] = 1
        baked = chart.bake(torch.cat([face_model.mean_shape, skin], dim=-1)[None])[0].flatten(1).T
        self.texels = torch.nonzero(baked[:, 3] > 0)[:, 0]
        described = baked[self.texels].numpy()
        self.points, self.skin = described[:, :3], described[:, 3]
        self.mark = face_model.mean_shape[face_model.landmark_indices].numpy()
        plane, mark = self.points[:, :2], self.mark[:, :2]
        self.front = smoothstep(self.points[:, 2], FRONT, FRONT + 0.2)
        self.lips = polygon_distance(plane, smooth_curve(mark[48:60], closed=True)).astype(np.float32)
        eyes = [polygon_distance(plane, smooth_curve(mark[first : first + 6], closed=True)) for first in (36, 42)]
        self.eyes = np.maximum(*eyes).astype(np.float32)
        self._tree = cKDTree(self.points)
        self._waves = {name: self._bank(length) for name, length in WAVELENGTHS.items()}

    def __len__(self) -> int:
        return len(self.points)

    def _bank(self, wavelength: float) -> np.ndarray:
        """(2 WAVES, N) float32: the same plane waves for everybody, isotropic and about `wavelength` long."""
        generator = np.random.Generator(np.random.PCG64(round(1000 * wavelength)))
        waves = generator.standard_normal((WAVES, 3))
        waves /= np.linalg.norm(waves, axis=1, keepdims=True)
        phase = (2 * math.pi / wavelength * generator.uniform(0.75, 1.33, (WAVES, 1)) * waves) @ self.points.T
        return (np.concatenate([np.cos(phase), np.sin(phase)]) / math.sqrt(WAVES)).astype(np.float32)

    def noise(self, generator: np.random.Generator, band: str) -> np.ndarray:
        """(N,) a smooth Gaussian field of unit deviation; `band` is one of `WAVELENGTHS`."""
        return self.noises(generator, band, 1)[0]

    def noises(self, generator: np.random.Generator, band: str, count: int) -> np.ndarray:
        """(count, N) independent fields, which cost hardly more than one."""
        waves = self._waves[band]
        return np.asarray(generator.standard_normal((count, len(waves)), dtype=np.float32) @ waves)

    def scatter(self, generator: np.random.Generator, count: int, weight: np.ndarray) -> np.ndarray:
        """(count, 3) places drawn with probability in proportion to `weight` (N,)."""
        cumulated = np.cumsum(weight, dtype=np.float64)
        chosen = np.searchsorted(cumulated, generator.uniform(0, cumulated[-1], size=count))
        return np.asarray(self.points[chosen] + generator.normal(0, 0.008, size=(count, 3)))

    def spots(self, centres: np.ndarray, radii: np.ndarray, strength: np.ndarray, ragged: np.ndarray) -> np.ndarray:
        """(N,) the strongest spot at each texel, 0 between them.

        Args:
            centres: (S, 3) decimetres.
            radii: (S,) decimetres, where a spot has half its strength.
            strength: (S,).
            ragged: (N,) noise of unit deviation that makes the outlines uneven.
        """
        painted = np.zeros(len(self), dtype=np.float32)
        found = self._tree.query_ball_point(centres, 2 * radii)
        owner = np.repeat(np.arange(len(centres)), [len(near) for near in found])
        texels = np.concatenate([np.asarray(near, dtype=np.int64) for near in found])
        distance = np.linalg.norm(self.points[texels] - centres[owner], axis=1) / radii[owner]
        distance *= 1 + 0.15 * ragged[texels]
        np.maximum.at(painted, texels, strength[owner] * smoothstep(distance, SPOT_REACH, 2 - SPOT_REACH))
        return painted

    def to_map(self, values: np.ndarray) -> Tensor:
        """(N, C) float32 -> (C, R, R), 0 on every other texel."""
        painted = torch.zeros(values.shape[1], self.size * self.size)
        painted[:, self.texels] = torch.from_numpy(values).T
        return painted.unflatten(1, (self.size, self.size))
