"""Wrinkles and skin of a reconstructed face, of modules that find them: maps, a dense mesh, and a row of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from experiments.reconstruct.export import MILLIMETRES, FaceMesh, write_glb, write_obj
from lightning_modules.components.panels import light_picture
from renderers.coefficients import Coefficients
from renderers.detail import detailed_mesh, draw_detail
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.morphable_model.model import MorphableModel
from renderers.uv import UVChart, unit
from renderers.vertex_normals import VertexNormals

DETAIL_SIZES = (256, 512, 1024)
DEFAULT_SIZE = 512
PICTURE_SIZE = 256  # pixels of each picture in panels.png
STEPS_PER_MILLIMETRE = 10_000  # of the 16-bit displacement map, whose middle is no displacement
MIDDLE = 32_768


class Detail(Protocol):
    """Maps of R texels a side: albedo (1, 3, R, R) RGB, displacement (1, 1, R, R) decimetres, or none.

    And the photograph's light (1, 27).
    """

    @property
    def albedo(self) -> Tensor: ...

    @property
    def displacement(self) -> Tensor | None: ...

    @property
    def illumination(self) -> Tensor: ...


@runtime_checkable
class Refiner(Protocol):
    """A module that finds detail beyond its coarse faces.

    Attributes:
        chart: of its maps.
        image_size: side of the images that it looks at, pixels.
    """

    chart: UVChart
    image_size: int

    def refine(self, image: Tensor, skin: Tensor, coefficients: Coefficients, rendering: Rendering) -> Detail:
        """Images (B, 3, H, W), skin weights (B, 1, H, W), and coarse faces drawn at that size -> their maps."""
        ...


def as_refiner(module: object) -> Refiner | None:
    """The module, where it finds detail."""
    return module if isinstance(module, Refiner) else None


@dataclass(frozen=True)
class FaceDetail:
    """The detail of one face; N texels along a side, row 0 is v = 1.

    Attributes:
        mesh: subdivided and displaced, millimetres; its texture is the albedo map (N, N, 3).
        normals: (N, N, 3) unit, model space, of the displaced surface; 0 outside the chart.
        displacement: (N, N) millimetres along the normals.
        panels: (H, W, 3) uint8: input, coarse face, fine face, its normals, its shading.
    """

    mesh: FaceMesh
    normals: np.ndarray
    displacement: np.ndarray
    panels: np.ndarray

    def record(self) -> dict[str, Any]:
        """How to read the pictures, for `reconstruction.json`."""
        return {
            "size": len(self.displacement),
            "albedo.png": "display RGB",
            "normals.png": "model space (x right, y up, z towards the viewer), 255 * (n + 1) / 2",
            "displacement.png": f"millimetres = (value - {MIDDLE}) / {STEPS_PER_MILLIMETRE}",
            "largest_displacement_mm": round(float(np.abs(self.displacement).max()), 4),
        }


@torch.no_grad()
def face_detail(
    refiner: Refiner,
    face_model: MorphableModel,
    view: Tensor,
    skin: Tensor,
    coefficients: Coefficients,
    camera: Tensor,
    rendering: Rendering,
    size: int,
) -> FaceDetail:
    """What a module adds to one coarse face.

    The module looks at the picture in the size that it was trained for; its maps are enlarged, the smooth albedo and
    the normals under them are those of the face model at the full size.

    Args:
        refiner: the module.
        face_model: its decoder.
        view: (1, 3, H, W) the picture, in [0, 1].
        skin: (1, 1, h, w) skin probability of the same view at any size.
        coefficients: of the one face in it.
        camera: (1, 3, 3) intrinsics of a picture of the module's size.
        rendering: of that face, at H x W.
        size: N, texels along a side.
    """
    side = (refiner.image_size, refiner.image_size)
    coarse = FaceRenderer(face_model, refiner.image_size)(coefficients, camera)
    image, weights = (interpolate(picture, side, mode="bilinear", antialias=True) for picture in (view, skin))
    found = refiner.refine(image, weights, coefficients, coarse)
    chart, own = UVChart(face_model, size), refiner.chart
    added = _enlarged(own, found.albedo - own.bake(coarse.vertex_albedo), chart)
    flat = torch.zeros_like(found.albedo[:, :1])
    relief = _enlarged(own, flat if found.displacement is None else found.displacement, chart)

    albedo = chart.fill((chart.bake(rendering.vertex_albedo) + added).clamp(0, 1))
    turned = chart.normals(rendering, relief)
    normals = torch.einsum("bji,bjhw->bihw", rendering.rotation, turned)
    drawn = draw_detail(chart, rendering, found.illumination, added, relief)
    fine = (rendering.albedo + drawn.albedo) * drawn.shading
    pictures = [
        view,
        torch.where(rendering.mask, rendering.image, view),
        torch.where(rendering.mask, fine, view),
        torch.where(rendering.mask, (unit(drawn.normals) + 1) / 2, 1.0),
        torch.where(rendering.mask, light_picture(drawn.shading), 1.0),
    ]
    row = [interpolate(picture.clamp(0, 1), (PICTURE_SIZE,) * 2, mode="area") for picture in pictures]
    return FaceDetail(
        mesh=_mesh(chart, face_model, rendering.shape[0], relief, _eight_bit(albedo)),
        normals=normals[0].permute(1, 2, 0).double().numpy(),
        displacement=relief[0, 0].double().numpy() * MILLIMETRES,
        panels=_eight_bit(torch.cat(row, dim=3)),
    )


def subdivisions(faces: int, size: int) -> int:
    """How often to split every triangle in four: as long as there are no more triangles than texels."""
    levels = 0
    while faces * 4 ** (levels + 1) <= size * size:
        levels += 1
    return levels


def write_detail(detail: FaceDetail, folder: Path) -> None:
    """Write mesh.obj, mesh.mtl, mesh.glb, albedo.png, normals.png, displacement.png (16 bits) and panels.png."""
    folder.mkdir()
    write_obj(detail.mesh, folder, texture="albedo.png")
    write_glb(detail.mesh, folder / "mesh.glb")
    normals = 127.5 * (detail.normals + 1)
    Image.fromarray((normals + 0.5).clip(0, 255).astype(np.uint8)).save(folder / "normals.png")
    steps = MIDDLE + STEPS_PER_MILLIMETRE * detail.displacement
    Image.fromarray(steps.round().clip(0, 65_535).astype(np.uint16)).save(folder / "displacement.png")
    Image.fromarray(detail.panels).save(folder / "panels.png")


def _mesh(chart: UVChart, face_model: MorphableModel, shape: Tensor, relief: Tensor, albedo: np.ndarray) -> FaceMesh:
    levels = subdivisions(len(face_model.faces), chart.size)
    vertices, faces, uv = detailed_mesh(chart, face_model, shape, relief, levels)
    normals = VertexNormals(torch.from_numpy(faces).long(), len(vertices))(torch.from_numpy(vertices)[None])
    return FaceMesh(vertices * MILLIMETRES, normals[0].numpy(), faces, uv, albedo)


def _enlarged(own: UVChart, maps: Tensor, chart: UVChart) -> Tensor:
    """Maps of one chart at the size of another of the same model; nothing from outside the chart comes in."""
    return interpolate(own.fill(maps), (chart.size,) * 2, mode="bicubic", align_corners=False) * chart.mask


def _eight_bit(picture: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8"""
    return (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
