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
    """L~ = 2 L / lambda_max - I of L = I - D^-1/2 A D^-1/2 (self-augmentation, section 3.2.1); sparse throughout.

    Args:
        neighbours: (V, V) A of zeros and ones, symmetric (`mesh_edit.vertex_neighbours`); a vertex without neighbours
            has the row of I in L.

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
    """Of a symmetric positive semidefinite matrix: densely up to `DENSE` rows, else by Lanczos' iteration."""
    count = matrix.shape[0]
    if count <= DENSE:
        return float(np.linalg.eigvalsh(matrix.toarray())[-1])
    start = np.random.default_rng(0).standard_normal(count)  # the same matrix has the same answer
    values = eigsh(matrix, k=1, which="LA", v0=start, tol=EIGENVALUE_TOLERANCE, return_eigenvectors=False)
    return float(values[0])


class MeshChebConv(ChebConv):
    """PyTorch Geometric's ChebConv with the Laplacian prepared once, on (V, B, C) features; equations (3) and (4).

    sum_k T_k(L~) x W_k is taken by Clenshaw's recurrence on x W_k: b_k = x W_k + 2 L~ b_(k+1) - b_(k+2). The sparse
    product is linear, so that the backward pass needs x alone, and not the K - 1 images of x under L~ beside it.

    Args:
        in_channels: of x.
        out_channels: of the answer.
        order: K, the number of Chebyshev polynomials.
    """

    def __init__(self, in_channels: int, out_channels: int, order: int) -> None:
        super().__init__(in_channels, out_channels, K=order)

    def forward(self, x: Tensor, laplacian: FixedSum) -> Tensor:
        """(V, B, in_channels) -> (V, B, out_channels); `laplacian` multiplies by L~."""
        # Nothing looks at these again in the backward pass: they are added to in place.
        *others, last = [lin(x) for lin in self.lins]
        now, after = last, None  # b_(k+1), b_(k+2)
        for index, term in enumerate(reversed(others)):
            # The first of the terms is of T_0, whose recurrence has no factor 2.
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
    """Four spectral residual blocks between a filter that widens and one that answers (sections 3.2.1 and 3.2.2).

    The last filter starts at zero, and so does the answer.

    Args:
        in_channels: of the features given.
        out_channels: of the answer.
        channels: inside.
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
    """(count,) vertices that lie far from each other: each the farthest from all before it, the first nearest the mean.

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
    """(V, count) weights, rows that sum to 1, from a coarser set of vertices to all: smooth, along the surface.

    Each vertex belongs to the seed that is nearest along the edges; the weights are then averaged twice over the edges,
    so that no border between two seeds' parts is left.

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
    apart = nearest < 0  # a piece of the mesh without a seed takes the nearest in space
    for vertex in np.flatnonzero(apart):
        nearest[vertex] = seeds[np.square(points[seeds] - points[vertex]).sum(axis=1).argmin()]
    column = np.empty(len(points), dtype=np.int64)
    column[seeds] = np.arange(count)
    belongs = sparse.csr_matrix((np.ones(len(points)), (np.arange(len(points)), column[nearest])))
    with_itself = neighbours + sparse.identity(len(points))
    mean = sparse.diags(1 / np.asarray(with_itself.sum(axis=1)).ravel()) @ with_itself
    return (mean @ mean @ belongs).tocsr()
