"""Pictures of a reconstruction: render, shape, albedo, depth and light."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.face_renderer import Rendering
from renderers.reflectance import lambertian

GRAY = 0.75  # albedo of the clay that shows the shape


def clay(rendering: Rendering) -> Tensor:
    """(B, 3, H, W) in [0, 1]: the shape alone, in grey under one soft light from the upper left, on white."""
    albedo = torch.full_like(rendering.vertex_albedo, GRAY)
    light = rendering.vertices.new_zeros(3, 9)
    # The basis holds -y, z, -x in its first band: a light from the left, above and in front.
    light[:, 1:4] = light.new_tensor([-0.15, 0.25, 0.12])
    light[:, 0] = -0.25
    colors = lambertian(albedo, rendering.vertex_normals, light.flatten().expand(len(albedo), -1))
    return torch.where(rendering.mask, rendering.draw(colors).clamp(0, 1), 1.0)


def depth_picture(rendering: Rendering) -> Tensor:
    """(B, 3, H, W) in [0, 1]: near is light, far is dark, each face over its own range, on black."""
    depth, mask = rendering.depth, rendering.mask
    near = torch.where(mask, depth, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    far = torch.where(mask, depth, -torch.inf).amax(dim=(1, 2, 3), keepdim=True)
    shade = 1 - 0.85 * (depth - near) / (far - near).clamp_min(1e-6)
    return torch.where(mask, shade, torch.zeros_like(shade)).expand(-1, 3, -1, -1)


def face_panels(image: Tensor, rendering: Rendering) -> dict[str, Tensor]:
    """Input, render, overlay, shape, albedo and depth, each (B, 3, H, W) in [0, 1].

    Args:
        image: (B, 3, H, W) the photograph, in [0, 1].
        rendering: its reconstruction.
    """
    render = rendering.image.clamp(0, 1)
    return {
        "input": image,
        "render": render,
        "overlay": torch.where(rendering.mask, render, image),
        "shape": clay(rendering),
        "albedo": rendering.albedo.clamp(0, 1),
        "depth": depth_picture(rendering),
    }


def light_picture(shading: Tensor) -> Tensor:
    """(B, 3, H, W) RGB irradiance, which is often more than 1 -> colours in [0, 1], each brightest place white."""
    return shading / shading.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
