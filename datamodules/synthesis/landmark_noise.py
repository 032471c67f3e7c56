"""How a detector's landmarks differ from a face model's: a bias that depends on yaw, and a full covariance.

`python -m experiments.fitting.landmark_noise` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from renderers.io.npz_file import read_npz
from renderers.landmarks68 import MIRROR

FILE = Path(__file__).with_name("landmark_noise.npz")
FLOOR = 1e-3  # share of the box; what is added to every deviation, so that no direction is trusted blindly


@dataclass(frozen=True)
class LandmarkNoise:
    """A detector's errors, in units of sqrt(w h) of the landmarks' box, x to the face's left and y down.

    Attributes:
        bias: (3, 68, 2) the mean error is its combination with 1, sin(yaw) and sin(yaw)^2.
        covariance: (136, 136) about that mean, x and y of each point in turn.
    """

    bias: Tensor
    covariance: Tensor

    @classmethod
    def even(cls, deviation: float) -> LandmarkNoise:
        """The same independent noise for all points, for a detector whose errors nobody has measured."""
        return cls(torch.zeros(3, 68, 2), deviation**2 * torch.eye(136))

    def to(self, like: Tensor) -> LandmarkNoise:
        """On the device and in the precision of `like`."""
        return LandmarkNoise(self.bias.to(like), self.covariance.to(like))

    def mean(self, yaw: Tensor) -> Tensor:
        """(B,) radians -> (B, 68, 2)"""
        return torch.einsum("bk,knc->bnc", features(yaw).to(self.bias), self.bias)


def features(yaw: Tensor) -> Tensor:
    """(B,) radians -> (B, 3), what the bias is linear in."""
    return torch.stack([torch.ones_like(yaw), yaw.sin(), yaw.sin().square()], dim=-1)


@cache
def measured_noise() -> LandmarkNoise:
    """What `landmark_noise.npz` holds of dlib."""
    arrays = read_npz(FILE)
    return LandmarkNoise(torch.from_numpy(arrays["bias"]), torch.from_numpy(arrays["covariance"]))


def upright(offsets: Tensor, roll: Tensor) -> Tensor:
    """(B, 68, 2) offsets in the image, turned as if the face had no roll (B,) radians."""
    cos, sin = roll.cos()[:, None], roll.sin()[:, None]
    x, y = offsets.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


def noise_of(errors: Tensor, yaw: Tensor) -> LandmarkNoise:
    """Bias and covariance of errors (N, 68, 2) at yaws (N,) radians; every face counts with its mirror image."""
    mirrored = errors[:, MIRROR] * errors.new_tensor([-1.0, 1.0])
    both, angles = torch.cat([errors, mirrored]).flatten(1).double(), torch.cat([yaw, -yaw]).double()
    design = features(angles)
    bias = torch.linalg.lstsq(design, both).solution
    left = both - design @ bias
    covariance = left.T @ left / (len(left) - 1) + FLOOR**2 * torch.eye(136, dtype=torch.float64)
    return LandmarkNoise(bias.unflatten(1, (68, 2)).float(), covariance.float())
