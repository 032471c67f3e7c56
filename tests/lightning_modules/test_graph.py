"""Graph convolutions against dense linear algebra: Laplacian, Chebyshev filters, blocks, upsampling."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import ChebConv

from lightning_modules.self_augmentation.graph import (
    DENSE,
    MeshChebConv,
    SpectralNetwork,
    SpectralResidualBlock,
    largest_eigenvalue,
    scaled_laplacian,
    spread_seeds,
    upsampling,
)
from renderers.face_models.mesh_edit import vertex_neighbours
from renderers.fixed_sum import FixedSum

BATCH = 3


def ball(subdivisions: int = 1) -> trimesh.Trimesh:
    """42 or 162 vertices, uneven, so that no symmetry hides a mistake."""
    mesh = trimesh.creation.icosphere(subdivisions)
    mesh.vertices *= 1 + 0.3 * np.random.default_rng(0).random((len(mesh.vertices), 1))
    return mesh


def neighbours(mesh: trimesh.Trimesh) -> sparse.csr_matrix:
    return vertex_neighbours(np.asarray(mesh.faces), len(mesh.vertices))


def dense_laplacian(adjacency: np.ndarray) -> np.ndarray:
    """L = I - D^-1/2 A D^-1/2, as the paper prints it."""
    root = np.diag(adjacency.sum(axis=1) ** -0.5)
    return np.eye(len(adjacency)) - root @ adjacency @ root


def chebyshev(matrix: np.ndarray, order: int) -> list[np.ndarray]:
    """T_0 to T_(K-1) of a symmetric matrix by its eigenvalues: T_k(x) = cos(k arccos x)."""
    values, vectors = np.linalg.eigh(matrix)
    angles = np.arccos(values.clip(-1, 1))
    return [vectors @ np.diag(np.cos(k * angles)) @ vectors.T for k in range(order)]


@pytest.mark.parametrize("subdivisions", [1, 2])
def test_scaled_laplacian_is_the_dense_one(subdivisions: int) -> None:
    adjacency = neighbours(ball(subdivisions))
    assert (adjacency.shape[0] <= DENSE) == (subdivisions == 1)  # both ways to the eigenvalue
    laplacian = dense_laplacian(adjacency.toarray())
    expected = 2 * laplacian / np.linalg.eigvalsh(laplacian)[-1] - np.eye(len(laplacian))
    scaled = scaled_laplacian(adjacency)
    np.testing.assert_allclose(scaled.toarray(), expected, atol=1e-5)
    assert np.abs(np.linalg.eigvalsh(scaled.toarray())).max() == pytest.approx(1, abs=1e-5)
    assert scaled.nnz <= adjacency.nnz + len(laplacian)


def test_a_vertex_without_neighbours_keeps_to_itself() -> None:
    adjacency = sparse.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=float))
    np.testing.assert_allclose(scaled_laplacian(adjacency).toarray(), [[0, -1, 0], [-1, 0, 0], [0, 0, 0]], atol=1e-12)
    assert largest_eigenvalue(sparse.identity(3, format="csr") * 4) == pytest.approx(4)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_filter_is_the_sum_of_chebyshev_polynomials(order: int) -> None:
    """Equations (3) and (4) by the eigenvalues of a dense matrix, and by PyTorch Geometric's own recurrence."""
    torch.manual_seed(order)
    adjacency = neighbours(ball())
    scaled = scaled_laplacian(adjacency)
    layer = MeshChebConv(4, 5, order).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(adjacency.shape[0], BATCH, 4, dtype=torch.double)
    answer = layer(x, FixedSum(scaled))
    weights = [lin.weight.detach().numpy().T for lin in layer.lins]
    terms = chebyshev(scaled.toarray(), order)
    parts = [np.einsum("uv,vbi,io->ubo", term, x.numpy(), weight) for term, weight in zip(terms, weights, strict=True)]
    # The stored weights are of single precision.
    np.testing.assert_allclose(answer.detach(), sum(parts) + layer.bias.detach().numpy(), atol=2e-5)

    edges = torch.from_numpy(np.stack(adjacency.nonzero())).long()
    most = largest_eigenvalue(sparse.csr_matrix(dense_laplacian(adjacency.toarray())))
    theirs = [ChebConv.forward(layer, x[:, i], edges, lambda_max=torch.tensor(most)) for i in range(BATCH)]
    torch.testing.assert_close(answer, torch.stack(theirs, dim=1), atol=2e-5, rtol=0)


def test_filter_has_the_gradient_of_its_value() -> None:
    torch.manual_seed(0)
    laplacian = FixedSum(scaled_laplacian(neighbours(trimesh.creation.icosahedron())))
    layer = MeshChebConv(1, 2, 4).double()
    x = torch.randn(12, 2, 1, dtype=torch.double, requires_grad=True)
    weights = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, laplacian), (x, *weights))


def test_residual_block_is_dense_algebra() -> None:
    torch.manual_seed(0)
    scaled = scaled_laplacian(neighbours(ball()))
    block = SpectralResidualBlock(6, 3).double()
    x = torch.randn(scaled.shape[0], BATCH, 6, dtype=torch.double)
    terms = [torch.from_numpy(term) for term in chebyshev(scaled.toarray(), 3)]

    def filtered(layer: MeshChebConv, value: Tensor) -> Tensor:
        images = [
            torch.einsum("uv,vbi->ubi", t, value) @ lin.weight.T for t, lin in zip(terms, layer.lins, strict=True)
        ]
        return torch.stack(images).sum(dim=0) + layer.bias

    expected = x + filtered(block.second, filtered(block.first, x.relu()).relu())
    torch.testing.assert_close(block(x, FixedSum(scaled)), expected, atol=5e-5, rtol=0)


def network_with_an_answer() -> SpectralNetwork:
    torch.manual_seed(0)
    network = SpectralNetwork(3, 3, 8, 3)
    for lin in network.answer.lins:
        torch.nn.init.normal_(lin.weight)
    return network


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_renumbering_the_vertices_renumbers_the_answer(seed: int) -> None:
    mesh, network = ball(), network_with_an_answer()
    count = len(mesh.vertices)
    x = torch.randn(count, BATCH, 3, generator=torch.Generator().manual_seed(seed))
    order = np.random.default_rng(seed).permutation(count)  # new vertex i is old vertex order[i]
    place = np.argsort(order)
    renumbered = vertex_neighbours(place[np.asarray(mesh.faces)], count)
    answer = network(x, FixedSum(scaled_laplacian(neighbours(mesh))))
    again = network(x[order], FixedSum(scaled_laplacian(renumbered)))
    torch.testing.assert_close(again, answer[order], atol=1e-3, rtol=1e-4)


def test_network_answers_nothing_at_first_and_learns() -> None:
    laplacian = FixedSum(scaled_laplacian(neighbours(ball())))
    torch.manual_seed(0)
    network = SpectralNetwork(3, 3, 8, 3)
    x = torch.randn(42, BATCH, 3)
    assert not network(x, laplacian).any()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    wanted = x.relu() - 0.5 * laplacian(x.flatten(1)).view_as(x)
    losses = []
    for _ in range(40):
        loss = (network(x, laplacian) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_filter_reaches_as_far_as_its_order() -> None:
    """K polynomials see K - 1 edges far, and no farther."""
    mesh = ball(2)
    adjacency = neighbours(mesh)
    laplacian = FixedSum(scaled_laplacian(adjacency))
    layer = MeshChebConv(1, 1, 4)
    x = torch.zeros(adjacency.shape[0], 1, 1)
    x[7] = 1
    reached = (layer(x, laplacian) - layer(torch.zeros_like(x), laplacian)).abs().flatten() > 1e-7
    hops = sparse.csgraph.shortest_path(adjacency, unweighted=True, indices=7)
    np.testing.assert_array_equal(reached.numpy(), hops <= 3)


def test_upsampling_is_a_smooth_mean() -> None:
    mesh = ball(3)
    points, adjacency = np.asarray(mesh.vertices), neighbours(mesh)
    weights = upsampling(points, adjacency, 160)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.min() >= 0 and weights.shape == (642, 160)
    # A smooth function of place, known at the seeds, comes back nearly.
    seeds = spread_seeds(points, 160)
    assert len(set(seeds.tolist())) == 160
    carried = weights @ points[seeds]
    assert np.sqrt(np.square(carried - points).sum(axis=1)).mean() < 0.5 * np.sqrt(4 * np.pi / 160)


def test_upsampling_of_two_pieces_of_which_one_has_no_seed() -> None:
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9], [9, 9, 8], [9, 8, 9]], dtype=float)
    weights = upsampling(points, vertex_neighbours(faces, 6), 1)
    np.testing.assert_allclose(weights.toarray(), np.ones((6, 1)))


def test_seeds_are_spread() -> None:
    points = np.random.default_rng(0).random((400, 3))
    seeds = spread_seeds(points, 40)
    apart = np.sqrt(np.square(points[seeds][:, None] - points[seeds][None]).sum(axis=-1))
    nearest = (apart + 9 * np.eye(40)).min()
    to_seed = np.sqrt(np.square(points[:, None] - points[seeds][None]).sum(axis=-1)).min(axis=1)
    assert to_seed.max() <= nearest + 1e-12  # the defining property of farthest-point sampling
