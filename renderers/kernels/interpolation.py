"""Kernels of `renderers.raster.interpolation`."""

from __future__ import annotations

from typing import no_type_check

import warp as wp
from torch import Tensor

from renderers.kernels.launch import differentiable
from renderers.raster.fragments import Fragments


@wp.kernel
@no_type_check  # the kernel language is Warp's, not Python's
def weigh_corners(
    vertices: wp.array2d[wp.vec3f],
    faces: wp.array[wp.vec3l],
    pix_to_face: wp.array3d[wp.int64],
    barycentric: wp.array3d[wp.vec3f],
    depth: wp.array3d[wp.float32],
):
    image, row, column = wp.tid()
    face = int(pix_to_face[image, row, column])
    if face < 0:
        barycentric[image, row, column] = wp.vec3f(0.0, 0.0, 0.0)
        depth[image, row, column] = 0.0
    else:
        corners = faces[face]
        a = vertices[image, int(corners[0])]
        b = vertices[image, int(corners[1])]
        c = vertices[image, int(corners[2])]
        x = float(column) + 0.5
        y = float(row) + 0.5
        wa = (b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)
        wb = (c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)
        wc = (a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)
        facing = wp.where(wa + wb + wc < 0.0, -1.0, 1.0)
        va = wp.where(facing * wa < 0.0, 0.0, facing * wa)
        vb = wp.where(facing * wb < 0.0, 0.0, facing * wb)
        vc = wp.where(facing * wc < 0.0, 0.0, facing * wc)
        over_depth = wp.vec3f(va / a[2], vb / b[2], vc / c[2])
        total = over_depth[0] + over_depth[1] + over_depth[2]
        if total > 0.0:
            barycentric[image, row, column] = over_depth / total
            depth[image, row, column] = (va + vb + vc) / total
        else:
            barycentric[image, row, column] = wp.vec3f(0.0, 0.0, 0.0)
            depth[image, row, column] = 0.0


@wp.kernel
@no_type_check
def mix_corners(
    attributes: wp.array3d[wp.float32],
    faces: wp.array[wp.vec3l],
    pix_to_face: wp.array3d[wp.int64],
    barycentric: wp.array3d[wp.vec3f],
    picture: wp.array4d[wp.float32],
):
    image, row, column = wp.tid()
    face = int(pix_to_face[image, row, column])
    if face < 0:
        for channel in range(attributes.shape[2]):
            picture[image, channel, row, column] = 0.0
    else:
        corners = faces[face]
        a = int(corners[0])
        b = int(corners[1])
        c = int(corners[2])
        weights = barycentric[image, row, column]
        for channel in range(attributes.shape[2]):
            first = weights[0] * attributes[image, a, channel]
            second = weights[1] * attributes[image, b, channel]
            third = weights[2] * attributes[image, c, channel]
            picture[image, channel, row, column] = first + second + third


def make_fragments(vertices_image: Tensor, faces: Tensor, pix_to_face: Tensor) -> Fragments:
    """See `renderers.raster.interpolation.make_fragments`."""
    shape = pix_to_face.shape
    outputs = vertices_image.new_empty(*shape, 3), vertices_image.new_empty(shape)
    inputs = vertices_image.expand(len(pix_to_face), -1, -1), faces.long(), pix_to_face
    return Fragments(pix_to_face, *differentiable(weigh_corners, shape, inputs, outputs))


def interpolate(fragments: Fragments, faces: Tensor, attributes: Tensor) -> Tensor:
    """See `renderers.raster.interpolation.interpolate`."""
    batch, height, width = fragments.pix_to_face.shape
    picture = attributes.new_empty(batch, attributes.shape[2], height, width)
    inputs = attributes.expand(batch, -1, -1), faces.long(), fragments.pix_to_face, fragments.barycentric
    return differentiable(mix_corners, (batch, height, width), inputs, [picture])[0]
