"""Which vertices a picture shows, and the baseline that needs no training: hidden skin copied from the other side."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.self_augmentation.rerender import TexturedFaces, recolored
from renderers.face_renderer import Rendering
from renderers.illumination import irradiance

VISIBLE_TOLERANCE = 0.05  # decimetres; on a slanted surface a visible vertex may be deeper than its pixel's centre
LEAST_LIGHT = 0.1  # less light than this tells nothing of a colour


def hidden_vertices(vertices_image: Tensor, depth: Tensor, hidden: Tensor) -> Tensor:
    """Vertices that face the camera and are covered by an occluder.

    Args:
        vertices_image: (B, V, 3) x, y in pixels, z the positive depth in decimetres.
        depth: (B, 1, H, W) of the face alone, decimetres, 0 where there is none.
        hidden: (B, 1, H, W) bool, the occluder.

    Returns:
        (B, V) bool.
    """
    inside, pixel = _pixels(vertices_image, *depth.shape[-2:])
    surface = depth.flatten(1).gather(1, pixel)
    visible = inside & (surface > 0) & (vertices_image[..., 2] <= surface + VISIBLE_TOLERANCE)
    return visible & hidden.flatten(1).gather(1, pixel)


def mirrored(faces: TexturedFaces, image: Tensor, hidden: Tensor, partner: Tensor) -> Rendering:
    """The fine faces with what they do not see in the picture copied from the face's other side.

    A vertex that the picture does not show takes the picture's colour at its mirror image, freed of the coarse light.
    If that is not shown either, it takes the coarse colour.

    Args:
        faces: found in B pictures.
        image: (B, 3, H, W) the pictures.
        hidden: (B, 1, H, W) bool, exactly where an occluder lies, which the model is not told.
        partner: (V,) each vertex's mirror image.
    """
    coarse = faces.coarse
    seen = hidden_vertices(coarse.vertices_image, coarse.depth, ~hidden)
    _, pixel = _pixels(coarse.vertices_image, *image.shape[-2:])
    shown = image.flatten(2).gather(2, pixel[:, None].expand(-1, 3, -1)).transpose(1, 2)
    light = irradiance(coarse.vertex_normals, faces.coefficients.illumination).clamp_min(LEAST_LIGHT)
    copied = (shown / light).clamp(0, 1)[:, partner]
    filled = torch.where(seen[:, partner, None], copied, coarse.vertex_albedo)
    texture = torch.where(seen[..., None], faces.fine.vertex_albedo, filled)
    return recolored(coarse, texture, faces.coefficients)


def _pixels(vertices_image: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(B, V) bool whether a vertex lies in the picture, and (B, V) the number of its pixel, else 0."""
    column, row = vertices_image[..., :2].floor().long().unbind(dim=-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return inside, torch.where(inside, row * width + column, 0)
