"""Warp kernels for the functions of the same names in `losses.photometric`."""

from __future__ import annotations

from typing import no_type_check

import warp as wp
from torch import Tensor

from renderers.kernels.launch import differentiable, launch


@wp.func
@no_type_check
def distance_between(one: wp.vec3f, other: wp.vec3f):
    squared = wp.dot(one - other, one - other)
    if squared == 0.0:
        return 0.0  # and no gradient
    return wp.sqrt(squared)


@wp.func
@no_type_check
def color_at(picture: wp.array4d[wp.float32], image: wp.int32, row: wp.int32, column: wp.int32):
    return wp.vec3f(picture[image, 0, row, column], picture[image, 1, row, column], picture[image, 2, row, column])


@wp.kernel
@no_type_check
def measure_colors(one: wp.array4d[wp.float32], other: wp.array4d[wp.float32], distance: wp.array4d[wp.float32]):
    image, row, column = wp.tid()
    distance[image, 0, row, column] = distance_between(
        color_at(one, image, row, column), color_at(other, image, row, column)
    )


def color_distance(one: Tensor, other: Tensor) -> Tensor:
    """See `losses.photometric.color_distance`."""
    distance = one.new_empty(len(one), 1, *one.shape[2:])
    return differentiable(measure_colors, distance.squeeze(1).shape, (one, other.expand_as(one)), [distance])[0]


@wp.func
@no_type_check
def gain_beyond(
    rendered: wp.array4d[wp.float32],
    guiding: wp.array4d[wp.float32],
    mask: wp.array4d[wp.bool],
    image: wp.int32,
    row: wp.int32,
    column: wp.int32,
    other_row: wp.int32,
    other_column: wp.int32,
):
    if other_row < 0 or other_column < 0 or other_row >= mask.shape[2] or other_column >= mask.shape[3]:
        return 0.0
    if mask[image, 0, other_row, other_column]:
        return 0.0
    black = wp.vec3f(0.0, 0.0, 0.0)
    face = color_at(rendered, image, row, column)
    inside = color_at(guiding, image, row, column)
    outside = color_at(guiding, image, other_row, other_column)
    covered = distance_between(face, inside) + distance_between(face, outside)
    return (covered - distance_between(inside, black) - distance_between(outside, black)) / 2.0


@wp.kernel(enable_backward=False)
@no_type_check
def measure_outline(
    rendered: wp.array4d[wp.float32],
    guiding: wp.array4d[wp.float32],
    mask: wp.array4d[wp.bool],
    gain: wp.array4d[wp.float32],
):
    image, row, column = wp.tid()
    if mask[image, 0, row, column]:
        right = gain_beyond(rendered, guiding, mask, image, row, column, row, column + 1)
        left = gain_beyond(rendered, guiding, mask, image, row, column, row, column - 1)
        down = gain_beyond(rendered, guiding, mask, image, row, column, row + 1, column)
        up = gain_beyond(rendered, guiding, mask, image, row, column, row - 1, column)
        gain[image, 0, row, column] = right - left
        gain[image, 1, row, column] = down - up
    else:
        gain[image, 0, row, column] = 0.0
        gain[image, 1, row, column] = 0.0


def outline_gain(rendered: Tensor, guiding: Tensor, mask: Tensor) -> Tensor:
    """See `losses.photometric.outline_gain`."""
    batch, _, height, width = mask.shape
    gain = rendered.new_empty(batch, 2, height, width)
    launch(measure_outline, (batch, height, width), [rendered, guiding, mask], [gain])
    return gain
