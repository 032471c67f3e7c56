"""What a paper finds of a face beyond the face model's: maps, numbers, a mesh that wears them, a row of pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from experiments.commands.reconstruct.export import FaceMesh, write_obj
from experiments.commands.reconstruct.gltf import glb
from lightning_modules.components.panels import light_picture
from lightning_modules.components.reconstruction import Reconstruction
from renderers.face_models.base import MorphableModel
from renderers.units import MILLIMETRES
from renderers.uv.chart import UVChart, unit
from renderers.uv.detail import detailed_mesh
from renderers.vertex_normals import VertexNormals

DEFAULT_SIZE = 512
PICTURE_SIZE = 256  # pixels of each picture in panels.png
STEPS_PER_MILLIMETRE = 10_000  # of the 16-bit displacement map, whose middle is no displacement
MIDDLE = 32_768
DARK = 0.02  # an albedo below which a colour tells nothing of the light
NUMBERS = {
    "light_position": ("_mm", MILLIMETRES),
    "shininess": ("", 1.0),
    "intensity": ("", 1.0),
}  # units, and what brings ours to them


@dataclass(frozen=True)
class FaceDetail:
    """What a paper estimates of one face beyond the face model: maps of N x N texels, row 0 at v = 1, and numbers.

    Attributes:
        mesh: millimetres; its texture is the albedo map (N, N, 3). Subdivided and displaced where there is such a map.
        normals: (N, N, 3) unit, model space, of that surface; 0 outside the chart.
        displacement: (N, N) millimetres along the normals; None where the paper has none.
        numbers: by name with its unit.
        panels: (H, W, 3) uint8: input, the face (before a fine stage too, where there is one), its normals, its light.
    """

    mesh: FaceMesh
    normals: np.ndarray
    displacement: np.ndarray | None
    numbers: dict[str, list[float]]
    panels: np.ndarray

    def record(self) -> dict[str, Any]:
        """How to read the pictures, for `reconstruction.json`."""
        record: dict[str, Any] = {"size": len(self.normals), "albedo.png": "display RGB"}
        record["normals.png"] = "model space (x right, y up, z towards the viewer), 255 * (n + 1) / 2"
        if self.mesh.specular is not None:
            record["specular_albedo.png"] = "display RGB"
        if self.displacement is not None:
            record["displacement.png"] = f"millimetres = (value - {MIDDLE}) / {STEPS_PER_MILLIMETRE}"
            record["largest_displacement_mm"] = round(float(np.abs(self.displacement).max()), 4)
        return record | self.numbers


@torch.no_grad()
def face_detail(face_model: MorphableModel, view: Tensor, found: Reconstruction, size: int) -> FaceDetail | None:
    """What a module's reconstruction of one face holds beyond the face model; None where it holds nothing.

    Maps are enlarged; the smooth albedo and the normals under them are those of the face model at the full size.

    Args:
        face_model: the decoder.
        view: (1, 3, H, W) the picture, in [0, 1].
        found: the one face in it.
        size: N, texels along a side.
    """
    if found.texture is None and not found.maps:
        return None
    chart, rendering, maps = chart_of(face_model, size), found.rendering, found.maps
    albedo = chart.bake(rendering.vertex_albedo)
    if "albedo" in maps:
        smooth = chart_of(face_model, maps["albedo"].shape[-1]).bake(rendering.vertex_albedo)
        albedo = albedo + _enlarged(face_model, maps["albedo"] - smooth, chart)
    displaced = "displacement" in maps
    relief = _enlarged(face_model, maps["displacement"], chart) if displaced else torch.zeros_like(albedo[:, :1])
    normals = torch.einsum("bji,bjhw->bihw", rendering.rotation, chart.normals(rendering, relief))
    levels = subdivisions(len(face_model.faces), size) if displaced else 0
    vertices, faces, uv = detailed_mesh(chart, face_model, rendering.shape[0], relief, levels)
    vertex_normals = VertexNormals(torch.from_numpy(faces).long(), len(vertices))(torch.from_numpy(vertices)[None])
    mesh = FaceMesh(vertices * MILLIMETRES, vertex_normals[0].numpy(), faces, uv, _texture(chart, albedo))
    if "specular_albedo" in maps:
        shine = _texture(chart, chart.bake(maps["specular_albedo"]))
        mesh = replace(mesh, specular=shine, shininess=float(maps["shininess"]))
    return FaceDetail(
        mesh=mesh,
        normals=normals[0].permute(1, 2, 0).double().numpy(),
        displacement=relief[0, 0].double().numpy() * MILLIMETRES if displaced else None,
        numbers={
            f"{name}{unit}": [round(factor * value, 4) for value in maps[name][0].tolist()]
            for name, (unit, factor) in NUMBERS.items()
            if name in maps
        },
        panels=_panels(view, found),
    )


def _panels(view: Tensor, found: Reconstruction) -> np.ndarray:
    rendering, light = found.rendering, found.rendering.image / found.rendering.albedo.clamp_min(DARK)
    stages = [rendering.image] if found.coarse is None else [found.coarse.image, rendering.image]
    pictures = [
        view,
        *(torch.where(rendering.mask, stage, view) for stage in stages),
        torch.where(rendering.mask, (unit(rendering.normals) + 1) / 2, 1.0),
        torch.where(rendering.mask, light_picture(light * rendering.mask), 1.0),
    ]
    row = [interpolate(picture.clamp(0, 1), (PICTURE_SIZE,) * 2, mode="area") for picture in pictures]
    return _eight_bit(torch.cat(row, dim=3))


@lru_cache(maxsize=4)
def chart_of(face_model: MorphableModel, size: int) -> UVChart:
    """The face model's chart, which all faces of all photographs share."""
    return UVChart(face_model, size)


def subdivisions(faces: int, size: int) -> int:
    """How often to split every triangle in four: as long as there are no more triangles than texels."""
    levels = 0
    while faces * 4 ** (levels + 1) <= size * size:
        levels += 1
    return levels


def write_detail(detail: FaceDetail, folder: Path) -> None:
    """Write mesh.obj, mesh.mtl, mesh.glb, albedo.png, normals.png, panels.png, and what the paper has of
    specular_albedo.png and displacement.png (16 bits)."""
    folder.mkdir()
    write_obj(detail.mesh, folder, texture="albedo.png")
    (folder / "mesh.glb").write_bytes(glb(detail.mesh))
    normals = 127.5 * (detail.normals + 1)
    Image.fromarray((normals + 0.5).clip(0, 255).astype(np.uint8)).save(folder / "normals.png")
    if detail.displacement is not None:
        steps = MIDDLE + STEPS_PER_MILLIMETRE * detail.displacement
        Image.fromarray(steps.round().clip(0, 65_535).astype(np.uint16)).save(folder / "displacement.png")
    Image.fromarray(detail.panels).save(folder / "panels.png")


def _enlarged(face_model: MorphableModel, maps: Tensor, chart: UVChart) -> Tensor:
    """Maps at the size of another chart of their model; nothing from outside the chart comes in."""
    filled = chart_of(face_model, maps.shape[-1]).fill(maps)
    return interpolate(filled, (chart.size,) * 2, mode="bicubic", align_corners=False) * chart.mask


def _texture(chart: UVChart, maps: Tensor) -> np.ndarray:
    """(1, 3, N, N) colours -> (N, N, 3) uint8, those of the border outside the chart."""
    return _eight_bit(chart.fill(maps.clamp(0, 1)))


def _eight_bit(picture: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8"""
    return (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()
