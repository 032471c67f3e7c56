"""Sums and weights over the processes of a distributed run, so that it learns what one process would."""

from __future__ import annotations

import torch
import torch.distributed as distributed
from torch import Tensor


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's value, in all of them; the value itself where there is one. Without a gradient.

    Every process has to call it, with the same shape.
    """
    if process_count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def process_weights(counts: Tensor) -> Tensor:
    """What this process's means have to be multiplied by, for the mean over the processes to be that over all samples.

    DDP averages the gradients of all processes alike, even if one has fewer samples than another.

    Args:
        counts: (N,) how many samples each of N means is taken over here.

    Returns:
        (N,) the number of processes times this one's share of the samples; 1 where there are none at all.
    """
    total = summed_over_processes(counts)
    return torch.where(total > 0, process_count() * counts / total.clamp_min(1), torch.ones_like(counts))
