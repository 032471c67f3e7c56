"""What a reconstructed face is written as: OBJ, PLY, overlay and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.preparation.alignment import Alignment
from experiments.commands.reconstruct.head_parts import head_parts, painted
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import Rendering
from renderers.units import MILLIMETRES
from renderers.uv.chart import unit

SUPERSAMPLING = 3
LARGEST_RASTER = 3072  # pixels along a side; larger regions get less supersampling
CLAY = (0.76, 0.74, 0.72)


@dataclass(frozen=True)
class MorphTargets:
    """A mesh as a neutral face and weighted expressions: vertices = neutral + sum over k of weights[k] offsets[k].

    Attributes:
        names: (K,) of the expressions.
        weights: (K,) those of this face.
        neutral: (V, 3) millimetres.
        neutral_normals: (V, 3) unit.
        offsets: (K, V, 3) millimetres at weight 1.
        normal_offsets: (K, V, 3) the unit normals at weight 1, less the neutral ones.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    neutral: np.ndarray
    neutral_normals: np.ndarray
    offsets: np.ndarray
    normal_offsets: np.ndarray


@dataclass(frozen=True)
class FaceMesh:
    """A textured face in model space.

    Attributes:
        vertices: (V, 3) millimetres, x right, y up, z towards the viewer.
        normals: (V, 3) unit.
        faces: (F, 3).
        uv: (V, 2) origin bottom-left.
        texture: (S, S, 3) uint8, row 0 is v = 1.
        specular: (S, S, 3) uint8 the specular albedo, of faces that shine.
        shininess: Blinn-Phong's exponent of their highlights.
        morph: of meshes whose expressions are sums of blend shapes.
        ends: by the name of each part, where in `faces` it ends; the parts follow one another. Empty for a face alone.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    specular: np.ndarray | None = None
    shininess: float | None = None
    morph: MorphTargets | None = None
    ends: Mapping[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """(F, 3) rows of `vertices` by the part's name; all of them are the face where nothing else is known."""
        if not self.ends:
            return {"face": self.faces}
        return dict(zip(self.ends, np.split(self.faces, list(self.ends.values())[:-1]), strict=True))


def face_mesh(
    face_model: MorphableModel, rendering: Rendering, coefficients: Coefficients, texture: np.ndarray
) -> FaceMesh:
    """The first face of `rendering`, unposed, and what `head_parts` knows about it.

    Args:
        face_model: the decoder.
        rendering: of the face.
        coefficients: of the rendering.
        texture: (S, S, 3) uint8
    """
    parts = head_parts(face_model)
    shape, normals_of, uv = rendering.shape[:1].cpu(), face_model.normals, face_model.uv.double().cpu().numpy()
    units = face_model.expression_basis.permute(2, 0, 1).cpu() if isinstance(face_model, LinearModel) else None
    if parts is not None and units is not None:
        others = parts.shape(coefficients.identity[:1].cpu(), coefficients.expression[:1].cpu())
        shape = torch.cat([shape, others], dim=1)
        units = torch.cat([units, parts.shape_basis[..., face_model.identity_size :].permute(2, 0, 1)], dim=1)
        normals_of, uv, texture = parts.normals_of, np.concatenate([uv, parts.uv]), painted(texture, rendering)
    morph = None
    if units is not None and len(units) > 0:
        names = face_model.expression_names or tuple(f"expression_{number}" for number in range(1, len(units) + 1))
        morph = _morph_targets(names, shape, coefficients.expression[:1].cpu(), units, normals_of)
    return FaceMesh(
        vertices=shape[0].double().numpy() * MILLIMETRES,
        normals=normals_of(shape)[0].double().cpu().numpy(),
        faces=face_model.faces.cpu().numpy() if parts is None else parts.faces,
        uv=uv,
        texture=texture,
        morph=morph,
        ends={} if parts is None else parts.ends,
    )


def _morph_targets(
    names: tuple[str, ...], shape: Tensor, weights: Tensor, units: Tensor, normals_of: Callable[[Tensor], Tensor]
) -> MorphTargets:
    """The shape (1, V, 3) as a neutral one and the weights (1, E) of the units (E, V, 3)."""
    neutral = shape - torch.einsum("be,evc->bvc", weights, units)
    normals = normals_of(neutral)
    return MorphTargets(
        names=names,
        weights=weights[0].double().cpu().numpy(),
        neutral=neutral[0].double().cpu().numpy() * MILLIMETRES,
        neutral_normals=normals[0].double().cpu().numpy(),
        offsets=units.double().cpu().numpy() * MILLIMETRES,
        normal_offsets=(normals_of(neutral + units) - normals).double().cpu().numpy(),
    )


def write_obj(mesh: FaceMesh, folder: Path, texture: str = "mesh.png") -> None:
    """Write `mesh.obj`, `mesh.mtl` and the texture; millimetres, no vertex colours (NoW's loader refuses them)."""
    lines = ["# millimetres; x right, y up, z towards the viewer", "mtllib mesh.mtl", "o face", "usemtl face"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.vertices]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in mesh.uv]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.normals]
    for name, faces in mesh.parts.items():
        lines += [f"g {name}", *(f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in faces + 1)]
    (folder / "mesh.obj").write_text("\n".join(lines) + "\n")
    shine = "Ks 0 0 0\nillum 1"
    if mesh.specular is not None:
        Image.fromarray(mesh.specular).save(folder / "specular_albedo.png")
        shine = f"Ks 1 1 1\nNs {mesh.shininess:.2f}\nillum 2\nmap_Ks specular_albedo.png"
    (folder / "mesh.mtl").write_text(f"newmtl face\nKa 0 0 0\nKd 1 1 1\n{shine}\nmap_Kd {texture}\n")
    Image.fromarray(mesh.texture).save(folder / texture)


def write_ply(mesh: FaceMesh, path: Path) -> None:
    """Write a binary PLY; millimetres, colours at the vertices."""
    import trimesh

    height, width = mesh.texture.shape[:2]
    columns = (mesh.uv[:, 0] * width).astype(int).clip(0, width - 1)
    rows = ((1 - mesh.uv[:, 1]) * height).astype(int).clip(0, height - 1)
    body = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=mesh.texture[rows, columns], process=False
    )
    path.write_bytes(body.export(file_type="ply", vertex_normal=True))


def draw_on(picture: np.ndarray, rendering: Rendering, alignment: Alignment) -> np.ndarray:
    """Draw one posed face over a photograph, edges antialiased.

    Args:
        picture: (H, W, 3) uint8 photograph.
        rendering: of the face in its crop (B = 1).
        alignment: between the photograph and that crop, at the rendering's size.

    Returns:
        (H, W, 3) uint8
    """
    height, width = picture.shape[:2]
    places = alignment.to_photo(rendering.vertices_image[0, :, :2].double().numpy())
    low = np.floor(places.min(axis=0)).astype(int).clip(0, (width, height))
    high = np.ceil(places.max(axis=0)).astype(int).clip(0, (width, height))
    if (high <= low).any():
        return picture
    matrix = alignment.inverse - np.column_stack([np.zeros((2, 2)), low])
    layer = draw(rendering, matrix, (int(high[1] - low[1]), int(high[0] - low[0])))
    result = picture.copy()
    region = result[low[1] : high[1], low[0] : high[0]]
    blended = region * (1 - layer[..., 3:]) + 255 * layer[..., :3]
    region[:] = (blended + 0.5).clip(0, 255).astype(np.uint8)
    return result


def lit(rendering: Rendering) -> Tensor:
    """(B, 3, H, W) the face in its light."""
    return rendering.image


def unlit(rendering: Rendering) -> Tensor:
    """(B, 3, H, W) its albedo."""
    return rendering.albedo


def clay(rendering: Rendering) -> Tensor:
    """(B, 3, H, W) the bare shape: grey clay under a key light from the upper left and a weak fill from the right."""
    normals = unit(rendering.normals).movedim(1, -1)
    key, fill = (
        torch.nn.functional.normalize(normals.new_tensor(direction), dim=0)
        for direction in ((-0.5, 0.6, 0.75), (0.8, -0.1, 0.5))
    )
    light = 0.18 + 0.72 * (normals @ key).clamp_min(0) + 0.22 * (normals @ fill).clamp_min(0)
    return (light.unsqueeze(-1) * normals.new_tensor(CLAY)).movedim(-1, 1)


def draw(
    rendering: Rendering, matrix: np.ndarray, size: tuple[int, int], paint: Callable[[Rendering], Tensor] = lit
) -> np.ndarray:
    """(H, W, 4) float in [0, 1]: colours multiplied by coverage, and the coverage; supersampled.

    Args:
        rendering: of one face.
        matrix: (2, 3) from its pixels to the result's.
        size: (H, W).
        paint: what to show of it.
    """
    factor = max(1, min(SUPERSAMPLING, LARGEST_RASTER // max(size)))
    fine = rendering.warped(torch.from_numpy(factor * matrix).float(), (size[0] * factor, size[1] * factor))
    opaque = torch.nn.functional.pad(paint(fine).clamp(0, 1), (0, 0, 0, 0, 0, 1), value=1.0) * fine.mask
    return torch.nn.functional.avg_pool2d(opaque, factor)[0].permute(1, 2, 0).clamp(0, 1).double().numpy()


def picture_of(rendering: Rendering, paint: Callable[[Rendering], Tensor], size: int) -> Image.Image:
    """The face of a rendering (B = 1) as it stands in its crop, on a transparent ground, size x size."""
    height, width = rendering.mask.shape[-2:]
    layer = draw(rendering, np.diag([size / width, size / height, 1])[:2], (size, size), paint)
    straight = layer[..., :3] / np.maximum(layer[..., 3:], 1e-6)
    return Image.fromarray((np.dstack([straight, layer[..., 3:]]).clip(0, 1) * 255 + 0.5).astype(np.uint8), "RGBA")


def beside(photo: np.ndarray, overlay: np.ndarray) -> Image.Image:
    """The original and the overlay in one picture: side by side, or one under the other for wide photographs."""
    height, width = photo.shape[:2]
    gap = max(4, min(height, width) // 64)
    wide = width > 1.4 * height
    gutter = np.full((gap, width, 3) if wide else (height, gap, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([photo, gutter, overlay], axis=0 if wide else 1))
