"""Products with a fixed sparse matrix, as weighted sums over lists of neighbours."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sparse
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag


class FixedSum(nn.Module):
    """y = A x for a sparse A that never changes; the backward pass takes its transpose's lists, made once.

    Args:
        matrix: (N, V) A; a row of zeros gives zeros.
    """

    rows: Tensor
    row_offsets: Tensor
    row_weights: Tensor
    columns: Tensor
    column_offsets: Tensor
    column_weights: Tensor

    def __init__(self, matrix: sparse.csr_matrix) -> None:
        super().__init__()
        for (entries, offsets, weights), part in (
            (("rows", "row_offsets", "row_weights"), matrix.tocsr()),
            (("columns", "column_offsets", "column_weights"), matrix.T.tocsr()),
        ):
            self.register_buffer(entries, torch.from_numpy(part.indices.astype("int64")), persistent=False)
            self.register_buffer(offsets, torch.from_numpy(part.indptr.astype("int64")), persistent=False)
            self.register_buffer(weights, torch.from_numpy(part.data.astype("float32")), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """(V, C) -> (N, C)"""
        lists = (self.rows, self.row_offsets, self.row_weights, self.columns, self.column_offsets, self.column_weights)
        return _Sum.apply(values, *lists)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, *lists: Tensor) -> Tensor:
        ctx.save_for_backward(*lists)
        return _weighted_sums(values, *lists[:3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        transposed = (*ctx.saved_tensors[3:], *ctx.saved_tensors[:3])
        return _Sum.apply(gradient, *transposed), *([None] * 6)


def _weighted_sums(values: Tensor, entries: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(
        entries,
        values.contiguous(),
        offsets,
        mode="sum",
        per_sample_weights=weights.to(values.dtype),
        include_last_offset=True,
    )
