"""How a surface answers light."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from renderers.camera import CAMERA_DISTANCE
from renderers.illumination import irradiance

LIGHT_ORIGIN = (0.0, 2.0, 10.0)  # decimetres: above the camera
LIGHT_UNIT = 10.0  # decimetres that a regressed 1 moves the light
NEAREST_LIGHT = 2.0  # decimetres in front of the origin, which lies inside the face
LEAST_SHININESS, MOST_SHININESS = 4.0, 128.0


def lambertian(albedo: Tensor, normals: Tensor, illumination: Tensor) -> Tensor:
    """Diffuse colour, albedo times irradiance (MGCNet section 3.2, SH(N, T | theta) = T * sum_b theta_b H_b).

    Args:
        albedo: (B, N, 3) in [0, 1].
        normals: (B, N, 3) unit vectors in camera space.
        illumination: (B, 27).

    Returns:
        (B, N, 3), not clamped.
    """
    return albedo * irradiance(normals, illumination)


def blinn_phong(
    specular_albedo: Tensor, points: Tensor, normals: Tensor, light_position: Tensor, shininess: Tensor
) -> Tensor:
    """Specular colour of one point light, seen from the camera (specular, equation 5).

    c_s = t_s * max(0, n . h) ** shininess with the half vector h = normalize(to_light + to_eye), which is what the
    equation's v_out - v_in is for an incoming v_in; 0 where the light stands behind the surface (n . to_light <= 0).

    Args:
        specular_albedo: (B, N, 3); what is below 0 reflects nothing.
        points: (B, N, 3) posed, x_cam = R x + t, decimetres.
        normals: (B, N, 3) unit vectors in camera space.
        light_position: (B, 3) in the frame of `points`, decimetres.
        shininess: (B, 1), positive.

    Returns:
        (B, N, 3), never negative, at most the albedo.
    """
    eye = points.new_tensor([0.0, 0.0, CAMERA_DISTANCE])
    to_light = normalize(light_position[:, None] - points, dim=-1)
    half = normalize(to_light + normalize(eye - points, dim=-1), dim=-1)
    cosine = (normals * half).sum(dim=-1).clamp_min(0)
    lit = (normals * to_light).sum(dim=-1) > 0
    return specular_albedo.clamp_min(0) * (lit * cosine**shininess)[..., None]


def decode_light(raw: Tensor) -> Tensor:
    """The light position of a regressed vector: `LIGHT_ORIGIN` + 10 raw, bent so that it stays in front of the face.

    Args:
        raw: (B, 3), any numbers.

    Returns:
        (B, 3) decimetres in the posed frame, z at least `NEAREST_LIGHT`; zeros give `LIGHT_ORIGIN` to 0.03 mm.
    """
    x, y, z = (raw.new_tensor(LIGHT_ORIGIN) + LIGHT_UNIT * raw).unbind(-1)
    return torch.stack([x, y, NEAREST_LIGHT + softplus(z - NEAREST_LIGHT)], dim=-1)


def decode_shininess(raw: Tensor) -> Tensor:
    """The shininess of a regressed number: (B, 1) -> (B, 1) in [4, 128], geometric in the sigmoid; 0 gives 22.6."""
    return LEAST_SHININESS * torch.exp(math.log(MOST_SHININESS / LEAST_SHININESS) * raw.sigmoid())
