"""Shards as others read them, what happens to damaged ones, and orders that lose nothing and read in sequence."""

from __future__ import annotations

import json
import pickle
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from datamodules.preparation.prepared_folder import PhotoIndex
from datamodules.sampler import EpochSampler, ResumableLoader, SeededSamples, training_loader
from datamodules.sharding.shard_sampler import ShardSampler
from datamodules.sharding.shards import (
    BLOCK,
    ENTRY,
    Sample,
    ShardedSamples,
    ShardFolder,
    is_whole_shard,
    shard_path,
    write_shard,
)
from renderers.io.errors import UserError
from tests.conf.memory import TOLERANCE, growth, resident_megabytes

NONE = {part: ["val", 0] for part in ("train", "val", "test")}


def numbered(count: int, first: int = 0) -> Iterator[Sample]:
    """Sample i holds i, in two members."""
    return ({"number": str(i).encode(), "0.txt": b"x" * (i % 600)} for i in range(first, first + count))


def write_folder(root: Path, count: int, per_shard: int, members: int = 2) -> Path:
    """A folder whose training part has so many numbered samples."""
    folder = ShardFolder(per_shard, {"train": ("train", count), "val": ("val", 0), "test": ("val", 0)}, {}, True)
    for number, size in enumerate(folder.shard_sizes("train")):
        samples = numbered(size, number * per_shard)
        if members == 1:
            samples = ({"number": sample["number"]} for sample in samples)
        write_shard(shard_path(root, "train", number), samples, size, number * per_shard)
    folder.save(root)
    return root


def test_tarfile_reads_what_was_written(tmp_path: Path) -> None:
    write_folder(tmp_path, 7, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shards.json", "train-000000.tar", "train-000001.tar", "train-000002.tar",
    ]  # fmt: skip
    with tarfile.open(tmp_path / "train-000001.tar") as archive:
        names = archive.getnames()
        assert names == ["__index__", *(f"{i:09d}.{end}" for i in (3, 4, 5) for end in ("number", "0.txt"))]
        held = {name: archive.extractfile(name).read() for name in names[1:]}  # type: ignore[union-attr]
    for i, sample in enumerate(numbered(3, 3), start=3):
        for end, content in sample.items():
            assert held[f"{i:09d}.{end}"] == content


def test_samples_come_back_over_several_folders(tmp_path: Path) -> None:
    roots = [write_folder(tmp_path / "a", 7, 3), write_folder(tmp_path / "b", 0, 3), write_folder(tmp_path / "c", 4, 2)]
    samples = ShardedSamples(roots, "train", opened=2)
    assert len(samples) == 11 and samples.sizes.tolist() == [3, 3, 1, 2, 2]
    expected = [*numbered(7), *numbered(4)]
    for index in [*range(11), 0, 10, 5, 3]:
        assert samples[index] == expected[index]
    copy: ShardedSamples = pickle.loads(pickle.dumps(samples))  # as a loader's process gets it
    assert copy[8] == expected[8]
    assert len(ShardedSamples(roots, "val")) == 0


@pytest.mark.parametrize("damage", ["cut off", "a changed byte", "missing", "another one's", "no table"])
def test_damage_is_told_with_the_shards_name(tmp_path: Path, damage: str) -> None:
    write_folder(tmp_path, 6, 3)
    path = tmp_path / "train-000001.tar"
    held = bytearray(path.read_bytes())
    if damage == "cut off":
        path.write_bytes(held[: len(held) // 2])
    elif damage == "a changed byte":
        held[held.index(b"xxxxx") + 2] ^= 1
        path.write_bytes(held)
    elif damage == "missing":
        path.unlink()
    elif damage == "another one's":
        write_shard(path, numbered(2), 2)
    else:
        path.write_bytes(b"not a shard" * 300)
    samples = ShardedSamples([tmp_path], "train")
    assert samples[0]["number"] == b"0"
    with pytest.raises(UserError, match=r"train-000001\.tar.*prepare shards"):
        [samples[index] for index in range(3, 6)]
    assert is_whole_shard(path, 3) == (damage == "a changed byte")


@pytest.mark.parametrize("size", [-BLOCK, -1, 10**10, 2**62])
def test_a_member_of_impossible_size_is_told(tmp_path: Path, size: int) -> None:
    write_folder(tmp_path, 2, 2)
    path = tmp_path / "train-000000.tar"
    held = bytearray(path.read_bytes())
    start = held.index(b"000000000.number")
    forged = tarfile.TarInfo("000000000.number")
    forged.size = size
    # Binary numbers, of any sign, are a custom of GNU's tar.
    held[start : start + BLOCK] = forged.tobuf(tarfile.GNU_FORMAT)
    table = np.frombuffer(bytes(held[BLOCK : BLOCK + 2 * ENTRY.itemsize]), ENTRY).copy()
    offset, length = int(table[0]["offset"]), int(table[0]["bytes"])
    table[0]["checksum"] = zlib.crc32(bytes(held[offset : offset + length]))
    held[BLOCK : BLOCK + table.nbytes] = table.tobytes()
    path.write_bytes(held)
    samples = ShardedSamples([tmp_path], "train")
    with pytest.raises(UserError, match=r"train-000000\.tar: sample 0 of its part is damaged"):
        samples[0]
    assert samples[1]["number"] == b"1"


def test_places_beyond_the_file_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path, 1, 1)
    path = tmp_path / "train-000000.tar"
    held = bytearray(path.read_bytes())
    held[BLOCK : BLOCK + 12] = np.array([2**64 - 600], "<u8").tobytes() + np.array([700], "<u4").tobytes()
    path.write_bytes(held)
    with pytest.raises(UserError, match=r"train-000000\.tar is damaged"):
        ShardedSamples([tmp_path], "train")[0]


def test_half_a_shard_is_never_seen(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield {"number": b"0"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "train-000000.tar", broken(), 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"complete": False}, "not written to the end"),
        ({"version": 9}, "another version"),
        ({"parts": {"train": ["../x", 3]}}, "damaged"),
        ({"samples_per_shard": 0}, "damaged"),
        ({"samples_per_shard": 10**11}, "damaged"),
        ({"parts": {"train": ["train", 10**11], "val": ["val", 0], "test": ["val", 0]}}, "damaged"),
        (
            {"samples_per_shard": 1, "parts": {"train": ["train", 10**8], "val": ["val", 0], "test": ["val", 0]}},
            "damaged",
        ),
        ({"more": 1}, "damaged"),
        ({"samples_per_shard": float("inf")}, "damaged"),
        ({"samples_per_shard": "3"}, "damaged"),
    ],
)
def test_a_folder_that_is_not_one_of_shards(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(UserError, match="is not a folder of shards"):
        ShardedSamples([tmp_path], "train")
    write_folder(tmp_path, 3, 3)
    path = tmp_path / "shards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=said):
        ShardedSamples([tmp_path], "train")


def test_nesting_without_end_is_damage(tmp_path: Path) -> None:
    for name, load in (("shards.json", ShardFolder.load), ("index.json", PhotoIndex.load)):
        (tmp_path / name).write_text("[" * 100_000)
        with pytest.raises(UserError, match="is damaged"):
            load(tmp_path)


class Sizes(ShardedSamples):
    """So many samples in shards of these sizes, without the shards."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = np.array(sizes)
        self.ends = self.sizes.cumsum()


def order(sizes: list[int], streams: int, seed: int = 0, epoch: int = 0, place: tuple[int, int] = (0, 1)) -> list[int]:
    sampler = ShardSampler(Sizes(sizes), seed, streams, place)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert {drawn_epoch for drawn_epoch, _ in drawn} <= {epoch}
    return [index for _, index in drawn]


SHARDS = st.lists(st.integers(1, 6), min_size=1, max_size=30)


@settings(deadline=None)
@given(SHARDS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 3), st.integers(0, 40))
def test_every_sample_once_on_any_number_of_processes(
    sizes: list[int], streams: int, world: int, epoch: int, seen: int
) -> None:
    """What one process sees step by step is what several see together, from the beginning or from anywhere."""
    count = sum(sizes)
    if count < world:
        return
    alone = order(sizes, streams, epoch=epoch)
    assert sorted(alone) == list(range(count))
    shares = [order(sizes, streams, epoch=epoch, place=(rank, world)) for rank in range(world)]
    even = count // world
    assert [len(share) for share in shares] == [even] * world
    assert [index for step in zip(*shares, strict=True) for index in step] == alone[: even * world]
    for rank, share in enumerate(shares):
        resumed = ShardSampler(Sizes(sizes), 0, streams, (rank, world))
        resumed.set_epoch(epoch)
        resumed.skipped = min(seen, even)
        assert [index for _, index in resumed] == share[min(seen, even) :]


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    sizes = [10] * 30
    torch.manual_seed(0)
    first = order(sizes, 2, 1, 2)
    torch.manual_seed(5)
    assert order(sizes, 2, 1, 2) == first
    assert all(order(sizes, 2, *other) != first for other in ((2, 1), (1, 3), (0, 2)))


def test_a_small_data_set_is_shuffled_as_a_whole() -> None:
    """Just as where it is not in shards."""
    plain = EpochSampler(range(40), 3, (0, 1))
    plain.set_epoch(2)
    assert order([10, 10, 10, 10], 2, 3, 2) == list(plain)


def test_shards_are_read_one_after_the_other_and_by_one_process() -> None:
    size, streams, world = 50, 8, 4
    sizes = [size] * 160
    read: list[set[int]] = []
    for rank in range(world):
        share = order(sizes, streams, place=(rank, world))
        shards = [index // size for index in share]
        read.append(set(shards))
        # From the first of its samples to the last one, a shard is held for no more than three windows of each stream.
        first, last = {}, {}
        for step, shard in enumerate(shards):
            first.setdefault(shard, step)
            last[shard] = step
        assert max(last[shard] - first[shard] for shard in first) <= 3 * 2 * size * streams // world
        assert max(sum(first[s] <= step <= last[s] for s in first) for step in range(0, len(share), 97)) <= 3 * streams
    # A shard that lies across the end of a stream has two readers; there are no others.
    assert sum(map(len, read)) <= len(sizes) + streams
    # Within a window every sample may come first.
    firsts = {order(sizes, streams, epoch=epoch)[0] % size for epoch in range(60)}
    assert len(firsts) > 25


class Numbers(Dataset[int]):
    """The number of a sample in shards."""

    def __init__(self, samples: ShardedSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> int:
        return int(self.samples[index]["number"])


def loader(root: Path, batch: int, streams: int = 4, workers: int = 0) -> ResumableLoader[int]:
    faces = Numbers(ShardedSamples([root], "train", 4 * streams))
    sampler = ShardSampler(faces.samples, 0, streams)
    options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": torch.tensor}
    return training_loader(SeededSamples(faces, 0), sampler, batch, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_at_the_very_next_sample(tmp_path: Path, workers: int) -> None:
    write_folder(tmp_path, 500, 20)
    whole = loader(tmp_path, 8, workers=workers)
    whole.sampler.set_epoch(3)  # type: ignore[attr-defined]
    expected = torch.stack(list(whole))
    assert expected.shape == (62, 8) and len(expected.unique()) == 496
    started = loader(tmp_path, 8, workers=workers)
    started.sampler.set_epoch(3)  # type: ignore[attr-defined]
    seen = list(islice(iter(started), 37))
    resumed = loader(tmp_path, 8, workers=workers)
    resumed.load_state_dict(started.state_dict())
    resumed.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert torch.equal(torch.stack([*seen, *resumed]), expected)


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    """Ten times the samples in the same window: what Python holds at most, sampler and reader together."""
    peaks = []
    for count in (2_000, 20_000):
        root = write_folder(tmp_path / str(count), count, 50, members=1)
        tracemalloc.start()
        samples = ShardedSamples([root], "train")
        read = sum(len(samples[index]) for _, index in islice(ShardSampler(samples, 0, 4), 1500))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read == 1500
    assert peaks[1] < 1.3 * peaks[0] < 400_000, peaks


def test_start_up_and_memory_of_a_million(tmp_path: Path, samples: int) -> None:
    """A hundredth of the samples and all of them: CPU time to the first batch, resident size over an epoch.

    `pytest -s --samples 1000000 tests/datamodules/sharding/test_shards.py -k million` takes minutes and a gigabyte.
    """
    starts, means = [], []
    for count in (max(samples // 100, 2000), samples):
        root = tmp_path / str(count)
        begun = time.process_time()
        write_folder(root, count, max(samples // 1000, 50), members=1)
        written = time.process_time() - begun
        starts.append(min(start_seconds(root) for _ in range(5)))
        begun = time.process_time()
        seen, sizes = epoch(root, count)
        seconds = time.process_time() - begun
        assert len(seen.unique()) == len(seen) > count - 256
        second, last, grown = growth(sizes)
        means.append(last)
        print(
            f"{count} samples: {count / written:.0f} written and {count / seconds:.0f} read a second of CPU time, "
            f"first batch after {1000 * starts[-1]:.1f} ms, resident {second:.1f} and {last:.1f} MB ({grown:+.2%})"
        )
        assert abs(grown) <= TOLERANCE
    assert starts[1] < 2 * starts[0] + 0.02, starts
    assert means[1] < (1 + TOLERANCE) * means[0], means


def start_seconds(root: Path) -> float:
    begun = time.process_time()
    next(iter(loader(root, 256)))
    return time.process_time() - begun


def epoch(root: Path, count: int) -> tuple[torch.Tensor, list[float]]:
    """The numbers that an epoch's batches held, and the resident size as they came."""
    seen, sizes, filled = torch.zeros(count, dtype=torch.int32), [], 0
    for step, batch in enumerate(loader(root, 256)):
        seen[filled : filled + len(batch)] = batch
        filled += len(batch)
        if step % 8 == 0 or count < 50_000:
            sizes.append(resident_megabytes("self"))
    return seen[:filled], sizes
