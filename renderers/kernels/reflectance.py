"""Kernel of `renderers.reflectance`."""

from __future__ import annotations

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from renderers.camera import CAMERA_DISTANCE
from renderers.kernels.launch import differentiable, in_pieces

DISTANCE = wp.constant(CAMERA_DISTANCE)
LEAST = wp.constant(torch.finfo(torch.float32).eps)  # of what a root is divided by


@wp.func
@no_type_check
def inverse_root(squared: wp.float32):
    return 1.0 / wp.sqrt(wp.where(squared < LEAST, LEAST, squared))


@wp.kernel
@no_type_check
def shine(
    specular_albedo: wp.array2d[wp.vec3f],
    points: wp.array2d[wp.vec3f],
    normals: wp.array2d[wp.vec3f],
    lamp: wp.array3d[wp.float32],  # position, shininess
    highlights: wp.array2d[wp.vec3f],
):
    image, point = wp.tid()
    piece = point % lamp.shape[2]
    here = points[image, point]
    normal = normals[image, point]
    to_light = wp.vec3f(lamp[image, 0, piece], lamp[image, 1, piece], lamp[image, 2, piece]) - here
    to_eye = wp.vec3f(0.0, 0.0, DISTANCE) - here
    light_distance = wp.dot(to_light, to_light)
    eye_distance = wp.dot(to_eye, to_eye)
    of_light = wp.dot(normal, to_light) * inverse_root(light_distance)
    of_eye = wp.dot(normal, to_eye) * inverse_root(eye_distance)
    between = wp.dot(to_light, to_eye) * inverse_root(light_distance * eye_distance)
    cosine = (of_light + of_eye) * inverse_root(2.0 + 2.0 * between)
    if of_light > 0.0 and cosine > 0.0:
        strength = wp.pow(cosine, lamp[image, 3, piece])
        albedo = specular_albedo[image, point]
        highlights[image, point] = strength * wp.vec3f(
            wp.where(albedo[0] < 0.0, 0.0, albedo[0]),
            wp.where(albedo[1] < 0.0, 0.0, albedo[1]),
            wp.where(albedo[2] < 0.0, 0.0, albedo[2]),
        )
    else:
        highlights[image, point] = wp.vec3f(0.0, 0.0, 0.0)


def blinn_phong(
    specular_albedo: Tensor, points: Tensor, normals: Tensor, light_position: Tensor, shininess: Tensor
) -> Tensor:
    """See `renderers.reflectance.blinn_phong`."""
    lamp = in_pieces(torch.cat([light_position, shininess], dim=1), len(points))
    inputs = specular_albedo.expand_as(points), points, normals.expand_as(points), lamp
    return differentiable(shine, points.shape[:2], inputs, [points.new_empty(points.shape)])[0]
