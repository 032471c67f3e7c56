"""Kernel of `renderers.illumination`."""

from __future__ import annotations

from typing import no_type_check

import warp as wp
from torch import Tensor

from renderers.illumination import AMBIENT, BAND_0, BAND_1, BAND_2
from renderers.kernels.launch import differentiable, in_pieces

FLAT, TILTED, CURVED = wp.constant(BAND_0), wp.constant(BAND_1), wp.constant(BAND_2)
GIVEN = wp.constant(AMBIENT)
ROOT_3 = wp.constant(3.0**0.5)


@wp.func
@no_type_check
def light(weights: wp.array3d[wp.float32], image: wp.int32, first: wp.int32, piece: wp.int32, n: wp.vec3f):
    x = n[0]
    y = n[1]
    z = n[2]
    total = FLAT * (weights[image, first, piece] + GIVEN)
    total += TILTED * (
        z * weights[image, first + 2, piece]
        - y * weights[image, first + 1, piece]
        - x * weights[image, first + 3, piece]
    )
    total += CURVED * (x * y * weights[image, first + 4, piece] - y * z * weights[image, first + 5, piece])
    total += CURVED / (2.0 * ROOT_3) * (3.0 * z * z - 1.0) * weights[image, first + 6, piece]
    total += CURVED * (
        (x * x - y * y) / 2.0 * weights[image, first + 8, piece] - x * z * weights[image, first + 7, piece]
    )
    return total


@wp.kernel
@no_type_check
def gather_light(
    normals: wp.array2d[wp.vec3f],
    illumination: wp.array3d[wp.float32],
    arriving: wp.array2d[wp.vec3f],
):
    image, point = wp.tid()
    piece = point % illumination.shape[2]
    normal = normals[image, point]
    arriving[image, point] = wp.vec3f(
        light(illumination, image, 0, piece, normal),
        light(illumination, image, 9, piece, normal),
        light(illumination, image, 18, piece, normal),
    )


def irradiance(normals: Tensor, illumination: Tensor) -> Tensor:
    """See `renderers.illumination.irradiance`."""
    inputs = normals, in_pieces(illumination, len(normals))
    return differentiable(gather_light, normals.shape[:2], inputs, [normals.new_empty(normals.shape)])[0]
