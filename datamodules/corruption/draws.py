"""Random numbers from a generator on any device, and the result type of all corruptions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Corrupted(NamedTuple):
    """B altered pictures.

    Attributes:
        image: (B, 3, H, W) in [0, 1]; equal to the clean picture, bit by bit, outside the mask.
        mask: (B, 1, H, W) bool, the altered pixels.
    """

    image: Tensor
    mask: Tensor


class Draws:
    """Random numbers, drawn on the generator's device and then moved, so that a seed gives the same on every device.

    Args:
        generator: by default torch's own on the CPU.
        device: where the numbers are used.
    """

    def __init__(self, generator: torch.Generator | None, device: torch.device) -> None:
        self.generator, self.device = generator, device
        self._source = torch.device("cpu") if generator is None else generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers of that shape, uniform in [low, high)."""
        drawn = torch.rand(shape, generator=self.generator, device=self._source)
        return drawn.to(self.device) * (high - low) + low

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Numbers of that shape, whose logarithms are uniform in [log low, log high)."""
        return low * (high / low) ** self.uniform(*shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of that shape."""
        return torch.randn(shape, generator=self.generator, device=self._source).to(self.device)

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        """Whole numbers of that shape, uniform from low to high - 1."""
        return torch.randint(low, high, shape, generator=self.generator, device=self._source).to(self.device)
