"""Which images a mixed batch pairs, and that its parts move together."""

from __future__ import annotations

from dataclasses import replace

import torch

from datamodules.batch import FaceBatch, MultiViewBatch, Truth


def batch(images: int, views: torch.Tensor | None) -> MultiViewBatch:
    return MultiViewBatch(
        image=torch.rand(images, 3, 6, 8),
        landmarks=torch.rand(images, 68, 2),
        skin=torch.rand(images, 1, 6, 8),
        intrinsics=torch.eye(3).expand(images, 3, 3),
        truth=Truth(coefficients=torch.rand(images, 9), depth=torch.rand(images, 1, 6, 8)),
        views=views,
    )


def test_one_single_view_and_two_triples_pair_only_the_triples() -> None:
    target, source = batch(7, torch.tensor([[1, 2, 3], [4, 5, 6]])).pairs()
    assert list(zip(target.tolist(), source.tolist(), strict=True)) == [(2, 1), (2, 3), (5, 4), (5, 6)]


def test_single_views_may_stand_anywhere() -> None:
    target, source = batch(5, torch.tensor([[4, 0, 2]])).pairs()
    assert list(zip(target.tolist(), source.tolist(), strict=True)) == [(0, 4), (0, 2)]


def test_five_views_pair_the_middle_with_the_others() -> None:
    target, source = batch(5, torch.arange(5)[None]).pairs()
    assert target.tolist() == [2, 2, 2, 2]
    assert source.tolist() == [0, 1, 3, 4]


def test_a_batch_of_single_views_has_no_pairs() -> None:
    for views in (None, torch.zeros(0, 3, dtype=torch.long)):
        single = batch(3, views)
        target, source = single.pairs()
        assert target.shape == source.shape == (0,)
        assert single.image[target].shape == (0, 3, 6, 8)


def test_each_pair_takes_its_groups_epipolar_gate() -> None:
    mixed = batch(7, torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert mixed.epipolar_pairs().tolist() == [True] * 4  # synthetic and other data without a gate
    mixed.epipolar = torch.tensor([True, False])
    assert mixed.epipolar_pairs().tolist() == [True, True, False, False]
    assert batch(3, torch.zeros(0, 3, dtype=torch.long)).epipolar_pairs().shape == (0,)


def test_every_tensor_moves_and_nothing_else_changes() -> None:
    moved = batch(3, torch.tensor([[0, 1, 2]])).to("meta")
    assert isinstance(moved, MultiViewBatch)
    assert moved.truth is not None
    assert moved.views is not None
    tensors = [
        moved.image, moved.landmarks, moved.skin, moved.intrinsics,
        moved.truth.coefficients, moved.truth.depth, moved.views,
    ]  # fmt: skip
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_the_truth_about_highlights_moves_and_may_be_absent() -> None:
    plain = Truth(coefficients=torch.rand(2, 9), depth=torch.rand(2, 1, 6, 8))
    shiny = replace(
        plain,
        light_position=torch.rand(2, 3),
        shininess=torch.rand(2, 1),
        intensity=torch.rand(2, 1),
        diffuse=torch.rand(2, 3, 6, 8),
        specular=torch.rand(2, 3, 6, 8),
    )
    names = ("light_position", "shininess", "intensity", "diffuse", "specular")
    assert all(getattr(shiny.to("meta"), name).device.type == "meta" for name in names)
    assert all(getattr(plain.to("meta"), name) is None for name in names)


def test_a_photograph_without_truth_moves_too() -> None:
    photographs = FaceBatch(torch.rand(2, 3, 6, 8), torch.rand(2, 68, 2), torch.rand(2, 1, 6, 8), torch.rand(2, 3, 3))
    moved = photographs.to("meta")
    assert moved.truth is None
    assert moved.image.device.type == "meta"
    assert len(photographs) == 2
    assert photographs.size == (6, 8)
