"""Adam on one tensor. PyTorch's own imports its compiler first, which takes a seventh of the time of one photograph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DECAYS = (0.9, 0.999)
EPSILON = 1e-8
RISE = 0.2  # share of the steps in which the rate rises
FIRST = 1 / 25  # of the rate, at the first step


class Adam:
    """Algorithm 1 of Kingma and Ba (2015), with a rate that rises and falls along half cosines (Smith and Topin 2018).

    Args:
        parameter: what is optimized, in units of the rate: no step is much longer than 1.
        steps: how many there will be.
    """

    def __init__(self, parameter: Tensor, steps: int) -> None:
        self.parameter, self.steps, self.step_count = parameter, steps, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def rate(self) -> float:
        """The length of the next step, between 0 and 1."""
        top = RISE * (self.steps + 1) - 1
        if self.step_count < top:
            return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * self.step_count / top)) / 2
        return (1 + math.cos(math.pi * (self.step_count - top) / (self.steps - top))) / 2

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Moves the parameter against its gradient."""
        rate = self.rate()
        self.step_count += 1
        self.mean.lerp_(gradient, 1 - DECAYS[0])
        self.square.lerp_(gradient.square(), 1 - DECAYS[1])
        first, second = (1 - decay**self.step_count for decay in DECAYS)
        self.parameter -= rate * (self.mean / first) / ((self.square / second).sqrt() + EPSILON)
