"""Visibility by NVIDIA Warp: one kernel source for CPU and CUDA.

The z-buffer holds one 64-bit word a pixel, the bits of the depth above the face's index, so that one atomic minimum
keeps the nearest face, and of equally near ones the first (a positive float's bits order like the float).
"""

from __future__ import annotations

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from renderers.camera import NEAR
from renderers.kernels.launch import launch
from renderers.raster.rasterize import MAX_EXTENT, MIN_AREA

# Without fused multiply-adds an edge function is exactly the neighbouring face's, negated: no crack between two faces.
wp.set_module_options({"enable_backward": False, "fuse_fp": False})

EMPTY = torch.iinfo(torch.int64).max  # above every depth, and its low word reads -1
GPU_THREADS = 1 << 16  # enough to keep a GPU busy


@wp.func
@no_type_check  # the kernel language is Warp's, not Python's
def draw_face(
    a: wp.vec3f,
    b: wp.vec3f,
    c: wp.vec3f,
    image: wp.int32,
    face: wp.int32,
    strip: wp.int32,
    strips: wp.int32,
    near: wp.float32,
    min_area: wp.float32,
    max_extent: wp.float32,
    z_buffer: wp.array3d[wp.int64],
):
    # The pixels whose centres lie in the bounding box; clamped as floats, since a coordinate may lie anywhere.
    left = wp.max(wp.ceil(wp.min(wp.min(a[0], b[0]), c[0]) - 0.5), 0.0)
    right = wp.min(wp.floor(wp.max(wp.max(a[0], b[0]), c[0]) - 0.5), float(z_buffer.shape[2] - 1))
    top = wp.max(wp.ceil(wp.min(wp.min(a[1], b[1]), c[1]) - 0.5), 0.0)
    bottom = wp.min(wp.floor(wp.max(wp.max(a[1], b[1]), c[1]) - 0.5), float(z_buffer.shape[1] - 1))
    if left > right or top > bottom:
        return
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    nearest = wp.min(wp.min(a[2], b[2]), c[2])
    extent = wp.abs(a[0]) + wp.abs(a[1]) + wp.abs(b[0]) + wp.abs(b[1]) + wp.abs(c[0]) + wp.abs(c[1])
    extent += wp.abs(a[2]) + wp.abs(b[2]) + wp.abs(c[2])
    # Written so that a NaN fails it.
    if not (nearest > near and wp.abs(area) >= min_area and extent <= max_extent):
        return

    facing = wp.sign(area)
    inverse_a = 1.0 / a[2]
    inverse_b = 1.0 / b[2]
    inverse_c = 1.0 / c[2]
    first = int(left)
    past = int(right) + 1
    for row in range(int(top) + strip, int(bottom) + 1, strips):
        y = float(row) + 0.5
        ay = facing * (a[1] - y)
        by = facing * (b[1] - y)
        cy = facing * (c[1] - y)
        column = int(first)
        while column < past:  # Warp's `range` keeps its state in memory, which costs a tenth of the kernel here
            x = float(column) + 0.5
            ax = a[0] - x
            bx = b[0] - x
            cx = c[0] - x
            wa = bx * cy - by * cx
            wb = cx * ay - cy * ax
            wc = ax * by - ay * bx
            doubled = wa + wb + wc
            if wa >= 0.0 and wb >= 0.0 and wc >= 0.0 and doubled > 0.0:
                depth = doubled / (wa * inverse_a + wb * inverse_b + wc * inverse_c)
                key = (wp.int64(wp.cast(depth, wp.int32)) << wp.int64(32)) | wp.int64(face)
                wp.atomic_min(z_buffer, image, row, column, key)
            column += 1


@wp.kernel
@no_type_check
def draw_faces(
    vertices: wp.array2d[wp.vec3f],
    faces: wp.array[wp.vec3l],
    workers: wp.int32,
    strips: wp.int32,
    near: wp.float32,
    min_area: wp.float32,
    max_extent: wp.float32,
    z_buffer: wp.array3d[wp.int64],
):
    image, worker, strip = wp.tid()
    for face in range(worker, faces.shape[0], workers):
        corners = faces[face]
        a = vertices[image, int(corners[0])]
        b = vertices[image, int(corners[1])]
        c = vertices[image, int(corners[2])]
        draw_face(a, b, c, image, face, strip, strips, near, min_area, max_extent, z_buffer)


def visible_faces(vertices_image: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """See `renderers.raster.rasterize.Backend`; runs where the tensors are, on torch's current CUDA stream."""
    vertices = vertices_image.detach().to(torch.float32).contiguous()
    faces = faces.to(torch.int64).contiguous()
    batch, count = len(vertices), len(faces)
    z_buffer = torch.full((batch, *size), EMPTY, dtype=torch.int64, device=vertices.device)
    if batch:
        # On the CPU one thread an image draws every face; on a GPU each face has a thread, or several if faces are few.
        on_cpu = vertices.device.type == "cpu"
        workers = 1 if on_cpu else count
        strips = 1 if on_cpu else max(1, min(size[0], GPU_THREADS // (batch * count)))
        numbers = workers, strips, NEAR, MIN_AREA, MAX_EXTENT
        launch(draw_faces, (batch, workers, strips), [vertices, faces, *numbers], [z_buffer])
    # The low word, sign-extended.
    return z_buffer.bitwise_left_shift_(32).bitwise_right_shift_(32)
