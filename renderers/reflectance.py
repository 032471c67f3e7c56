"""Reflection models: diffuse (Lambert) and specular (Blinn-Phong, and GGX, which the answers are not drawn with)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from renderers.camera import CAMERA_DISTANCE
from renderers.constants import constant
from renderers.illumination import irradiance
from renderers.kernels.on_gpu import on_gpu

LIGHT_ASIDE = (0.0, 0.2)  # tangents of the regressed light's angles where it is told nothing: above the camera
MOST_ASIDE = math.tan(
    math.radians(65)
)  # of its angle to the viewing axis; from the side it would light next to nothing
NEAREST_LIGHT, FARTHEST_LIGHT = 5.0, 25.0  # decimetres from the origin, which lies inside the face
LEAST_SHININESS, MOST_SHININESS = 4.0, 48.0
LEAST_INTENSITY, MOST_INTENSITY = 0.5, 8.0


def lambertian(albedo: Tensor, normals: Tensor, illumination: Tensor) -> Tensor:
    """Diffuse colour, albedo times irradiance (MGCNet section 3.2, SH(N, T | theta) = T * sum_b theta_b H_b).

    Args:
        albedo: (B, N, 3) in [0, 1], display values (MGCNet) or linear (specular); the colour is what the albedo is.
        normals: (B, N, 3) unit vectors in camera space.
        illumination: (B, 27).

    Returns:
        (B, N, 3), not clamped.
    """
    return albedo * irradiance(normals, illumination)


@on_gpu("renderers.kernels.reflectance")
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
    of_light, of_eye, between = _cosines(points, normals, light_position)
    # Of unit vectors l and e: n . h = (n . l + n . e) / |l + e|, |l + e|^2 = 2 + 2 l . e
    cosine = ((of_light + of_eye) * _inverse_root(2 + 2 * between)).clamp_min(0)
    return specular_albedo.clamp_min(0) * ((of_light > 0) * cosine**shininess)[..., None]


def ggx(specular_albedo: Tensor, points: Tensor, normals: Tensor, light_position: Tensor, shininess: Tensor) -> Tensor:
    """Specular colour of the same light on a surface of microfacets (Walter et al., EGSR 2007).

    c_s = 4 a^2 pi D F V (n . l): GGX's distribution D of roughness a, Schlick's F, and V = G / (4 (n . l) (n . e)) with
    Smith's shadows of both directions, correlated by height (Heitz, JCGT 2014, equation 99). a^2 = 2 / (shininess + 2)
    is the roughness that stands for a Blinn-Phong exponent; the peak is narrower and the tail longer. The light is so
    bright that a surface that faces both light and eye reflects its albedo, as with `blinn_phong`.

    Args:
        specular_albedo: (B, N, 3), what is reflected straight on; below 0 counts as 0.
        points: (B, N, 3) posed, decimetres.
        normals: (B, N, 3) unit vectors in camera space.
        light_position: (B, 3) in the frame of `points`, decimetres.
        shininess: (B, 1), positive.

    Returns:
        (B, N, 3), never negative; 0 where light or eye stand behind the surface.
    """
    of_light, of_eye, between = _cosines(points, normals, light_position)
    squared_cosine = (of_light + of_eye).square() / (2 + 2 * between).clamp_min(torch.finfo(points.dtype).eps)
    roughness = 2 / (shininess + 2)  # a squared
    lobe = ggx_distribution(squared_cosine, roughness)
    fresnel = (1 - ((1 + between) / 2).clamp(0, 1).sqrt()) ** 5  # of the angle between light and half vector
    albedo = specular_albedo.clamp_min(0)
    reflected = albedo + (1 - albedo) * fresnel[..., None]
    shadowed = smith_visibility(of_light, of_eye, roughness)
    lit = (of_light > 0) & (of_eye > 0)
    strength = 4 * math.pi * roughness * lobe * shadowed * of_light
    return reflected * torch.where(lit, strength, 0.0)[..., None]


def ggx_distribution(squared_cosine: Tensor, roughness: Tensor) -> Tensor:
    """GGX's D: the area of microfacets, per solid angle, that face a direction.

    Args:
        squared_cosine: (B, N) of the angle between that direction and the normal.
        roughness: (B, 1) a squared, in (0, 1].

    Returns:
        (B, N), whose integral over the hemisphere times the cosine is 1.
    """
    return roughness / (math.pi * (1 - squared_cosine * (1 - roughness)).square())


def smith_visibility(of_light: Tensor, of_eye: Tensor, roughness: Tensor) -> Tensor:
    """G / (4 (n . l) (n . e)) of GGX: the share of microfacets that both light and eye see.

    Args:
        of_light: (B, N) cosine between normal and light; as well as the next it means nothing below 0.
        of_eye: (B, N) between normal and eye.
        roughness: (B, 1) a squared.

    Returns:
        (B, N)
    """
    to_light = of_eye * (of_light.square() * (1 - roughness) + roughness).sqrt()
    to_eye = of_light * (of_eye.square() * (1 - roughness) + roughness).sqrt()
    return 0.5 / (to_light + to_eye).clamp_min(torch.finfo(of_eye.dtype).eps)


def _cosines(points: Tensor, normals: Tensor, light_position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N) three times: of the angles between normal and light, normal and eye, light and eye."""
    eye = constant((0.0, 0.0, CAMERA_DISTANCE), points)
    # The summed axis goes to the front, which is twice as fast on a CPU.
    normals = normals.movedim(-1, 0).contiguous()
    to_light = (light_position[:, None] - points).movedim(-1, 0).contiguous()
    to_eye = (eye - points).movedim(-1, 0).contiguous()
    light_distance, eye_distance = _dot(to_light, to_light), _dot(to_eye, to_eye)
    of_light = _dot(normals, to_light) * _inverse_root(light_distance)
    of_eye = _dot(normals, to_eye) * _inverse_root(eye_distance)
    return of_light, of_eye, _dot(to_light, to_eye) * _inverse_root(light_distance * eye_distance)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """(3, B, N) twice -> (B, N)"""
    return (one * other).sum(dim=0)


def _inverse_root(squared: Tensor) -> Tensor:
    return squared.clamp_min(torch.finfo(squared.dtype).eps).rsqrt()


def decode_light(raw: Tensor) -> Tensor:
    """The light position of a regressed vector, bounded so that it stays in front of the face.

    The first two numbers are tangents of the angles to the viewing axis, to the right and upwards, added to
    `LIGHT_ASIDE` and limited to a length below `MOST_ASIDE`. The third is the distance, geometric in its sigmoid. An
    unbounded position would run away early in training, when wrong highlights cost more than none.

    Args:
        raw: (B, 3), any numbers.

    Returns:
        (B, 3) decimetres in the posed frame.
    """
    aside = raw[:, :2] + constant(LIGHT_ASIDE, raw)
    length = aside.square().sum(dim=-1, keepdim=True).clamp_min(torch.finfo(raw.dtype).tiny).sqrt()
    aside = aside * (MOST_ASIDE * torch.tanh(length / MOST_ASIDE) / length)
    distance = _geometric(raw[:, 2:], NEAREST_LIGHT, FARTHEST_LIGHT)
    return distance * normalize(torch.cat([aside, torch.ones_like(distance)], dim=-1), dim=-1)


def decode_shininess(raw: Tensor) -> Tensor:
    """The shininess of a regressed number: (B, 1) -> (B, 1) in [4, 48], geometric in the sigmoid; 0 gives 13.9."""
    return _geometric(raw, LEAST_SHININESS, MOST_SHININESS)


def decode_intensity(raw: Tensor) -> Tensor:
    """The lamp's intensity of a regressed number: (B, 1) -> (B, 1) in [0.5, 8], geometric in the sigmoid; 0 gives 2.

    It multiplies equation 5, whose lobe is not normalised: the same light in a lobe of exponent n is (n + 8) / 8 times
    as bright at its peak as a wide one, 2.7 times at 13.9.
    """
    return _geometric(raw, LEAST_INTENSITY, MOST_INTENSITY)


def _geometric(raw: Tensor, least: float, most: float) -> Tensor:
    """Any number -> [least, most]; 0 gives their geometric mean."""
    return least * torch.exp(math.log(most / least) * raw.sigmoid())
