"""A shuffled order of the samples of shards, in which each shard is still read in one go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from datamodules.sampler import EpochSampler, Place
from datamodules.sharding.shards import ShardedSamples

WINDOW = 2
"""A stream's consecutive samples are shuffled in windows, each as long as this many shards."""


class ShardSampler(EpochSampler):
    """(epoch, index) for `SeededSamples`, in an order that is a function of (seed, epoch, streams) alone.

    The shards are shuffled and cut into `streams` equal streams. Each stream's samples are shuffled in windows as long
    as `WINDOW` shards, and the order takes one sample of each stream in turn. So a stream reads two or three shards at
    a time. If the number of processes divides `streams`, every process has streams, and so shards, of its own. Samples
    that cannot be divided evenly among the streams, fewer than there are streams, come last.

    No list here is as long as the data set: a window of every stream is drawn when it is needed, and a resumed epoch
    begins at its window. A data set that fits into one window of every stream is shuffled as a whole, by
    `EpochSampler`.

    Args:
        samples: in shards.
        seed: beside the epoch.
        streams: a multiple of the number of processes, if each is to read shards that no other one reads.
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
