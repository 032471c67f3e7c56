"""The order in which the samples of shards are trained on: shuffled, and yet each shard is read at one time only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from datamodules.sampler import EpochSampler, Place
from datamodules.sharding.shards import ShardedSamples

WINDOW = 2
"""Shards' worth of a stream's samples that are shuffled together."""


class ShardSampler(EpochSampler):
    """(epoch, index) for `SeededSamples`, in an order that is a function of (seed, epoch, streams) alone.

    The shards are shuffled and cut into `streams` equal streams. Within each of them every `WINDOW` shards' worth of
    consecutive samples are shuffled, and the order takes one sample of each stream in turn. So a stream reads two or
    three shards at a time, and where the number of processes divides `streams`, every process reads streams, and so
    shards, of its own. Samples that the streams cannot share evenly, fewer than there are streams, come last.

    Nothing here is as long as the data set: a window of every stream is drawn when it is needed, and going on in the
    middle of an epoch begins at its window. A data set of no more than one window of every stream is shuffled as a
    whole, by the order of `EpochSampler`.

    Args:
        samples: in shards.
        seed: beside the epoch.
        streams: a multiple of the number of processes, for each to read what no other one reads.
        place: of this process; by default what torch.distributed says.

    Raises:
        UserError: there are fewer samples than processes.
    """

    def __init__(self, samples: ShardedSamples, seed: int, streams: int, place: Place | None = None) -> None:
        super().__init__(samples, seed, place)
        self.sizes, self.streams = samples.sizes, streams
        self.window = WINDOW * int(self.sizes.max())

    def __iter__(self) -> Iterator[Any]:
        if self.count <= self.streams * self.window:
            return ((self.epoch, index) for index in super().__iter__())
        return ((self.epoch, index) for index in self._woven())

    def _woven(self) -> Iterator[int]:
        shards = np.random.default_rng([self.seed, self.epoch, 0]).permutation(len(self.sizes))
        ends = self.sizes[shards].cumsum()
        # From a place among the shuffled shards' samples to the sample's number.
        shifts = (self.sizes.cumsum() - self.sizes)[shards] - (ends - self.sizes[shards])
        last = len(self) * self.num_replicas
        place = self.rank + self.skipped * self.num_replicas
        shared, block = self.count // self.streams * self.streams, self.streams * self.window
        while place < last:
            number, start = (place // block, place // block * block) if place < shared else (self._windows, shared)
            drawn = self._block(number)[place - start : last - start : self.num_replicas]
            yield from (drawn + shifts[np.searchsorted(ends, drawn, side="right")]).tolist()
            place += len(drawn) * self.num_replicas

    @property
    def _windows(self) -> int:
        """How many windows each stream has."""
        return -(-(self.count // self.streams) // self.window)

    def _block(self, number: int) -> np.ndarray:
        """A window of every stream, woven: places among the shuffled shards' samples; after the last one, the rest."""
        draw = np.random.default_rng([self.seed, self.epoch, 1 + number])
        length = self.count // self.streams
        if number == self._windows:
            return draw.permutation(np.arange(length * self.streams, self.count))
        window = np.arange(number * self.window, min((number + 1) * self.window, length))
        each = draw.permuted(np.tile(window, (self.streams, 1)), axis=1)
        woven: np.ndarray = (each + length * np.arange(self.streams)[:, None]).T.reshape(-1)
        return woven
