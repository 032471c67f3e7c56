"""Small constant tensors, cached on each device."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor) -> Tensor:
    """The numbers on `like`'s device, of its dtype.

    Cached: a copy from the host synchronises the GPU, and cannot be part of a CUDA graph.

    Args:
        values: a tuple of numbers, or of such tuples of one length.
        like: any tensor.

    Returns:
        A shared tensor: never write into it.
    """
    return _made(values, like.dtype, like.device)


@lru_cache(maxsize=256)  # photographs' sizes are among them
def _made(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A tensor that is made in inference mode cannot be used in training afterwards.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
