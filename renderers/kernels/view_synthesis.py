"""Kernels of `renderers.view_synthesis`."""

from __future__ import annotations

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from renderers.camera import NEAR
from renderers.kernels.camera import pinhole
from renderers.kernels.launch import differentiable, in_pieces, launch
from renderers.view_synthesis import SynthesizedView

NEAREST = wp.constant(NEAR)


@wp.kernel
@no_type_check
def sample_view(
    source: wp.array4d[wp.float32],
    depth_source: wp.array4d[wp.float32],
    depth_target: wp.array4d[wp.float32],
    motion: wp.array3d[wp.float32],  # rotation row by row, translation
    cameras: wp.array3d[wp.float32],  # the target's focal lengths and principal point, the source's
    image: wp.array4d[wp.float32],
    depth: wp.array4d[wp.float32],
    inside: wp.array4d[wp.bool],
):
    pair, row, column = wp.tid()
    height = source.shape[2]
    width = source.shape[3]
    piece = (row * depth_target.shape[3] + column) % motion.shape[2]
    distance = depth_target[pair, 0, row, column]
    # Values of the whole pair are read once: every further read would add to their gradient again.
    right_x = motion[pair, 0, piece]
    right_y = motion[pair, 1, piece]
    right_z = motion[pair, 2, piece]
    down_x = motion[pair, 3, piece]
    down_y = motion[pair, 4, piece]
    down_z = motion[pair, 5, piece]
    ahead_x = motion[pair, 6, piece]
    ahead_y = motion[pair, 7, piece]
    ahead_z = motion[pair, 8, piece]
    shift = wp.vec3f(motion[pair, 9, piece], motion[pair, 10, piece], motion[pair, 11, piece])
    x = (float(column) + 0.5 - cameras[pair, 2, piece]) / cameras[pair, 0, piece] * distance
    y = (float(row) + 0.5 - cameras[pair, 3, piece]) / cameras[pair, 1, piece] * distance
    moved_x = right_x * x + right_y * y + right_z * distance + shift[0]
    moved_y = down_x * x + down_y * y + down_z * distance + shift[1]
    moved_z = ahead_x * x + ahead_y * y + ahead_z * distance + shift[2]
    shown = distance > NEAREST and moved_z > NEAREST
    nearest = wp.where(shown, moved_z, 1.0)
    seen_x = moved_x / nearest
    seen_y = moved_y / nearest
    # In samples, whose centres are whole numbers.
    place_x = cameras[pair, 4, piece] * seen_x + cameras[pair, 6, piece] - 0.5
    place_y = cameras[pair, 5, piece] * seen_y + cameras[pair, 7, piece] - 0.5
    within = place_x >= -0.5 and place_x <= float(width) - 0.5 and place_y >= -0.5 and place_y <= float(height) - 0.5
    if shown and within:
        held_x = wp.clamp(place_x, 0.0, float(width - 1))
        held_y = wp.clamp(place_y, 0.0, float(height - 1))
        left = int(wp.floor(held_x))
        top = int(wp.floor(held_y))
        right = wp.min(left + 1, width - 1)
        bottom = wp.min(top + 1, height - 1)
        share_x = held_x - wp.floor(held_x)
        share_y = held_y - wp.floor(held_y)
        upper_left = (1.0 - share_x) * (1.0 - share_y)
        upper_right = share_x * (1.0 - share_y)
        lower_left = (1.0 - share_x) * share_y
        lower_right = share_x * share_y
        depth_a = depth_source[pair, 0, top, left]
        depth_b = depth_source[pair, 0, top, right]
        depth_c = depth_source[pair, 0, bottom, left]
        depth_d = depth_source[pair, 0, bottom, right]
        bare = wp.where(depth_a > 0.0, 0.0, upper_left) + wp.where(depth_b > 0.0, 0.0, upper_right)
        bare = bare + wp.where(depth_c > 0.0, 0.0, lower_left) + wp.where(depth_d > 0.0, 0.0, lower_right)
        sampled = upper_left * depth_a + upper_right * depth_b + lower_left * depth_c + lower_right * depth_d
        # Back in the target's camera: the z of R^T (D_s K_s^-1 p_s - t).
        back = wp.vec3f(seen_x, seen_y, moved_z / nearest) * sampled - shift
        depth[pair, 0, row, column] = wp.dot(wp.vec3f(right_z, down_z, ahead_z), back)
        inside[pair, 0, row, column] = bare <= 0.0
        for channel in range(source.shape[1]):
            image[pair, channel, row, column] = (
                upper_left * source[pair, channel, top, left]
                + upper_right * source[pair, channel, top, right]
                + lower_left * source[pair, channel, bottom, left]
                + lower_right * source[pair, channel, bottom, right]
            )
    else:
        depth[pair, 0, row, column] = 0.0
        inside[pair, 0, row, column] = False
        for channel in range(source.shape[1]):
            image[pair, channel, row, column] = 0.0


def synthesize_view(
    source: Tensor,
    depth_source: Tensor,
    depth_target: Tensor,
    intrinsics_target: Tensor,
    intrinsics_source: Tensor,
    rotation: Tensor,
    translation: Tensor,
) -> SynthesizedView:
    """See `renderers.view_synthesis.synthesize_view`; where `inside` is false, image and depth are 0."""
    pairs, _, rows, columns = depth_target.shape
    motion = torch.cat([rotation.flatten(1), translation], dim=1)
    cameras = torch.cat([pinhole(intrinsics_target), pinhole(intrinsics_source)], dim=1)
    outputs = (
        source.new_empty(pairs, source.shape[1], rows, columns),
        source.new_empty(depth_target.shape),
        torch.empty(depth_target.shape, dtype=torch.bool, device=source.device),
    )
    pictures = source.expand(pairs, -1, -1, -1), depth_source.expand(pairs, -1, *source.shape[2:])
    inputs = *pictures, depth_target, in_pieces(motion, pairs), in_pieces(cameras, pairs)
    return SynthesizedView(*differentiable(sample_view, (pairs, rows, columns), inputs, outputs))


@wp.kernel(enable_backward=False)
@no_type_check
def mark_vertices(
    pix_to_face: wp.array3d[wp.int64],
    faces: wp.array[wp.vec3l],
    shown: wp.array2d[wp.bool],
):
    pair, row, column = wp.tid()
    face = int(pix_to_face[pair, row, column])
    if face >= 0:
        corners = faces[face]
        for corner in range(3):
            shown[pair, int(corners[corner])] = True


@wp.kernel(enable_backward=False)
@no_type_check
def share_vertices(
    pix_to_face: wp.array3d[wp.int64],
    faces: wp.array[wp.vec3l],
    in_target: wp.array2d[wp.bool],
    in_source: wp.array2d[wp.bool],
    covisible: wp.array4d[wp.bool],
):
    pair, row, column = wp.tid()
    face = int(pix_to_face[pair, row, column])
    if face < 0:
        covisible[pair, 0, row, column] = False
    else:
        corners = faces[face]
        a = int(corners[0])
        b = int(corners[1])
        c = int(corners[2])
        covisible[pair, 0, row, column] = (
            (in_target[pair, a] and in_source[pair, a])
            or (in_target[pair, b] and in_source[pair, b])
            or (in_target[pair, c] and in_source[pair, c])
        )


def covisible_map(target: Tensor, source: Tensor, faces: Tensor, vertex_count: int) -> Tensor:
    """See `renderers.view_synthesis.covisible_map`."""
    target, source, faces = target.long(), source.long().expand(len(target), -1, -1), faces.long()
    shown = torch.zeros(2, len(target), vertex_count, dtype=torch.bool, device=faces.device)
    for view, pixels in zip(shown, (target, source), strict=True):
        launch(mark_vertices, pixels.shape, [pixels, faces], [view])
    covisible = torch.empty_like(target, dtype=torch.bool).unsqueeze(1)
    launch(share_vertices, target.shape, [target, faces, *shown], [covisible])
    return covisible
