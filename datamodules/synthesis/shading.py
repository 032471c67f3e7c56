"""Scenes of triangles under the light of an environment: visible faces, shadows, and the finished picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from datamodules.synthesis.shading_kernel import depth_picture, shade_pixels
from renderers.illumination import BAND_0, BAND_1, BAND_2, sphere_points
from renderers.kernels.launch import launch
from renderers.raster.rasterize import Backend, load_backend

SAMPLES = 2  # of a pixel along each axis
SHADOW_SIZE, SHADOW_REACH = 160, 2.4  # shadow map: texels along a side, and decimetres from its middle to its edge
SHADOW_DISTANCE = 100.0  # decimetres to the light; its rays are parallel, so this only keeps depths positive


@dataclass(frozen=True)
class Light:
    """The light of S pictures in the camera's frame. Linear values are those that a white surface would reflect.

    Attributes:
        harmonics: (S, 27) soft light without the strongest light, as weights of `renderers.illumination` that include
            its `AMBIENT`.
        key: (S, 3) unit vector to the strongest light.
        strength: (S, 3) strongest light on a surface that faces it.
        flash: (S, 3) camera's flash on a surface that faces the camera.
        panorama: (H, W, 3) the place, which shiny things mirror.
        turn: (S, 3, 3) from the camera's directions to the panorama's.
    """

    harmonics: Tensor
    key: Tensor
    strength: Tensor
    flash: Tensor
    panorama: Tensor
    turn: Tensor


@dataclass(frozen=True)
class Scene:
    """V vertices and F faces in S pictures.

    Attributes:
        posed: (S, V, 3) camera frame, decimetres.
        points: (S, V, 3) x, y in pixels, z the depth in decimetres.
        normals: (S, V, 3) unit.
        colors: (V, 3) display values.
        details: (V, 4) share of the soft light that arrives, gloss, and two texture coordinates.
        faces: (F, 3).
        materials: (F,) int32 of `shading_kernel`.
        texture: (R, R, 3) added to the skin's colours.
        cloth: (2, 3) the pattern's second colour; its kind, frequency and contrast.
    """

    posed: Tensor
    points: Tensor
    normals: Tensor
    colors: Tensor
    details: Tensor
    faces: Tensor
    materials: Tensor
    texture: Tensor
    cloth: Tensor

    def seen(self, size: int, samples: int = SAMPLES) -> Tensor:
        """(S, size * samples, size * samples) the face behind every sample, -1 for none."""
        return visible_faces(self.at_samples(samples), self.faces, size * samples)

    def at_samples(self, samples: int = SAMPLES) -> Tensor:
        """(S, V, 3) the points, in units of samples."""
        return self.points * self.points.new_tensor([samples, samples, 1.0])


@cache
def _backend() -> Backend:
    return load_backend()


def visible_faces(points: Tensor, faces: Tensor, size: int) -> Tensor:
    """(S, size, size) the face behind every pixel, -1 for none, of (S, V, 3) points in pixels."""
    return _backend().visible_faces(points, faces, (size, size))


def polynomial(harmonics: Tensor) -> Tensor:
    """(S, 27) weights -> (S, 10, 3) coefficients of x, y, z, xy, yz, zx, x^2, y^2, z^2, 1 for the same irradiance."""
    w = harmonics.unflatten(-1, (3, 9)).unbind(-1)
    terms = [
        -BAND_1 * w[3], -BAND_1 * w[1], BAND_1 * w[2],
        BAND_2 * w[4], -BAND_2 * w[5], -BAND_2 * w[7],
        BAND_2 / 2 * w[8], -BAND_2 / 2 * w[8], math.sqrt(3) / 2 * BAND_2 * w[6],
        BAND_0 * w[0] - BAND_2 / (2 * math.sqrt(3)) * w[6],
    ]  # fmt: skip
    return torch.stack(terms, dim=1)


def depth_behind(points: Tensor, faces: Tensor, seen: Tensor) -> Tensor:
    """(S, H, W) depth in decimetres of the surface seen by each sample; huge if there is none.

    Args:
        points: (S, V, 3) in the picture's pixels.
        faces: (F, 3).
        seen: (S, H, W).
    """
    depth = points.new_empty(seen.shape)
    launch(depth_picture, seen.shape, [points, faces, seen], [depth])
    return depth


def light_frame(direction: Tensor) -> Tensor:
    """(S, 3) unit vectors to a light -> (S, 3, 3) frames with the rows right, down and away from the light."""
    aside = torch.where(
        direction[:, 1:2].abs() > 0.9, direction.new_tensor([[1.0, 0, 0]]), direction.new_tensor([[0, 1.0, 0]])
    )
    right = torch.nn.functional.normalize(torch.linalg.cross(aside, direction), dim=-1)
    return torch.stack([right, torch.linalg.cross(right, direction), -direction], dim=1)


def seen_from(
    posed: Tensor, faces: Tensor, direction: Tensor, middle: Tensor, size: int = SHADOW_SIZE
) -> tuple[Tensor, Tensor]:
    """A shadow map: the scene's depth in parallel rays from a light.

    Args:
        posed: (S, V, 3).
        faces: (F, 3).
        direction: (S, 3) unit vectors to the light.
        middle: (S, 3) the point in the picture's middle.
        size: texels along each side.

    Returns:
        (S, V, 3) every vertex's place in the map, x and y in texels and the depth; (S, size, size) the map.
    """
    places = (posed - middle[:, None]) @ light_frame(direction).transpose(1, 2)
    scale = size / (2 * SHADOW_REACH)
    places = places * places.new_tensor([scale, scale, 1.0]) + places.new_tensor([size / 2, size / 2, SHADOW_DISTANCE])
    seen = visible_faces(places, faces, size)
    return places, depth_behind(places, faces, seen)


def lit_share(places: Tensor, depth: Tensor, bias: float) -> Tensor:
    """(S, V) 1 for vertices that the light of `seen_from` reaches, 0 for those in shadow."""
    size = depth.shape[-1]
    texel = places[..., :2].floor().long().clamp(0, size - 1)
    there = depth.flatten(1).gather(1, texel[..., 1] * size + texel[..., 0])
    return (there > places[..., 2] - bias).float()


def ambient_share(vertices: Tensor, normals: Tensor, faces: Tensor, directions: int = 64, size: int = 96) -> Tensor:
    """(V,) share of an even sky's light that arrives at each vertex, by shadow maps from many directions.

    Args:
        vertices: (V, 3) decimetres; those within `SHADOW_REACH` of the origin count.
        normals: (V, 3).
        faces: (F, 3).
        directions: number of directions, spread evenly.
        size: texels along a side of each map.
    """
    sky = sphere_points(directions).float()
    posed = vertices.expand(directions, -1, -1).contiguous()
    places, depth = seen_from(posed, faces, sky, vertices.new_zeros(directions, 3), size)
    cosine = (sky @ normals.T).clamp_min(0)
    return (cosine * lit_share(places, depth, 0.06)).sum(dim=0) / cosine.sum(dim=0).clamp_min(1e-6)


def draw(scene: Scene, light: Light, seen: Tensor, background: Tensor) -> Tensor:
    """Draw the finished pictures.

    Args:
        scene: of S pictures.
        light: of S pictures.
        seen: (S, H * SAMPLES, W * SAMPLES) of `Scene.seen`.
        background: (S, H, W, 3) linear light.

    Returns:
        (S, 3, H, W) display values in [0, 1].
    """
    middle = scene.posed.mean(dim=1)
    places, depth = seen_from(scene.posed, scene.faces, light.key, middle)
    picture = background.new_empty(background.shape)
    inputs = [
        SAMPLES, scene.at_samples(), scene.posed, scene.normals, scene.colors, scene.details, scene.faces,
        scene.materials, seen, scene.texture, polynomial(light.harmonics),
        torch.stack([light.key, light.strength, light.flash], dim=1), places, depth, light.turn, light.panorama,
        scene.cloth, background,
    ]  # fmt: skip
    launch(shade_pixels, background.shape[:3], inputs, [picture])
    return picture.movedim(-1, 1)
