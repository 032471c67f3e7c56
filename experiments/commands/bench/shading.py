"""Vertex normals and spherical-harmonics shading, forward and backward, against sums scattered over the vertices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_model
from renderers.illumination import AMBIENT, spherical_harmonics_basis
from renderers.reflectance import lambertian

FACES = 70_789
BATCH = 8


def scattered_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(B, V, 3) unit normals of (B, V, 3) vertices: every face's normal added to its corners."""
    first, second, third = (vertices[:, faces[:, corner]] for corner in range(3))
    across = torch.linalg.cross(second - first, third - first)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner], across)
    return torch.nn.functional.normalize(total, dim=-1)


def straightforward_shading(albedo: Tensor, normals: Tensor, illumination: Tensor) -> Tensor:
    """(B, V, 3) albedo times what (B, 27) weights light (B, V, 3) normals with."""
    weights = illumination.unflatten(-1, (3, 9)).clone()
    weights[..., 0] += AMBIENT
    return albedo * torch.einsum("bvk,bck->bvc", spherical_harmonics_basis(normals), weights)


def run(device: torch.device) -> Iterator[Row]:
    """One row, at the size of BFM 2009: the colours' gradient reaches vertices, albedo and light."""
    model = face_like_model(FACES, identity=1, expression=1, albedo=1).to(device)
    generator = torch.Generator().manual_seed(0)
    vertices = model.mean_shape.repeat(BATCH, 1, 1).requires_grad_()
    albedo = model.mean_albedo.repeat(BATCH, 1, 1).requires_grad_()
    light = (0.1 * torch.randn(BATCH, 27, generator=generator)).to(device).requires_grad_()

    def trained(shade: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            torch.autograd.grad(shade().square().sum(), (vertices, albedo, light))

        return step

    yield race(
        "shading",
        f"normals and shading: {model.vertex_count:,} vertices, {BATCH} faces",
        device,
        trained(lambda: lambertian(albedo, model.normals(vertices), light)),
        "index_add and einsum",
        trained(lambda: straightforward_shading(albedo, scattered_normals(vertices, model.faces), light)),
    )
