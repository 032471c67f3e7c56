"""The state of every source of random numbers that training draws from, as a checkpoint keeps it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from renderers.io.errors import UserError

RANDOM_KEY = "monoface_random"
"""Where a checkpoint keeps a list of `RandomState`, one of each process."""

WORDS = 624  # of the Mersenne Twister

RandomState = dict[str, Any]
"""Of tensors, numbers and text alone: what torch reads without unpickling."""


def random_state() -> RandomState:
    """Of torch, its CUDA devices, NumPy and Python, in this process."""
    # Nothing here draws from NumPy's own generator; a library may.
    name, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, torch.as_tensor(np.asarray(key, dtype=np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore_random_state(state: RandomState) -> None:
    """Draws go on from there; the state of CUDA only on as many devices as it was taken on.

    Raises:
        UserError: it is no such state.
    """
    try:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        name, key, position, has_gauss, gauss = state["numpy"]
        # NumPy believes what it is told, and would draw from beyond its words.
        if type(position) is not int or not 0 <= position <= WORDS or has_gauss not in (0, 1):
            raise ValueError
        if key.shape != (WORDS,) or key.dtype != torch.int64 or type(gauss) is not float:
            raise ValueError
        np.random.set_state((name, key.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
        random.setstate(state["python"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"its random state cannot be read ({type(error).__name__})"
        raise UserError(f"the checkpoint to go on from is damaged: {reason}") from error


def part_random_state(rank: int) -> None:
    """Another stream than the other processes', which had the same state until now."""
    seed = int(torch.randint(2**31, ()))
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002
    random.seed(int(words[2]))


def gathered_random_states(trainer: Trainer) -> list[RandomState]:
    """The state of every process by rank, in all of them; every process takes part."""
    own = random_state()
    if trainer.world_size == 1:
        return [own]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, own)
    return states
