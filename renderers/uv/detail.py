"""Faces with detail finer than their mesh: albedo and displacement maps, shaded pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from renderers.face_models.base import MorphableModel
from renderers.face_models.mesh_edit import midpoint_operator
from renderers.face_renderer import Rendering
from renderers.illumination import irradiance
from renderers.uv.chart import UVChart, unit


@dataclass(frozen=True)
class DetailRendering:
    """A face drawn with its maps. B images of H x W pixels, everything 0 on background.

    Attributes:
        image: (B, 3, H, W) albedo times shading, in [0, 1] before clamping.
        albedo: (B, 3, H, W) RGB.
        normals: (B, 3, H, W) unit, camera space, of the displaced surface.
        shading: (B, 3, H, W) RGB irradiance.
    """

    image: Tensor
    albedo: Tensor
    normals: Tensor
    shading: Tensor


@dataclass
class DetailedFaceRendering(Rendering):
    """A face whose pictures show its maps; everything else is the coarse face's.

    Attributes:
        chart: of the face model, R texels along a side.
        illumination: (B, 27).
        albedo_map: (B, 3, R, R) what is added to the albedo. The albedo itself comes from the vertices, since a map
            would blur it.
        displacement: (B, 1, R, R) decimetres along the normals; flat where absent.
    """

    chart: UVChart
    illumination: Tensor
    albedo_map: Tensor
    displacement: Tensor | None

    @cached_property
    def detail(self) -> DetailRendering:
        """The pictures; sampled bicubically where a texel is several pixels wide."""
        maps, smooth = (self.albedo_map, self.displacement), self.mask.shape[-1] > 2 * self.chart.size
        return draw_detail(self.chart, self, self.illumination, *maps, smooth=smooth)

    @cached_property
    def albedo(self) -> Tensor:
        """(B, 3, H, W)"""
        return self.draw(self.vertex_albedo) + self.detail.albedo

    @cached_property
    def image(self) -> Tensor:
        """(B, 3, H, W) albedo times shading on black, in [0, 1] before clamping."""
        return self.albedo * self.shading

    @cached_property
    def normals(self) -> Tensor:
        """(B, 3, H, W) unit, camera space, of the displaced surface."""
        return self.detail.normals

    @property
    def shading(self) -> Tensor:
        """(B, 3, H, W) RGB irradiance."""
        return self.detail.shading


def add_detail(
    rendering: Rendering, chart: UVChart, illumination: Tensor, albedo_map: Tensor, displacement: Tensor | None
) -> DetailedFaceRendering:
    """Coarse faces with maps, see `DetailedFaceRendering`."""
    coarse = {field.name: getattr(rendering, field.name) for field in fields(Rendering)}
    return DetailedFaceRendering(
        **coarse, chart=chart, illumination=illumination, albedo_map=albedo_map, displacement=displacement
    )


def draw_detail(
    chart: UVChart,
    rendering: Rendering,
    illumination: Tensor,
    albedo_map: Tensor,
    displacement: Tensor | None = None,
    smooth: bool = False,
) -> DetailRendering:
    """Shade each pixel by the albedo and the displaced normal that it shows; shares the rendering's rasterization.

    The surface is not moved, its normals alone are bent (Blinn 1978): n' = normalize(n - grad_S d), with n drawn at the
    pixel, so that no displacement leaves the rendering's own normals. Lambertian, as `reflectance.lambertian`.

    Args:
        chart: of the rendering's face model, R texels along a side.
        rendering: of B faces.
        illumination: (B, 27).
        albedo_map: (B, 3, R, R) RGB; differentiable, as everything else here.
        displacement: (B, 1, R, R) decimetres along the normals; flat where absent.
        smooth: sample the maps bicubically.
    """
    uv, mask = chart.uv.expand(len(rendering.vertices), -1, -1), rendering.mask
    drawn = rendering.draw(torch.cat([uv, rendering.vertex_normals], dim=-1)).contiguous()
    places, normals = drawn[:, :2], unit(drawn[:, 2:])
    if displacement is None:
        albedo = chart.sample(albedo_map, places, smooth)
    else:
        maps = torch.cat([albedo_map, chart.surface_gradient(rendering, displacement)], dim=1)
        albedo, gradient = chart.sample(maps, places, smooth).split(3, dim=1)
        normals = unit(normals - gradient * mask)
    albedo = albedo * mask
    shading = irradiance(normals.flatten(2).transpose(1, 2), illumination).transpose(1, 2)
    shading = shading.unflatten(2, mask.shape[2:]) * mask
    return DetailRendering(image=albedo * shading, albedo=albedo, normals=normals, shading=shading)


@torch.no_grad()
def detailed_mesh(
    chart: UVChart, face_model: MorphableModel, shape: Tensor, displacement: Tensor, levels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mesh fine enough to hold its displacement: every triangle split in four by its edges' midpoints, then moved.

    Neighbouring faces share their new vertices, so what was closed stays closed. Positions, normals and UVs are all
    interpolated; each vertex moves along its unit normal.

    Args:
        chart: of the face model.
        face_model: V vertices, F faces.
        shape: (V, 3) decimetres.
        displacement: (1, 1, R, R) decimetres along the normals.
        levels: how often to split, at least 0.

    Returns:
        Vertices (V', 3) decimetres, in the shape's frame; faces (F * 4 ** levels, 3), as the model's; UVs (V', 2).
    """
    faces, operator = face_model.faces.cpu().numpy(), sparse.identity(len(shape), format="csr")
    for _ in range(levels):
        halves, faces = midpoint_operator(faces, operator.shape[0])
        operator = halves @ operator
    vertices, normals, uv = (
        operator @ attributes.double().cpu().numpy()
        for attributes in (shape, face_model.normals(shape[None])[0], face_model.uv)
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    places = torch.from_numpy(uv).to(displacement)[None]
    heights = chart.sample(displacement, places)[0].double().cpu().numpy()
    return vertices + heights * normals, faces, uv
