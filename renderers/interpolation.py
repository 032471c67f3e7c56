"""From the visible faces to pixels, differentiably; shared by every rasterizer backend.

A backend only says which face a pixel sees. Barycentrics and depth are recomputed here from the gathered corners, so
the gradient is the same whichever backend ran.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.fragments import Fragments


def gather_corners(attributes: Tensor, faces: Tensor, pix_to_face: Tensor) -> Tensor:
    """The three corners' attributes at every pixel.

    Args:
        attributes: (B, V, C).
        faces: (F, 3).
        pix_to_face: (B, H, W); background pixels read face 0.

    Returns:
        (B, H, W, 3, C)
    """
    batch, vertices, channels = attributes.shape
    corners = faces[pix_to_face.clamp_min(0)]
    offset = torch.arange(batch, device=attributes.device).view(-1, 1, 1, 1) * vertices
    rows = (corners + offset).flatten()
    return attributes.reshape(-1, channels).index_select(0, rows).view(*corners.shape, channels)


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) continuous x, y of the pixel centres: (j + 0.5, i + 0.5)."""
    y = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5
    x = torch.arange(width, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def make_fragments(vertices_image: Tensor, faces: Tensor, pix_to_face: Tensor) -> Fragments:
    """Barycentrics and depth of the visible faces, with gradients to the vertices.

    With the edge functions w_k (twice the areas of the triangles that the pixel's centre makes with each side) the
    perspective-correct weights are b_k = (w_k / z_k) / sum_j (w_j / z_j); the depth is sum_j w_j / sum_j (w_j / z_j).

    Args:
        vertices_image: (B, V, 3) x, y in pixels, z the positive depth in decimetres.
        faces: (F, 3).
        pix_to_face: (B, H, W) with -1 for background.

    Returns:
        Fragments whose barycentrics lie in [0, 1] and whose depth lies between the corners'.
    """
    height, width = pix_to_face.shape[1:]
    mask = pix_to_face >= 0
    corners = gather_corners(vertices_image, faces, pix_to_face)
    # Background pixels get a harmless unit triangle, so that no gradient is ever 0 * inf.
    unit = corners.new_tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    corners = torch.where(mask[..., None, None], corners, unit)
    to_corner = corners[..., :2] - pixel_centres(height, width, vertices_image)[:, :, None]
    (ax, ay), (bx, by), (cx, cy) = (to_corner[..., k, :].unbind(-1) for k in range(3))
    weights = torch.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], dim=-1)
    # Turned to face the viewer; a weight below 0 is rounding, since the centre lies inside.
    weights = (weights * weights.detach().sum(dim=-1, keepdim=True).sign()).clamp_min(0)
    over_depth = weights / corners[..., 2]
    total = over_depth.sum(dim=-1)
    shown = mask / torch.where(total > 0, total, torch.ones_like(total))
    return Fragments(pix_to_face, over_depth * shown[..., None], weights.sum(dim=-1) * shown)


def interpolate(fragments: Fragments, faces: Tensor, attributes: Tensor) -> Tensor:
    """Vertex attributes at every pixel, perspective-correct; 0 on background.

    Args:
        fragments: of B images.
        faces: (F, 3).
        attributes: (B, V, C).

    Returns:
        (B, C, H, W)
    """
    corners = gather_corners(attributes, faces, fragments.pix_to_face)
    return torch.einsum("bhwk,bhwkc->bchw", fragments.barycentric, corners)
