"""Vertex normals against a mesh library, closed forms, finite differences and a plain loop."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from renderers.vertex_normals import VertexNormals


def plain(vertices: Tensor, faces: Tensor) -> Tensor:
    """Row after row, with PyTorch's own gradient."""
    a, b, c = (vertices[:, faces[:, corner]] for corner in range(3))
    face_normals = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner], face_normals)
    return total / total.norm(dim=-1, keepdim=True)


def bumpy_sphere() -> tuple[Tensor, Tensor]:
    ball = trimesh.creation.icosphere(subdivisions=2)
    generator = torch.Generator().manual_seed(0)
    vertices = torch.as_tensor(np.array(ball.vertices)) * (1 + 0.1 * torch.rand(2, 162, 1, generator=generator))
    return vertices.double(), torch.as_tensor(np.array(ball.faces))


def test_normals_of_a_sphere_point_away_from_its_centre() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices, faces = torch.as_tensor(np.array(ball.vertices))[None], torch.as_tensor(np.array(ball.faces))
    torch.testing.assert_close(VertexNormals(faces, len(ball.vertices))(vertices), vertices, atol=1e-2, rtol=0)


def test_equal_to_a_plain_loop_with_its_gradient() -> None:
    vertices, faces = bumpy_sphere()
    vertices.requires_grad_()
    weights = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, wanted = VertexNormals(faces, vertices.shape[1])(vertices), plain(vertices, faces)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((normals * weights).sum(), vertices)[0] for normals in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_gradcheck_to_the_second_order() -> None:
    vertices = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    normals = VertexNormals(torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1]]), 4)
    assert torch.autograd.gradcheck(normals, (vertices,))
    assert torch.autograd.gradgradcheck(normals, (vertices,))


def test_a_vertex_without_surface_has_no_normal_and_no_gradient() -> None:
    """Vertex 3 belongs to no face, vertex 4 to one without area."""
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [2, 2, 2]]], requires_grad=True)
    normals = VertexNormals(torch.tensor([[0, 1, 2], [4, 4, 4]]), 5)(vertices)
    torch.testing.assert_close(normals[0], torch.tensor([[0.0, 0, 1]] * 3 + [[0.0, 0, 0]] * 2))
    normals[:, 3:].sum().backward()
    assert vertices.grad is not None and vertices.grad.abs().max() == 0
