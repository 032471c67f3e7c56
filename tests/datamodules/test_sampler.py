"""Orders that depend on nothing but (seed, epoch), shares that neither overlap nor lose, loaders that go on."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.sampler import (
    EpochSampler,
    EvaluationSampler,
    MixedSampler,
    ResumableLoader,
    SeededSampler,
    SeededSamples,
    evaluation_loader,
    training_loader,
)
from renderers.io.errors import UserError


class Numbers(Dataset[Tensor]):
    """Sample i is i, and a random number beside it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([torch.tensor(float(index)), torch.rand(())])


def order(count: int, seed: int = 0, epoch: int = 0, place: tuple[int, int] = (0, 1)) -> list[int]:
    sampler = EpochSampler(range(count), seed, place)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    first = order(50, 1, 2)
    torch.manual_seed(5)
    assert order(50, 1, 2) == first
    assert sorted(first) == list(range(50))
    # (1, 2) and (2, 1) are two orders: the seeds of a table share none.
    others = [order(50, *place) for place in ((2, 1), (1, 3), (0, 2), (0, 0))]
    assert all(other != first for other in others)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))
def test_processes_share_a_step(count: int, world: int, batch: int) -> None:
    """Step k of P processes shows what step k of one shows; what is left over is fewer than P samples."""
    if count < world:
        with pytest.raises(UserError, match=f"{count} samples to train on {world} processes"):
            EpochSampler(range(count), 0, (0, world))
        return
    shares = [order(count, place=(rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {count // world}
    alone = order(count)
    for start in range(0, count // world, batch):
        together = [index for share in shares for index in share[start : start + batch]]
        assert sorted(together) == sorted(alone[start * world : start * world + len(together)])
        assert len(together) == len(set(together))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 8))
def test_evaluation_counts_every_sample_once(count: int, world: int, batch: int) -> None:
    if count < world:
        with pytest.raises(UserError, match=f"{count} samples to evaluate on {world} processes"):
            EvaluationSampler(range(count), batch, (0, world))
        return
    samplers = [EvaluationSampler(range(count), batch, (rank, world)) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    assert all(shares)  # a process without a batch would leave the others waiting
    if -(-count // batch) >= world and batch <= count // world:
        batches = {tuple(share[i : i + batch]) for share in shares for i in range(0, len(share), batch)}
        assert batches == {tuple(range(i, min(i + batch, count))) for i in range(0, count, batch)}


def loader(count: int = 11, workers: int = 0, seed: int = 3) -> ResumableLoader[Tensor]:
    samples = Numbers(count)
    options = {"persistent_workers": workers > 0, "num_workers": workers}
    return training_loader(SeededSamples(samples, seed), SeededSampler(samples, seed), 2, **options)


def epoch_of(made: ResumableLoader[Tensor], epoch: int) -> list[Tensor]:
    made.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(made)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_where_it_was(workers: int) -> None:
    """Samples and what they draw at random; whichever process reads them, and however far it reads ahead."""
    plain = loader()
    expected = [epoch_of(plain, epoch) for epoch in range(3)]
    assert len(expected[0]) == 5
    started = loader(workers=workers)
    started.sampler.set_epoch(1)  # type: ignore[attr-defined]
    seen = list(islice(iter(started), 3))
    state = started.state_dict()
    assert state == {"epoch": 1, "batches": 3, "samples": 2}
    torch.manual_seed(99)
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    rest = epoch_of(resumed, 1)
    for mine, its in zip(seen + rest, expected[1], strict=True):
        assert torch.equal(mine, its)
    for mine, its in zip(epoch_of(resumed, 2), expected[2], strict=True):
        assert torch.equal(mine, its)
    assert len(resumed) == 5  # Lightning counts on all of them


def test_an_epoch_that_was_seen_is_not_gone_on_with() -> None:
    whole, resumed = loader(), loader()
    resumed.load_state_dict({"epoch": 0, "batches": 5, "samples": 2})
    assert all(torch.equal(*pair) for pair in zip(epoch_of(resumed, 1), epoch_of(whole, 1), strict=True))


def test_samples_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(())
    torch.manual_seed(1)
    batches = epoch_of(loader(), 0)
    assert torch.equal(torch.rand(()), expected)
    drawn = torch.cat(batches)[:, 1]
    assert len(drawn.unique()) == len(drawn)
    assert not torch.equal(drawn, torch.cat(epoch_of(loader(seed=4), 0))[:, 1])


def test_a_last_batch_that_is_not_full() -> None:
    samples = Numbers(5)
    assert [len(batch) for batch in training_loader(samples, EpochSampler(samples, 0), 2)] == [2, 2]
    assert [len(batch) for batch in training_loader(samples, EpochSampler(samples, 0), 8)] == [5]
    batches = list(evaluation_loader(samples, 2))
    assert [batch[:, 0].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def mixed(shares: list[float], sizes: tuple[int, ...] = (30, 6, 4), place: tuple[int, int] = (0, 1)) -> MixedSampler:
    return MixedSampler(range(sum(sizes)), sizes, shares, 5, place)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0, 9)), min_size=1, max_size=4).filter(
        lambda pairs: sum(share for _, share in pairs) > 0.1
    )
)
def test_shares_of_an_epoch(pairs: list[tuple[int, float]]) -> None:
    """Within one sample of what was asked; a data set is shown whole before any of its samples comes again."""
    sizes, shares = [size for size, _ in pairs], [share for _, share in pairs]
    total = sum(sizes)
    seen = [index for _, index in MixedSampler(range(total), sizes, shares, 0, (0, 1))]
    assert len(seen) == len(set(seen)) == total  # a repeat has a number of its own
    start = 0
    for size, share in pairs:
        own = [index % total for index in seen if start <= index % total < start + size]
        assert abs(len(own) - total * share / sum(shares)) < 1 + 1e-6
        times = [own.count(sample) for sample in range(start, start + size)]
        assert max(times) - min(times) <= 1
        start += size


def test_a_mix_is_a_function_of_seed_and_epoch_and_divided_among_processes() -> None:
    alone = mixed([1, 1, 2])
    first = list(alone)
    assert list(mixed([1, 1, 2])) == first
    alone.set_epoch(1)
    assert sorted(alone) != sorted((1, index) for _, index in first)
    for world in (2, 4):
        shares = [list(mixed([1, 1, 2], place=(rank, world))) for rank in range(world)]
        assert [pair for step in zip(*shares, strict=True) for pair in step] == first
    assert {index % 40 < 30 for _, index in mixed([0, 1, 1])} == {False}


def test_a_mix_goes_on_where_it_was_and_a_repeat_draws_anew() -> None:
    samples = Numbers(40)

    def made() -> ResumableLoader[Tensor]:
        return training_loader(SeededSamples(samples, 3), mixed([1, 1, 2]), 4)

    whole = epoch_of(made(), 1)
    started = made()
    started.sampler.set_epoch(1)  # type: ignore[attr-defined]
    seen = list(islice(iter(started), 3))
    resumed = made()
    resumed.load_state_dict(started.state_dict())
    assert all(torch.equal(*pair) for pair in zip(seen + epoch_of(resumed, 1), whole, strict=True))
    rows = torch.cat(whole)
    again = rows[rows[:, 0] == 39]
    assert len(again) == 5 and len(again[:, 1].unique()) == 5  # 20 of 40 samples are those of the last 4


@pytest.mark.parametrize("shares", [[1.0], [1, -1, 1], [0, 0, 0], [1, float("nan"), 1]])
def test_shares_that_are_none(shares: list[float]) -> None:
    with pytest.raises(UserError, match="expected one of at least 0 for each of 3 data sets"):
        mixed(shares)


def test_a_share_of_nothing() -> None:
    with pytest.raises(UserError, match="a data set without samples has one"):
        mixed([1, 1, 1], (30, 10, 0))
