"""Affine maps of many points: the same numbers and gradients as the plain product, in pieces or not."""

from __future__ import annotations

import pytest
import torch

from renderers.affine import PIECES, _Affine, affine, product_over_points


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("points", [0, 1, PIECES - 1, PIECES, 3 * PIECES + 5])
def test_product_in_pieces_is_the_product(points: int) -> None:
    left, right = random(2, points, 3, seed=0), random(2, points, 4, seed=1)
    torch.testing.assert_close(product_over_points(left, right), left.transpose(1, 2) @ right)


def test_map_of_a_gpu_is_that_of_a_cpu() -> None:
    given = random(2, PIECES + 3, 3, seed=0), random(2, 3, 2, seed=1), random(2, 2, seed=2)
    leaves = [leaf.requires_grad_() for leaf in given]
    assert torch.autograd.gradcheck(_Affine.apply, leaves)
    torch.testing.assert_close(_Affine.apply(*leaves), affine(*leaves))
    torch.testing.assert_close(affine(*leaves), leaves[0] @ leaves[1] + leaves[2][:, None])


def test_a_gradient_that_nobody_wants_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise AssertionError("summed over the points")

    monkeypatch.setattr("renderers.affine.product_over_points", never)
    points = random(1, 5, 3, seed=0).requires_grad_()
    _Affine.apply(points, random(1, 3, 3, seed=1), random(1, 3, seed=2)).sum().backward()
    assert points.grad is not None


def test_one_map_for_a_batch() -> None:
    points, matrix, shift = random(4, 5, 3, seed=0), random(3, 3, seed=1), random(3, seed=2)
    torch.testing.assert_close(affine(points, matrix, shift), points @ matrix + shift)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    leaves = [random(2, 1000, 3, seed=0), random(2, 3, 3, seed=1), random(2, 3, seed=2)]
    there = [leaf.cuda().requires_grad_() for leaf in leaves]
    here = [leaf.requires_grad_() for leaf in leaves]
    for parts in (here, there):
        affine(*parts).sin().sum().backward()
    for mine, other in zip(here, there, strict=True):
        torch.testing.assert_close(mine.grad, other.grad.cpu())
