"""The mesh refiner of self-augmentation, forward and backward, against PyTorch Geometric's own convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import scipy.sparse as sparse
import torch
from torch import Tensor, nn
from torch_geometric.nn.conv.cheb_conv import ChebConv

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_model
from lightning_modules.self_augmentation.graph import SpectralNetwork, largest_eigenvalue, scaled_laplacian
from renderers.face_models.mesh_edit import vertex_neighbours
from renderers.fixed_sum import FixedSum

FACES = 20_000
BATCH = 4
CHANNELS = 16
ORDER = 3


class GeometricNetwork(nn.Module):
    """The same network as a user of the package writes it: the Laplacian is made anew in every layer.

    Args:
        network: whose weights it takes over.
        neighbours: (V, V) the mesh's adjacency.
    """

    edges: Tensor

    def __init__(self, network: SpectralNetwork, neighbours: sparse.csr_matrix) -> None:
        super().__init__()
        ours = [network.widen, *(part for block in network.blocks for part in (block.first, block.second))]
        self.layers = nn.ModuleList(_geometric(layer) for layer in [*ours, network.answer])
        laplacian: Any = sparse.csgraph.laplacian(neighbours, normed=True)
        self.largest = largest_eigenvalue(laplacian)
        pairs = neighbours.tocoo()
        self.register_buffer("edges", torch.as_tensor([pairs.row.tolist(), pairs.col.tolist()]))

    def forward(self, x: Tensor) -> Tensor:
        """(V, B, in_channels) -> (V, B, out_channels)"""

        def filtered(layer: nn.Module, features: Tensor) -> Tensor:
            answer: Tensor = layer(features, self.edges, lambda_max=self.largest)
            return answer

        # Meshes first, as the package wants them.
        first, *inner, last = self.layers
        x = filtered(first, x.transpose(0, 1))
        for one, two in zip(inner[::2], inner[1::2], strict=True):
            x = x + filtered(two, filtered(one, x.relu()).relu())
        return filtered(last, x.relu()).transpose(0, 1)


def _geometric(layer: ChebConv) -> ChebConv:
    copy = ChebConv(layer.in_channels, layer.out_channels, K=len(layer.lins))
    copy.load_state_dict(layer.state_dict())
    return copy


def run(device: torch.device) -> Iterator[Row]:
    """One row: a mesh of a third of BFM 2009's vertices, every weight with a gradient."""
    model = face_like_model(FACES, identity=1, expression=1, albedo=1)
    neighbours = vertex_neighbours(model.faces.numpy(), model.vertex_count)
    torch.manual_seed(0)
    network = SpectralNetwork(3, 3, CHANNELS, ORDER)
    for lin in network.answer.lins:  # It starts at zero, where no other weight has a gradient.
        nn.init.xavier_uniform_(lin.weight)
    reference = GeometricNetwork(network, neighbours).to(device)
    network, laplacian = network.to(device), FixedSum(scaled_laplacian(neighbours)).to(device)
    colors = torch.rand(model.vertex_count, BATCH, 3, device=device)

    def trained(part: nn.Module, answer: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            part.zero_grad()
            answer().square().sum().backward()

        return step

    yield race(
        "graph_refiner",
        f"mesh refiner: {model.vertex_count:,} vertices, {CHANNELS} channels, {BATCH} faces",
        device,
        trained(network, lambda: network(colors, laplacian)),
        "PyTorch Geometric",
        trained(reference, lambda: reference(colors)),
        budget_s=3.0,
    )
