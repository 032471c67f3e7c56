"""Random numbers from a generator that may live on another device, and what every corruption returns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Corrupted(NamedTuple):
    """B pictures and where they were altered.

    Attributes:
        image: (B, 3, H, W) in [0, 1]; bit-equal to the clean picture outside the mask.
        mask: (B, 1, H, W) bool, the altered pixels.
    """

    image: Tensor
    mask: Tensor


class Draws:
    """Random numbers, drawn on the generator's device and moved to another: a seed gives the same on every device.

    Args:
        generator: torch's own one on the CPU where absent.
        device: where the numbers are used.
    """

    def __init__(self, generator: torch.Generator | None, device: torch.device) -> None:
        self.generator, self.device = generator, device
        self._source = torch.device("cpu") if generator is None else generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers of that shape, evenly from [low, high)."""
        drawn = torch.rand(shape, generator=self.generator, device=self._source)
        return drawn.to(self.device) * (high - low) + low

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Numbers whose logarithms are even in [log low, log high)."""
        return low * (high / low) ** self.uniform(*shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of that shape."""
        return torch.randn(shape, generator=self.generator, device=self._source).to(self.device)

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        """Whole numbers of that shape, evenly from low to high - 1."""
        return torch.randint(low, high, shape, generator=self.generator, device=self._source).to(self.device)
