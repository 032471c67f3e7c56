"""Kernels of `renderers.vertex_normals`: every vertex gathers from its neighbours, forwards and backwards."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from renderers.kernels.launch import launch
from renderers.vertex_normals import FLAT, VertexNormals

# Warp's own gradient would use nine atomic sums for each face of each vertex.
wp.set_module_options({"enable_backward": False})


@wp.func
@no_type_check
def fan_normal(
    vertices: wp.array2d[wp.vec3f],
    fan_offsets: wp.array[wp.int32],
    fan: wp.array[wp.vec2i],
    image: wp.int32,
    vertex: wp.int32,
):
    here = vertices[image, vertex]
    total = wp.vec3f(0.0, 0.0, 0.0)
    for entry in range(fan_offsets[vertex], fan_offsets[vertex + 1]):
        corners = fan[entry]
        total += wp.cross(vertices[image, corners[0]] - here, vertices[image, corners[1]] - here)
    return total


@wp.kernel
@no_type_check
def sum_normals(
    vertices: wp.array2d[wp.vec3f],
    fan_offsets: wp.array[wp.int32],
    fan: wp.array[wp.vec2i],
    flat: wp.float32,
    normals: wp.array2d[wp.vec3f],
):
    image, vertex = wp.tid()
    total = fan_normal(vertices, fan_offsets, fan, image, vertex)
    squared = wp.dot(total, total)
    normals[image, vertex] = wp.where(squared > flat, total / wp.sqrt(wp.max(squared, flat)), wp.vec3f(0.0, 0.0, 0.0))


@wp.kernel
@no_type_check
def undo_length(
    vertices: wp.array2d[wp.vec3f],
    fan_offsets: wp.array[wp.int32],
    fan: wp.array[wp.vec2i],
    flat: wp.float32,
    gradient: wp.array2d[wp.vec3f],
    of_sum: wp.array2d[wp.vec3f],
):
    """From the gradient of a unit normal to that of the sum it was before."""
    image, vertex = wp.tid()
    total = fan_normal(vertices, fan_offsets, fan, image, vertex)
    squared = wp.dot(total, total)
    inverse = 1.0 / wp.sqrt(wp.max(squared, flat))
    unit = total * inverse
    given = gradient[image, vertex]
    across = (given - unit * wp.dot(unit, given)) * inverse
    of_sum[image, vertex] = wp.where(squared > flat, across, wp.vec3f(0.0, 0.0, 0.0))


@wp.kernel
@no_type_check
def gather_gradient(
    vertices: wp.array2d[wp.vec3f],
    fan_offsets: wp.array[wp.int32],
    fan: wp.array[wp.vec2i],
    of_sum: wp.array2d[wp.vec3f],
    of_vertices: wp.array2d[wp.vec3f],
):
    """d/da of G . ((b - a) x (c - a)) is (b - c) x G, where all three corners of a face add to its G."""
    image, vertex = wp.tid()
    own = of_sum[image, vertex]
    total = wp.vec3f(0.0, 0.0, 0.0)
    for entry in range(fan_offsets[vertex], fan_offsets[vertex + 1]):
        corners = fan[entry]
        of_face = own + of_sum[image, corners[0]] + of_sum[image, corners[1]]
        total += wp.cross(vertices[image, corners[0]] - vertices[image, corners[1]], of_face)
    of_vertices[image, vertex] = total


def unit_normals(vertices: Tensor, mesh: VertexNormals) -> Tensor:
    """See `renderers.vertex_normals.unit_normals`."""
    return _UnitNormals.apply(vertices, mesh.fan_offsets, mesh.fan)


class _UnitNormals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, fan_offsets: Tensor, fan: Tensor) -> Tensor:
        vertices = vertices.contiguous()
        ctx.save_for_backward(vertices, fan_offsets, fan)
        normals = torch.empty_like(vertices)
        launch(sum_normals, vertices.shape[:2], [vertices, fan_offsets, fan, FLAT], [normals])
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        vertices, fan_offsets, fan = ctx.saved_tensors
        of_sum, of_vertices = torch.empty_like(vertices), torch.empty_like(vertices)
        mesh = [vertices, fan_offsets, fan]
        launch(undo_length, vertices.shape[:2], [*mesh, FLAT, gradient.contiguous()], [of_sum])
        launch(gather_gradient, vertices.shape[:2], [*mesh, of_sum], [of_vertices])
        return of_vertices, None, None
