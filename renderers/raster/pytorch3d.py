"""Visibility by PyTorch3D: the reference."""

from __future__ import annotations

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

from renderers.camera import NEAR
from renderers.raster.rasterize import MAX_EXTENT, MIN_AREA


def to_ndc(points: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 3) pixels and depth -> PyTorch3D's frame: x left, y up, the shorter side spans [-1, 1]; depth stays."""
    height, width = size
    x = (width - 2 * points[..., 0]) / min(size)
    y = (height - 2 * points[..., 1]) / min(size)
    return torch.stack([x, y, points[..., 2]], dim=-1)


def visible_faces(vertices_image: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """See `renderers.raster.rasterize.Backend`."""
    height, width = size
    vertices = vertices_image.detach().to(torch.float32)
    batch, count = len(vertices), len(faces)
    if not batch:
        return torch.empty((0, height, width), dtype=torch.int64, device=vertices.device)
    corners = vertices[:, faces]
    (ax, ay), (bx, by), (cx, cy) = (corners[:, :, k, :2].unbind(-1) for k in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    drawn = (corners[..., 2] > NEAR).all(dim=-1) & (area.abs() >= MIN_AREA)
    drawn &= corners.abs().sum(dim=(-1, -2)) <= MAX_EXTENT
    corners = to_ndc(corners, size)
    # A face that is not drawn keeps its index but shrinks to a point, which PyTorch3D passes over.
    corners = torch.where(drawn[..., None, None], corners, torch.ones_like(corners))
    unshared = torch.arange(3 * count, device=vertices.device).view(1, count, 3).expand(batch, -1, -1)
    with torch.no_grad():
        index = rasterize_meshes(
            Meshes(corners.flatten(1, 2), unshared),
            image_size=size,
            blur_radius=0.0,
            faces_per_pixel=1,
            # On the CPU only the naive method, 0, is there; on CUDA PyTorch3D chooses the size of its bins.
            bin_size=0 if vertices.device.type == "cpu" else None,
            perspective_correct=True,
            cull_backfaces=False,
        )[0][..., 0]
    return torch.where(index >= 0, index % count, index)
