"""The order of samples on one or many processes, from the start or from the middle of an epoch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from renderers.io.errors import UserError

T = TypeVar("T")
Place = tuple[int, int]
"""(number of the process from 0, number of processes)."""


def this_place() -> Place:
    """This process's place among those that train together; (0, 1) if it trains alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _place_for(samples: Sized, what: str, place: Place | None) -> Place:
    """The process's place, after a check that there is a sample for each process.

    Raises:
        UserError: there are fewer samples than processes.
    """
    rank, world = this_place() if place is None else place
    if len(samples) < world:
        raise UserError(f"{len(samples)} samples {what} on {world} processes: use fewer (--trainer.devices)")
    return rank, world


def share_of_batch(batch_size: int, processes: int) -> int:
    """The number of a step's samples on each process, where all processes together have `batch_size`.

    Raises:
        UserError: the processes cannot have equal shares.
    """
    if batch_size % processes:
        fewer = max(count for count in range(1, processes) if batch_size % count == 0)
        raise UserError(
            f"batch_size {batch_size} is that of all processes together and cannot be divided among {processes}: "
            f"train on {fewer} (--trainer.devices), or give a multiple of {processes} and a learning rate for it"
        )
    return batch_size // processes


def run_seed() -> int:
    """The seed of this run (`seed_everything`), which Lightning stores in the environment; 0 outside a run."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class EpochSampler(DistributedSampler[int]):
    """Training samples in an order that is a function of (seed, epoch) alone.

    Process r of P sees every P-th sample of that order, from the r-th on. So P processes with batches of B/P see the
    same samples in step k as one process with batches of B. If P does not divide the number of samples, the order's
    last ones are left out, fewer than P and others in every epoch, so that all processes see equally many.

    It is a `DistributedSampler` so that Lightning does not replace it.

    Attributes:
        skipped: number of this process's samples that are skipped at the start of the epoch, because they were seen.

    Raises:
        UserError: there are fewer samples than processes.
    """

    def __init__(self, samples: Sized, seed: int, place: Place | None = None) -> None:
        rank, world = _place_for(samples, "to train", place)
        super().__init__(samples, world, rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.count, self.skipped = len(samples), 0

    def __len__(self) -> int:
        return self.count // self.num_replicas

    def order(self) -> np.ndarray:
        """(samples,) of this epoch, for all processes."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.count)

    def __iter__(self) -> Iterator[int]:
        own = self.order()[: len(self) * self.num_replicas][self.rank :: self.num_replicas]
        return iter(own[self.skipped :].tolist())


class EvaluationSampler(DistributedSampler[int]):
    """Every sample once, in order. Many processes get whole batches in turn.

    Lightning's own sampler repeats samples until all processes have the same number, so that some count twice. Here one
    process may have a batch more than another. Each batch is the same as on one process, so random draws for a batch
    stay the same. Batches are only divided if there are fewer of them than processes.

    Raises:
        UserError: there are fewer samples than processes.
    """

    def __init__(self, samples: Sized, batch_size: int, place: Place | None = None) -> None:
        rank, world = _place_for(samples, "to evaluate", place)
        super().__init__(samples, world, rank, shuffle=False)  # type: ignore[arg-type]
        chunk = min(batch_size, len(samples) // world)
        starts = range(rank * chunk, len(samples), world * chunk)
        self.own = [index for start in starts for index in range(start, min(start + chunk, len(samples)))]

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own)


class SeededSamples(Dataset[T], Generic[T]):
    """A data set whose samples draw random numbers from torch's generator: sample i of epoch e always draws the same.

    The draws depend neither on the process that reads the sample nor on earlier samples. `SeededSampler` gives indices
    with their epoch. An index beyond the data set's length repeats a sample with new draws.

    Args:
        samples: the data set.
        seed: of the draws, together with epoch and index.
    """

    def __init__(self, samples: Dataset[T], seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, place: tuple[int, int]) -> T:
        epoch, index = place
        state = torch.get_rng_state()
        try:
            drawn = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]
            torch.default_generator.manual_seed(int(drawn >> np.uint64(1)))
            return self.samples[index % len(self)]
        finally:
            torch.set_rng_state(state)


class SeededSampler(EpochSampler):
    """`EpochSampler` for `SeededSamples`: yields (epoch, index)."""

    def __iter__(self) -> Iterator[Any]:
        return ((self.epoch, index) for index in super().__iter__())


class MixedSampler(SeededSampler):
    """`SeededSampler` of several data sets in a row, each of which has a share of every epoch.

    An epoch has as many samples as all data sets together. A data set that is larger than its share shows other samples
    in every epoch. A smaller one repeats its samples, by indices that `SeededSamples` knows as repeats.

    Args:
        samples: all data sets, joined.
        sizes: number of samples of each data set.
        shares: of each data set, as proportions; 0 leaves it out.
        seed: of the order, together with the epoch.
        place: of this process; by default that of torch.distributed.

    Raises:
        UserError: the shares are not one number of at least 0 for each data set, all are 0, or a data set without
            samples has a share.
    """

    def __init__(
        self, samples: Sized, sizes: Sequence[int], shares: Sequence[float], seed: int, place: Place | None = None
    ) -> None:
        super().__init__(samples, seed, place)
        given = np.array(shares, dtype=np.float64)
        if len(given) != len(sizes) or not np.isfinite(given).all() or given.min() < 0 or not given.sum():
            raise UserError(f"shares {list(shares)}: expected one of at least 0 for each of {len(sizes)} data sets")
        if any(share and not size for share, size in zip(given, sizes, strict=True)):
            raise UserError(f"shares {list(shares)}: a data set without samples has one, of the sizes {list(sizes)}")
        self.sizes = list(sizes)
        exact = given / given.sum() * self.count
        self.counts = np.floor(exact).astype(int)
        # Samples left over by rounding go to the data sets with the largest remainders.
        self.counts[np.argsort(self.counts - exact, kind="stable")[: self.count - self.counts.sum()]] += 1

    def order(self) -> np.ndarray:
        draw = np.random.default_rng([self.seed, self.epoch])
        chosen = [np.empty(0, dtype=np.int64)]
        starts = np.cumsum([0, *self.sizes])
        for start, size, count in zip(starts, self.sizes, self.counts, strict=False):
            for turn, taken in enumerate(range(0, count, max(size, 1))):
                chosen.append(start + turn * self.count + draw.permutation(size)[: count - taken])
        return draw.permutation(np.concatenate(chosen))


class ResumableLoader(DataLoader[T]):
    """A `DataLoader` that can go on in the middle of an epoch; Lightning keeps its state in checkpoints.

    It reads nothing before the first batch is asked for, because only then the sampler knows the epoch.
    """

    _given = 0
    _resumed: Mapping[str, int] | None = None

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        order, resumed = self.sampler, self._resumed
        self._given, self._resumed = 0, None
        assert self.batch_size is not None
        if isinstance(order, EpochSampler):  # With --trainer.overfit_batches Lightning has replaced it.
            order.skipped = 0
            if resumed is not None and resumed["epoch"] == order.epoch:
                # If the number of processes or the batch size has changed, go back to the nearest whole batch.
                seen = resumed["batches"] * resumed["samples"]
                self._given = min(seen // (self.batch_size * order.num_replicas), len(self))
                order.skipped = self._given * self.batch_size
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the number of its batches given so far, and the number of samples of a batch on all processes."""
        order = self.sampler
        assert self.batch_size is not None
        if not isinstance(order, EpochSampler):
            return {"epoch": -1, "batches": 0, "samples": 0}
        return {"epoch": order.epoch, "batches": self._given, "samples": self.batch_size * order.num_replicas}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next pass over the epoch of `state` begin where `state` ended."""
        self._resumed = dict(state)


def training_loader(dataset: Dataset[T], sampler: EpochSampler, batch_size: int, **options: Any) -> ResumableLoader[T]:
    """Shuffled batches of this process. A last batch that is not full is left out, unless it is the only one.

    An epoch has the same number of steps on any number of processes.

    Args:
        dataset: of samples.
        sampler: the samples' order.
        batch_size: samples of a step, of all processes together.
        options: further arguments of `DataLoader`.

    Raises:
        UserError: the processes cannot have equal shares of a batch.
    """
    batch_size = share_of_batch(batch_size, sampler.num_replicas)
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) >= batch_size,
        # Loader processes get their seeds from this generator, not from torch's own, which training draws from.
        generator=torch.Generator().manual_seed(sampler.seed),
        worker_init_fn=_ignore_interrupts,
        **options,
    )


def evaluation_loader(dataset: Dataset[T], batch_size: int, **options: Any) -> DataLoader[T]:
    """Batches of an `EvaluationSampler`, each whole on one process; the arguments are those of `training_loader`."""
    sampler = EvaluationSampler(dataset, batch_size)  # type: ignore[arg-type]
    # As in `training_loader`. A resumed run starts loader processes once more, which would draw one more seed.
    generator = torch.Generator().manual_seed(sampler.seed)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        generator=generator,
        worker_init_fn=_ignore_interrupts,
        **options,
    )


def _ignore_interrupts(_: int) -> None:
    """Let loader processes ignore Ctrl-C: the trainer handles it, and may still need a batch from them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
