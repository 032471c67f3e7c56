"""How a surface answers light."""

from __future__ import annotations

from torch import Tensor

from renderers.illumination import irradiance


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
