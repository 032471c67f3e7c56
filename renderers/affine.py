"""Affine maps of many points by a small matrix for each image, whose gradient a GPU sums as fast as it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIECES = 64  # that a sum over many points is cut into, so that a GPU has something to do in each of its processors


def affine(points: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """points @ matrix + shift.

    The matrix's gradient is a sum over all points into a few numbers, which a GPU's matrix product leaves to one
    processor an image: there it is summed in `PIECES`.

    Args:
        points: (B, N, K); all three may have other leading dimensions that broadcast.
        matrix: (B, K, M).
        shift: (B, M).

    Returns:
        (B, N, M)
    """
    if points.is_cuda and points.dim() == matrix.dim() == 3 and len(points) == len(matrix) == len(shift):
        return _Affine.apply(points, matrix, shift)
    return points @ matrix + shift.unsqueeze(-2)


def product_over_points(left: Tensor, right: Tensor) -> Tensor:
    """left^T right, in pieces: (B, N, K) and (B, N, M) -> (B, K, M)."""
    whole = left.shape[1] // PIECES * PIECES
    pieces = [part[:, :whole].unflatten(1, (PIECES, -1)) for part in (left, right)]
    rest = left[:, whole:].transpose(1, 2) @ right[:, whole:]
    return (pieces[0].transpose(2, 3) @ pieces[1]).sum(dim=1) + rest


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(points, matrix)
        return torch.baddbmm(shift.unsqueeze(1), points, matrix)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        points, matrix = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            gradient @ matrix.transpose(1, 2) if wanted[0] else None,
            product_over_points(points, gradient) if wanted[1] else None,
            gradient.sum(dim=1) if wanted[2] else None,
        )
