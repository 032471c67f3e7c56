"""Graph convolutions on a face model's mesh: the scaled Laplacian, Chebyshev filters, spectral residual blocks.

Features of B meshes are (V, B, C): vertices first, so that one sparse product serves the whole batch.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import torch.nn.functional as F
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch_geometric.nn.conv.cheb_conv import ChebConv

from renderers.fixed_sum import FixedSum

BLOCKS = 4  # spectral residual blocks of a refiner (self-augmentation, section 3.2.1)
DENSE = 64  # vertices up to which the largest eigenvalue is found densely
EIGENVALUE_TOLERANCE = 1e-6


def scaled_laplacian(neighbours: sparse.csr_matrix) -> sparse.csr_matrix:
    """L~ = 2 L / lambda_max - I with L = I - D^-1/2 A D^-1/2 (self-augmentation, section 3.2.1), as a sparse matrix.

    Args:
        neighbours: (V, V) A of zeros and ones, symmetric (`mesh_edit.vertex_neighbours`). In the row of a vertex
            without neighbours, L is I.

    Returns:
        (V, V) symmetric, with eigenvalues in [-1, 1].
    """
    count = neighbours.shape[0]
    degree = np.asarray(neighbours.sum(axis=1)).ravel()
    inverse_root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    identity = sparse.identity(count, format="csr")
    scale = sparse.diags(inverse_root)
    laplacian = identity - scale @ neighbours @ scale
    return (laplacian * (2 / largest_eigenvalue(laplacian)) - identity).tocsr()


def largest_eigenvalue(matrix: sparse.csr_matrix) -> float:
    """The largest eigenvalue of a symmetric positive semidefinite matrix; above `DENSE` rows by Lanczos' iteration."""
    count = matrix.shape[0]
    if count <= DENSE:
        return float(np.linalg.eigvalsh(matrix.toarray())[-1])
    start = np.random.default_rng(0).standard_normal(count)  # fixed, so that the result is reproducible
    values = eigsh(matrix, k=1, which="LA", v0=start, tol=EIGENVALUE_TOLERANCE, return_eigenvectors=False)
    return float(values[0])


class MeshChebConv(ChebConv):
    """PyTorch Geometric's ChebConv with the Laplacian prepared once, on (V, B, C) features; equations (3) and (4).

    Clenshaw's recurrence gives sum_k T_k(L~) x W_k: b_k = x W_k + 2 L~ b_(k+1) - b_(k+2). The sparse product is
    linear, so the backward pass needs x alone. The usual recurrence would have to keep all T_k(L~) x for it.

    Args:
        in_channels: of x.
        out_channels: of the output.
        order: K, the number of Chebyshev polynomials.
    """

    def __init__(self, in_channels: int, out_channels: int, order: int) -> None:
        super().__init__(in_channels, out_channels, K=order)

    def forward(self, x: Tensor, laplacian: FixedSum) -> Tensor:
        """(V, B, in_channels) -> (V, B, out_channels); `laplacian` multiplies by L~."""
        # The backward pass does not need these terms, so the recurrence may overwrite them.
        *others, last = [lin(x) for lin in self.lins]
        now, after = last, None  # b_(k+1), b_(k+2)
        for index, term in enumerate(reversed(others)):
            # The last step, for T_0, has no factor 2.
            step = laplacian(now.flatten(1)).view_as(now)
            term.add_(step, alpha=1 if index == len(others) - 1 else 2)
            now, after = (term if after is None else term.sub_(after)), now
        return now.add_(self.bias)


class SpectralResidualBlock(nn.Module):
    """x + g2(relu(g1(relu(x)))) with two Chebyshev filters.

    Args:
        channels: C.
        order: of the filters.
    """

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        self.first = MeshChebConv(channels, channels, order)
        self.second = MeshChebConv(channels, channels, order)

    def forward(self, x: Tensor, laplacian: FixedSum) -> Tensor:
        """(V, B, C) -> (V, B, C)"""
        inside: Tensor = self.first(F.relu(x), laplacian)
        answer: Tensor = self.second(F.relu(inside, inplace=True), laplacian)
        return answer.add_(x)


class SpectralNetwork(nn.Module):
    """A filter that widens, four spectral residual blocks, and a filter that answers (sections 3.2.1 and 3.2.2).

    The last filter starts at zero, so an untrained network answers 0.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        channels: of the blocks.
        order: K of every filter.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: int, order: int) -> None:
        super().__init__()
        self.widen = MeshChebConv(in_channels, channels, order)
        self.blocks = nn.ModuleList(SpectralResidualBlock(channels, order) for _ in range(BLOCKS))
        self.answer = MeshChebConv(channels, out_channels, order)
        for lin in self.answer.lins:
            nn.init.zeros_(lin.weight)

    def forward(self, x: Tensor, laplacian: FixedSum) -> Tensor:
        """(V, B, in_channels) -> (V, B, out_channels)"""
        x = self.widen(x, laplacian)
        for block in self.blocks:
            x = block(x, laplacian)
        answer: Tensor = self.answer(F.relu(x), laplacian)
        return answer


def spread_seeds(points: np.ndarray, count: int) -> np.ndarray:
    """(count,) vertices that are spread out: first the one nearest to the mean, then always the farthest from all.

    Args:
        points: (V, 3).
        count: at most V.
    """
    centred = points - points.mean(axis=0)
    seeds = np.empty(count, dtype=np.int64)
    seeds[0] = np.square(centred).sum(axis=1).argmin()
    distance = np.square(centred - centred[seeds[0]]).sum(axis=1)
    for index in range(1, count):
        seeds[index] = distance.argmax()
        np.minimum(distance, np.square(centred - centred[seeds[index]]).sum(axis=1), out=distance)
    return seeds


def upsampling(points: np.ndarray, neighbours: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """(V, count) weights by which a coarser set of vertices, the seeds, is interpolated to all; rows sum to 1.

    Each vertex takes the seed that is nearest along the edges. Two averages over neighbours then smooth the borders
    between the parts of different seeds.

    Args:
        points: (V, 3).
        neighbours: (V, V) the mesh's adjacency.
        count: seeds, at most V.
    """
    seeds = spread_seeds(points, count)
    edges = neighbours.tocoo()
    lengths = np.sqrt(np.square(points[edges.row] - points[edges.col]).sum(axis=1)).clip(1e-9)
    graph = sparse.csr_matrix((lengths, (edges.row, edges.col)), shape=neighbours.shape)
    _, _, nearest = dijkstra(graph, indices=seeds, min_only=True, return_predecessors=True)
    apart = nearest < 0  # vertices of a piece of the mesh without a seed take the nearest seed in space
    for vertex in np.flatnonzero(apart):
        nearest[vertex] = seeds[np.square(points[seeds] - points[vertex]).sum(axis=1).argmin()]
    column = np.empty(len(points), dtype=np.int64)
    column[seeds] = np.arange(count)
    belongs = sparse.csr_matrix((np.ones(len(points)), (np.arange(len(points)), column[nearest])))
    with_itself = neighbours + sparse.identity(len(points))
    mean = sparse.diags(1 / np.asarray(with_itself.sum(axis=1)).ravel()) @ with_itself
    return (mean @ mean @ belongs).tocsr()
