"""The light and the relief that best explain a photograph, given its coarse face, by linear least squares."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.finegrained import unsaturated
from renderers.face_renderer import Rendering
from renderers.illumination import AMBIENT, irradiance, spherical_harmonics_basis
from renderers.uv.chart import UVChart, unit

LIGHT_RIDGE = 0.05  # weight of the squared change of the light; the colours' mean squared error has weight 1
SLOPE_STEP = 0.05  # decimetres per unit of u or v, for finite differences of the shading
FLATNESS = 0.07  # variance of the colour differences that albedo causes / variance of the relief's slopes
WIDEST = 8.0  # radians per unit of u or v; waves of this frequency, about as wide as the face, are halved
WIDEST_DIFFERENCE = 16.0  # the same for the colour difference: relief does not make half a face too bright
ITERATIONS = 8  # of conjugate gradients; thirty change the normals' error by a hundredth of a degree


@torch.no_grad()
def refitted_light(image: Tensor, skin: Tensor, illumination: Tensor, rendering: Rendering) -> Tensor:
    """The light that best fits the coarse faces to their photographs, by ridge regression around the coarse light.

    The relief is estimated from small differences in shading, and the errors of the network's light would spoil these.
    A light that is fitted to the face also makes up for errors of its coarse shape and albedo.

    Args:
        image: (B, 3, H, W) photographs in [0, 1].
        skin: (B, 1, H, W) weights in [0, 1].
        illumination: (B, 27) of the coarse faces.
        rendering: the coarse faces, drawn at H x W.

    Returns:
        (B, 27)
    """
    weights = (rendering.mask * skin * unsaturated(image)).flatten(1)
    weights = (weights / weights.sum(dim=1, keepdim=True).clamp_min(1))[:, None]
    basis = spherical_harmonics_basis(unit(rendering.normals).flatten(2).transpose(1, 2))[:, None]
    albedo, colors = rendering.albedo.flatten(2), image.flatten(2)
    left = (basis * (weights * albedo.square())[..., None]).transpose(-1, -2)
    start = illumination.unflatten(-1, (3, 9)).clone()
    start[..., 0] += AMBIENT
    normal = left @ basis + LIGHT_RIDGE * torch.eye(9, dtype=image.dtype, device=image.device)
    right = (basis * (weights * albedo * colors)[..., None]).sum(dim=2)
    light = torch.linalg.solve(normal, right + LIGHT_RIDGE * start)
    light[..., 0] -= AMBIENT
    return light.flatten(1)


@torch.no_grad()
def relief_from_shading(
    chart: UVChart, difference: Tensor, visibility: Tensor, illumination: Tensor, rendering: Rendering
) -> Tensor:
    """The relief h that changes the coarse faces' shading by the difference e between photographs and renders.

    To first order, slopes (h_u, h_v) change a colour by r_u h_u + r_v h_v, where r is the derivative of the shading.
    The relief minimises a sum of squares, in which slopes and waves as wide as the face have a cost, and v is the
    visibility: sum v (r_u h_u + r_v h_v - e)^2 + FLATNESS (|tilt|^2 + (WIDEST h)^2).

    Args:
        chart: of the face model.
        difference: (B, 3, R, R) e, photograph minus coarse render in the light `illumination`.
        visibility: (B, 1, R, R) how visible each texel is, in [0, 1].
        illumination: (B, 27) of the photographs.
        rendering: the coarse faces.

    Returns:
        (B, 1, R, R) decimetres along the normals; 0 outside the chart.
    """
    normals = unit(chart.bake(rendering.vertex_normals))
    albedo, places = chart.bake(rendering.vertex_albedo), chart.bake(chart.uv).expand(len(normals), -1, -1, -1)
    tilts = [chart.surface_gradient(rendering, place) for place in places.split(1, dim=1)]
    bent = torch.cat([normals, *(unit(normals - SLOPE_STEP * tilt) for tilt in tilts)])
    light = irradiance(bent.flatten(2).transpose(1, 2), illumination.repeat(3, 1)).transpose(1, 2)
    flat, along_u, along_v = (albedo * light.unflatten(2, bent.shape[2:]).unflatten(0, (3, -1))).unbind()
    answers = [(along - flat) / SLOPE_STEP for along in (along_u, along_v)]
    weigh = [_dot(visibility * a, b) + FLATNESS * _dot(s, t) for (a, s), (b, t) in _pairs(answers, tilts)]
    target = [_dot(visibility * answer, without_wide_waves(difference, WIDEST_DIFFERENCE)) for answer in answers]
    return _solved(weigh, target) * chart.mask


def _pairs(answers: list[Tensor], tilts: list[Tensor]) -> list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """The pairs uu, uv and vv."""
    u, v = zip(answers, tilts, strict=True)
    return [(u, u), (u, v), (v, v)]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _solved(weigh: list[Tensor], target: list[Tensor]) -> Tensor:
    """Solve div (W grad h) - FLATNESS WIDEST^2 h = div target: conjugate gradients, preconditioned in Fourier space."""
    uu, uv, vv = weigh

    def applied(surface: Tensor) -> Tensor:
        u, v = _slopes(surface)
        return _slopes_transposed(uu * u + uv * v, uv * u + vv * v) + FLATNESS * WIDEST**2 * surface

    residual = _slopes_transposed(*target)
    surface, direction, before = torch.zeros_like(residual), torch.zeros_like(residual), torch.ones_like(residual)
    for _ in range(ITERATIONS):
        smooth = _without_narrow_waves(residual)
        now = _inner(residual, smooth)
        direction = smooth + now / before * direction
        image = applied(direction)
        step = now / _inner(direction, image).clamp_min(torch.finfo(now.dtype).tiny)
        surface, residual, before = surface + step * direction, residual - step * image, now.clamp_min(1e-30)
    return surface


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def _slopes(surface: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences per unit of u (columns) and v (against the rows) of a periodic (B, 1, R, R) surface."""
    side = surface.shape[-1]
    return side * (surface.roll(-1, -1) - surface), side * (surface - surface.roll(-1, -2))


def _slopes_transposed(along_u: Tensor, along_v: Tensor) -> Tensor:
    side = along_u.shape[-1]
    return side * (along_u.roll(1, -1) - along_u) + side * (along_v - along_v.roll(1, -2))


def _without_narrow_waves(maps: Tensor) -> Tensor:
    """Divide each frequency by omega^2 + WIDEST^2, which inverts the operator if all texels weigh the same."""
    return torch.fft.irfft2(torch.fft.rfft2(maps) / (_squared_frequencies(maps) + WIDEST**2), s=maps.shape[-2:])


def without_wide_waves(maps: Tensor, widest: float = WIDEST) -> Tensor:
    """Damp low frequencies of (B, C, R, R), which the coarse face explains, by 1 / (1 + (widest / omega)^2)."""
    squared = _squared_frequencies(maps)
    return torch.fft.irfft2(torch.fft.rfft2(maps) * (squared / (squared + widest**2)), s=maps.shape[-2:])


def _squared_frequencies(maps: Tensor) -> Tensor:
    """(R, R // 2 + 1) squared radians per unit of u and v, as `rfft2` orders them."""
    height, width = maps.shape[-2:]
    omega_u = 2 * math.pi * torch.fft.rfftfreq(width, 1 / width, device=maps.device)
    omega_v = 2 * math.pi * torch.fft.fftfreq(height, 1 / height, device=maps.device)
    return omega_u.square() + omega_v.square()[:, None]
