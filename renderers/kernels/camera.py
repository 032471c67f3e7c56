"""Kernel of `renderers.camera`."""

from __future__ import annotations

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from renderers.camera import CAMERA_DISTANCE, NEAR
from renderers.kernels.launch import differentiable, in_pieces

DISTANCE, NEAREST = wp.constant(CAMERA_DISTANCE), wp.constant(NEAR)


@wp.kernel
@no_type_check
def place_points(
    points: wp.array2d[wp.vec3f],
    motion: wp.array3d[wp.float32],  # rotation row by row, translation
    camera: wp.array3d[wp.float32],  # focal lengths, principal point
    posed: wp.array2d[wp.vec3f],
    projected: wp.array2d[wp.vec3f],
):
    image, point = wp.tid()
    piece = point % motion.shape[2]
    p = points[image, point]
    x = motion[image, 0, piece] * p[0] + motion[image, 1, piece] * p[1] + motion[image, 2, piece] * p[2]
    y = motion[image, 3, piece] * p[0] + motion[image, 4, piece] * p[1] + motion[image, 5, piece] * p[2]
    z = motion[image, 6, piece] * p[0] + motion[image, 7, piece] * p[1] + motion[image, 8, piece] * p[2]
    x = x + motion[image, 9, piece]
    y = y + motion[image, 10, piece]
    z = z + motion[image, 11, piece]
    depth = DISTANCE - z
    inverse = 1.0 / wp.where(depth < NEAREST, NEAREST, depth)
    posed[image, point] = wp.vec3f(x, y, z)
    projected[image, point] = wp.vec3f(
        camera[image, 2, piece] + camera[image, 0, piece] * x * inverse,
        camera[image, 3, piece] - camera[image, 1, piece] * y * inverse,
        depth,
    )


def pose_and_project(
    points: Tensor, rotation: Tensor, translation: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    """See `renderers.camera.pose_and_project`."""
    motion = torch.cat([rotation.flatten(1), translation], dim=1)
    shared = in_pieces(motion, len(points)), in_pieces(pinhole(intrinsics), len(points))
    outputs = points.new_empty(points.shape), points.new_empty(points.shape)
    posed, projected = differentiable(place_points, points.shape[:2], (points, *shared), outputs)
    return posed, projected


def pinhole(intrinsics: Tensor) -> Tensor:
    """(B, 3, 3) without skew -> (B, 4) focal lengths and principal point."""
    return torch.cat([intrinsics.diagonal(dim1=1, dim2=2)[:, :2], intrinsics[:, :2, 2]], dim=1)
