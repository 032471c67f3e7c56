"""From the visible faces to pixels, differentiably; shared by every rasterizer backend.

A backend only says which face a pixel sees. Barycentrics and depth are recomputed here from the gathered corners, so
the gradient is the same whichever backend ran.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.kernels.on_gpu import on_gpu
from renderers.raster.fragments import Fragments


def gather_corners(attributes: Tensor, faces: Tensor, pix_to_face: Tensor) -> Tensor:
    """The three corners' attributes at every pixel, one contiguous picture for each: a CPU adds and multiplies these
    several times as fast as numbers that lie beside those of another corner.

    Args:
        attributes: (B, V, C).
        faces: (F, 3).
        pix_to_face: (B, H, W); background pixels read face 0.

    Returns:
        (B, C, 3, H, W)
    """
    batch, _, channels = attributes.shape
    corners = faces[pix_to_face.clamp_min(0)].movedim(-1, 1)
    # `gather` and its backward pass, a sum by index, go through the vertices of one channel of one image at a time.
    rows = corners.flatten(1).unsqueeze(1).expand(-1, channels, -1)
    return attributes.transpose(1, 2).gather(2, rows).view(batch, channels, *corners.shape[1:])


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) continuous x, y of the pixel centres: (j + 0.5, i + 0.5).

    >>> pixel_centres(1, 2, like=torch.zeros(())).tolist()
    [[[0.5, 0.5], [1.5, 0.5]]]
    """
    y = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5
    x = torch.arange(width, device=like.device, dtype=like.dtype) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


@on_gpu("renderers.kernels.interpolation")
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
    # Background pixels get some valid point, so that no gradient is 0 * inf.
    x, y, z = torch.where(mask[:, None, None], corners, 1.0).unbind(1)
    centre_x, centre_y = pixel_centres(height, width, vertices_image).unbind(-1)
    (ax, bx, cx), (ay, by, cy) = (x - centre_x).unbind(1), (y - centre_y).unbind(1)
    weights = torch.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], dim=1)
    # Oriented towards the viewer. The centre lies inside, so a weight below 0 is a rounding error.
    weights = (weights * weights.detach().sum(dim=1, keepdim=True).sign()).clamp_min(0)
    over_depth = weights / z
    total = over_depth.sum(dim=1)
    shown = mask / torch.where(total > 0, total, 1.0)
    barycentric = over_depth * shown.unsqueeze(1)
    return Fragments(pix_to_face, barycentric.movedim(1, -1), weights.sum(dim=1) * shown)


@on_gpu("renderers.kernels.interpolation")
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
    return (corners * fragments.barycentric.movedim(-1, 1).unsqueeze(1)).sum(dim=2)
