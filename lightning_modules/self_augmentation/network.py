"""The fine model: a mesh-wise and a feature-wise refiner of the vertex colours (self-augmentation, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.components.distributed import summed_over_processes
from lightning_modules.self_augmentation.graph import SpectralNetwork, scaled_laplacian, upsampling
from renderers.face_models.base import MorphableModel
from renderers.face_models.mesh_edit import vertex_neighbours
from renderers.fixed_sum import FixedSum
from renderers.io.errors import within

LEAST_DEVIATION = 1e-3  # of a feature; the noise of a constant feature must not be amplified


class Standardization(nn.Module):
    """Subtracts the mean of features and divides by their standard deviation, over all training batches so far.

    Unlike in batch norm, the output for a face does not depend on the other faces of its batch, training and evaluation
    work alike, and re-rendered faces share the statistics.

    Args:
        features: length of a vector.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("squares", torch.zeros(features))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in (B, features) of every process, by Chan's update of a mean and a sum of squared deviations.

        All processes of a training have to call it at the same time.
        """
        totals = summed_over_processes(torch.cat([x.new_full((1,), len(x)), x.sum(dim=0)]))
        count, mean = totals[0], totals[1:] / totals[0]
        squares = summed_over_processes((x - mean).square().sum(dim=0))
        total = self.count + count
        step = mean - self.mean
        self.squares += squares + step.square() * self.count * count / total
        self.mean += step * count / total
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) -> (B, features) of mean 0 and deviation 1; until two vectors were seen, only of mean 0."""
        if self.count < 2:
            return x - self.mean
        return (x - self.mean) / (self.squares / self.count).sqrt().clamp_min(LEAST_DEVIATION)


class FAIDDecoder(nn.Module):
    """Face attribute and identity features -> a correction of the vertex colours (section 3.2.2).

    Two linear layers turn the features into a few channels at each vertex of a coarser set. Fixed weights interpolate
    them to the whole mesh, where a network like that of the mesh-wise refiner follows. The paper does not say how a
    vector becomes a function on the mesh. The network that the paper builds on uses a linear layer too.

    Args:
        face_model: whose mesh it is.
        features: length of the vector.
        channels: inside.
        order: of the filters.
        hidden: units between the two linear layers.
        coarsening: vertices of the mesh for each vertex of the coarser set.
    """

    def __init__(
        self, face_model: MorphableModel, features: int, channels: int, order: int, hidden: int, coarsening: int
    ) -> None:
        super().__init__()
        points, neighbours = face_model.mean_shape.cpu().numpy(), _neighbours(face_model)
        count = max(1, len(points) // coarsening)
        self.channels = channels
        self.standardization = Standardization(features)
        self.linear = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, count * channels))
        self.up = FixedSum(upsampling(points, neighbours, count)) if count < len(points) else nn.Identity()
        self.network = SpectralNetwork(channels, 3, channels, order)

    def forward(self, features: Tensor, laplacian: FixedSum) -> Tensor:
        """(B, features) -> (V, B, 3)"""
        batch = len(features)
        coarse = self.linear(self.standardization(features)).view(batch, -1, self.channels)
        fine: Tensor = self.up(coarse.transpose(0, 1).flatten(1))
        answer: Tensor = self.network(fine.view(-1, batch, self.channels), laplacian)
        return answer


class FineModel(nn.Module):
    """Coarse vertex colours and features -> fine vertex colours: the mean of two refiners' results.

    Each refiner returns a correction of the coarse colours. An untrained one returns 0.

    Args:
        face_model: whose mesh it is.
        features: length of the vector of attribute and identity features.
        channels: inside the refiners.
        order: K of every Chebyshev filter.
        hidden: units between the decoder's two linear layers.
        coarsening: see `FAIDDecoder`.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        features: int,
        channels: int = 16,
        order: int = 3,
        hidden: int = 128,
        coarsening: int = 4,
    ) -> None:
        super().__init__()
        bounds = {
            "channels": (channels, 256),
            "order": (order, 16),
            "hidden": (hidden, 4096),
            "coarsening": (coarsening, 4096),
        }
        for name, (value, most) in bounds.items():
            within(name, value, 1, most)
        self.laplacian = FixedSum(scaled_laplacian(_neighbours(face_model)))
        self.mesh_refiner = SpectralNetwork(3, 3, channels, order)
        self.decoder = FAIDDecoder(face_model, features, channels, order, hidden, coarsening)

    def forward(self, texture: Tensor, features: Tensor) -> Tensor:
        """Fine colours of B faces.

        Args:
            texture: (B, V, 3) the coarse model's RGB, 0 black and 1 white.
            features: (B, features).

        Returns:
            (B, V, 3), not clamped.
        """
        by_mesh, by_features = self.corrections(texture, features)
        return texture + 0.5 * (by_mesh + by_features)

    def corrections(self, texture: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, 3) twice: what the mesh-wise refiner and what the decoder adds to the colours; see `forward`."""
        if self.training:
            self.decoder.standardization.observe(features)
        by_mesh = self.mesh_refiner(texture.transpose(0, 1) - 0.5, self.laplacian)
        by_features = self.decoder(features, self.laplacian)
        return by_mesh.transpose(0, 1), by_features.transpose(0, 1)


def _neighbours(face_model: MorphableModel) -> Any:
    return vertex_neighbours(face_model.faces.cpu().numpy(), face_model.vertex_count)
