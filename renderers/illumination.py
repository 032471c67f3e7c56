"""Spherical-harmonics illumination: real basis, bands 0 to 2, nine weights a colour channel."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from renderers.kernels.on_gpu import on_gpu

# Basis functions' constants times the clamped cosine's weights (Ramamoorthi and Hanrahan 2001), these scaled by 1,
# sqrt(3) and sqrt(8) for bands 0, 1, 2: the constants that public Deep3D-style checkpoints were trained with.
BAND_0 = math.pi / math.sqrt(4 * math.pi)
BAND_1 = (2 * math.pi / math.sqrt(3)) * (math.sqrt(3) / math.sqrt(4 * math.pi))
BAND_2 = (2 * math.pi / math.sqrt(8)) * (3 * math.sqrt(5) / math.sqrt(12 * math.pi))
AMBIENT = 0.8  # added to the first weight, so that zero weights show the face


def spherical_harmonics_basis(normals: Tensor) -> Tensor:
    """H_b of MGCNet section 3.2, with the clamped cosine's weights folded in.

    Args:
        normals: (..., 3) unit vectors.

    Returns:
        (..., 9); for (0, 0, 1): (.886227, 0, 1.772454, 0, 0, 0, 1.401248, 0, 0).
    """
    x, y, z = normals.unbind(-1)
    basis = [
        torch.full_like(x, BAND_0),
        -BAND_1 * y,
        BAND_1 * z,
        -BAND_1 * x,
        BAND_2 * x * y,
        -BAND_2 * y * z,
        BAND_2 / (2 * math.sqrt(3)) * (3 * z * z - 1),
        -BAND_2 * x * z,
        BAND_2 / 2 * (x * x - y * y),
    ]
    return torch.stack(basis, dim=-1)


def sphere_points(count: int) -> Tensor:
    """(count, 3) float64 unit vectors, evenly spread (Fibonacci's lattice).

    >>> sphere_points(1000).mean(dim=0).abs().max() < 1e-3
    tensor(True)
    """
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height, turn = 1 - 2 * index / count, index * math.pi * (1 + 5**0.5)
    across = (1 - height.square()).sqrt()
    return torch.stack([across * turn.cos(), height, across * turn.sin()], dim=-1)


@cache
def light_probe(count: int) -> tuple[Tensor, Tensor]:
    """`sphere_points`, and the (9, count) least-squares fit of weights to the light that arrives there, float64."""
    points = sphere_points(count)
    return points, torch.linalg.pinv(spherical_harmonics_basis(points))


@on_gpu("renderers.kernels.illumination")
def irradiance(normals: Tensor, illumination: Tensor) -> Tensor:
    """Light that arrives at a surface, sum_b theta_b H_b(normal).

    Args:
        normals: (B, N, 3) unit vectors in camera space.
        illumination: (B, 27) weights, channel after channel; `AMBIENT` is added to each channel's first.

    Returns:
        (B, N, 3) RGB irradiance; zero weights give 0.708982 for every normal.
    """
    bands = illumination.unflatten(-1, (3, 9)).unbind(-1)
    # The same polynomial by its monomials x, y, z, x y, y z, z x, x^2, y^2, z^2, which take few operations to make.
    monomials = torch.cat([normals, normals * normals.roll(-1, dims=-1), normals.square()], dim=-1)
    factors = torch.stack(
        [
            -BAND_1 * bands[3],
            -BAND_1 * bands[1],
            BAND_1 * bands[2],
            BAND_2 * bands[4],
            -BAND_2 * bands[5],
            -BAND_2 * bands[7],
            BAND_2 / 2 * bands[8],
            -BAND_2 / 2 * bands[8],
            math.sqrt(3) / 2 * BAND_2 * bands[6],
        ],
        dim=1,
    )
    constant = BAND_0 * (bands[0] + AMBIENT) - BAND_2 / (2 * math.sqrt(3)) * bands[6]
    return monomials @ factors + constant.unsqueeze(1)


def turned_light(illumination: Tensor, rotation: Tensor) -> Tensor:
    """The weights of the same light after it was turned: each band of harmonics only mixes within itself.

    Args:
        illumination: (B, 27) weights.
        rotation: (B, 3, 3): what light a normal n had, R n has now.

    Returns:
        (B, 27)
    """
    normals, fit = (part.to(rotation) for part in light_probe(32))
    mixed = fit @ spherical_harmonics_basis(normals @ rotation)  # R^T n, where the light of n came from
    return (mixed @ illumination.unflatten(-1, (3, 9)).transpose(1, 2)).transpose(1, 2).flatten(1)
