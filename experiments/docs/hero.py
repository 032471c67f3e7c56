"""Draws the README's first picture: a photograph, its mesh, the face in other light and turned; below, synthetic heads.

python -m experiments reconstruct --out runs/hero
python -m experiments.docs.hero runs/hero .github/hero.jpg
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from experiments.commands.relight import lamp_illumination
from experiments.commands.sheet import draw_heads
from renderers.camera import default_intrinsics, euler_to_rotation, pose_and_project
from renderers.face_models.default.model import load_default
from renderers.io.obj_file import read_obj
from renderers.raster import rasterize
from renderers.raster.interpolation import interpolate
from renderers.reflectance import lambertian
from renderers.units import MILLIMETRES
from renderers.vertex_normals import VertexNormals

SIZE, SUPERSAMPLE = 200, 3  # pixels of a panel
PHOTO_CORNER, PHOTO_SIDE = (110, 5), 230  # x, y and side of the photograph's part that shows the head, pixels
CLAY, BACKGROUND = 0.76, 0.93
STUDIO = (0.4, 0.5, 1.0)  # where the clay mesh's lamp stands
TURN = 35.0  # degrees
HEADS_SEED = 3
QUALITY = 88  # of the JPEG


@dataclass
class Face:
    """What `reconstruct` wrote of one face.

    Attributes:
        shape: (1, V, 3) decimetres.
        faces: (F, 3).
        normals: (1, V, 3) unit, model space.
        uv: (1, V, 2) origin bottom-left.
        texture: (1, 3, S, S) with the photograph's light in it.
        light: (1, 27) the photograph's spherical harmonics.
        projection: (3, 4) from millimetres to the photograph's pixels.
    """

    shape: Tensor
    faces: Tensor
    normals: Tensor
    uv: Tensor
    texture: Tensor
    light: Tensor
    projection: Tensor


def read_face(folder: Path) -> Face:
    """The face in a folder that `reconstruct` wrote, whose OBJ file has one texture coordinate for each vertex."""
    mesh = read_obj(folder / "mesh.obj")
    shape = torch.tensor(mesh.vertices, dtype=torch.float32)[None] / MILLIMETRES
    faces = torch.tensor(mesh.triangles)
    record = json.loads((folder / "reconstruction.json").read_text(encoding="utf-8"))["faces"][0]
    texture = np.asarray(Image.open(folder / "mesh.png").convert("RGB"), dtype=np.float32) / 255
    return Face(
        shape=shape,
        faces=faces,
        normals=VertexNormals(faces, shape.shape[1])(shape),
        uv=torch.tensor(mesh.uv, dtype=torch.float32)[None],
        texture=torch.from_numpy(texture).permute(2, 0, 1)[None],
        light=torch.tensor([record["coefficients"]["illumination"]]),
        projection=torch.tensor(record["camera"]["projection"], dtype=torch.float32),
    )


def picture(colors: Tensor, mask: Tensor, behind: Tensor | float = BACKGROUND) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 from (1, 3, S, S) colours over a background."""
    mixed = torch.where(mask, colors, behind).clamp(0, 1)
    small = torch.nn.functional.adaptive_avg_pool2d(mixed, SIZE)
    return (small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def textured(face: Face, yaw: float, light: Tensor | None = None) -> np.ndarray:
    """The face turned by `yaw` degrees, in its own light or in another."""
    side = SIZE * SUPERSAMPLE
    rotation = euler_to_rotation(torch.tensor([[0.0, np.radians(yaw), 0.0]], dtype=torch.float32))
    middle = (face.shape.amin(dim=1) + face.shape.amax(dim=1)) / 2
    _, places = pose_and_project(
        face.shape - middle, rotation, torch.tensor([[0.0, 0.0, -1.0]]), default_intrinsics(side)[None]
    )
    fragments = rasterize(places, face.faces, (side, side))
    uv = interpolate(fragments, face.faces, face.uv).permute(0, 2, 3, 1)
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)
    colors = torch.nn.functional.grid_sample(face.texture, grid, align_corners=False, padding_mode="border")
    if light is not None:
        white = torch.ones_like(face.normals)
        shades = [lambertian(white, face.normals, weights) for weights in (light, face.light)]
        colors = colors * interpolate(fragments, face.faces, shades[0] / shades[1].clamp_min(0.2))
    return picture(colors, fragments.mask[:, None])


def photographed(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """The photograph, and the mesh in its place."""
    (left, top), side = PHOTO_CORNER, SIZE * SUPERSAMPLE
    crop = Image.fromarray(astronaut()).crop((left, top, left + PHOTO_SIDE, top + PHOTO_SIDE)).resize((side, side))
    photo = torch.from_numpy(np.asarray(crop, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    points = torch.nn.functional.pad(face.shape[0] * MILLIMETRES, (0, 1), value=1.0) @ face.projection.T
    scale = side / PHOTO_SIDE
    pixels = (points[:, :2] / points[:, 2:] - torch.tensor([float(left), float(top)])) * scale
    fragments = rasterize(torch.cat([pixels, points[:, 2:] / MILLIMETRES], dim=1)[None], face.faces, (side, side))
    clay = lambertian(
        torch.full_like(face.normals, CLAY),
        face.normals,
        lamp_illumination(torch.zeros_like(face.light), torch.tensor([STUDIO])),
    )
    mask = fragments.mask[:, None]
    return picture(photo, torch.ones_like(mask)), picture(interpolate(fragments, face.faces, clay), mask, photo)


def main(folder: Path, out: Path) -> None:
    """Draws the picture from the folder of the astronaut's reconstruction."""
    face = read_face(folder)
    with torch.no_grad():
        lamps = [lamp_illumination(face.light, torch.tensor([[side, 0.3, 0.4]])) for side in (-1.0, 1.0)]
        lights = [textured(face, 0.0, light) for light in lamps]
        first = [*photographed(face), *lights, textured(face, -TURN), textured(face, TURN)]
        second = list(draw_heads(load_default(), len(first), HEADS_SEED, SIZE))
    Image.fromarray(np.vstack([np.hstack(first), np.hstack(second)])).save(out, quality=QUALITY)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
