"""Rational occlusions: things that people wear, placed by landmarks and pose (ROGUE, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.corruption.draws import Corrupted, Draws
from datamodules.corruption.head import Pose, fit_pose, landmark_weights
from datamodules.corruption.meshes import HEAD, MORPHS, OCCLUDERS, Mesh
from datamodules.corruption.paints import GRAIN, PAINTS, Hits
from datamodules.corruption.shapes import face_hull
from renderers.io.errors import UserError
from renderers.raster.rasterize import load_backend

RATIONAL_KINDS = tuple(OCCLUDERS)
STYLES = 12  # random numbers that decide the look of an occluder
SAMPLES = 2  # of a pixel along each axis
LEAST_OPACITY = 1 / 512  # less does not change an 8-bit picture


class Occluder(nn.Module):
    """The surface of one kind of thing: V vertices, of which the head's come first, and F triangles."""

    vertices: Tensor
    morphs: Tensor
    weights: Tensor
    uv: Tensor
    faces: Tensor
    parts: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        build, zero = OCCLUDERS[name], np.zeros(MORPHS)
        mesh: Mesh = build(zero)
        # The surfaces are almost linear in their style.
        morphs = np.stack([build(unit).vertices - mesh.vertices for unit in np.eye(MORPHS)])
        self.name = name
        self.paint = PAINTS[name]
        for key, array in {
            "vertices": mesh.vertices,
            "morphs": morphs,
            "weights": landmark_weights(mesh.vertices),
            "uv": mesh.uv,
        }.items():
            self.register_buffer(key, torch.as_tensor(array, dtype=torch.float32), persistent=False)
        self.register_buffer("faces", torch.as_tensor(mesh.faces), persistent=False)
        self.register_buffer("parts", torch.as_tensor(mesh.parts), persistent=False)
        self.own = int(mesh.faces[mesh.parts == HEAD].max()) + 1

    def place(self, styles: Tensor) -> Tensor:
        """(B, STYLES) numbers in [0, 1) -> (B, V, 3) vertices in the head frame."""
        vertices = self.vertices + torch.einsum("bm,mvc->bvc", styles[:, :MORPHS], self.morphs)
        if self.name == "hand":
            vertices = torch.cat([vertices[:, : self.own], lay_hand(vertices[:, self.own :], styles)], dim=1)
        return vertices

    def follows(self) -> Tensor:
        """(V, 68) weights by which each vertex follows the landmarks; 0 for a hand, which keeps its form."""
        if self.name != "hand":
            return self.weights
        return torch.cat([self.weights[: self.own], torch.zeros_like(self.weights[self.own :])])


def lay_hand(points: Tensor, styles: Tensor) -> Tensor:
    """Lay a hand over the face: left or right, turned by up to 60 degrees, with fingers bent round the head.

    Args:
        points: (B, V, 3) decimetres, as `meshes.hand` builds them.
        styles: (B, STYLES); 6 to 9 are used.
    """
    flip = torch.where(styles[:, 6] < 0.5, -1.0, 1.0)[:, None]
    angle = (styles[:, 7:8] - 0.5) * (2 * math.pi / 3)
    x, y, z = points.unbind(dim=-1)
    x = x * flip
    turned_x = torch.cos(angle) * x - torch.sin(angle) * y + 0.6 * (styles[:, 8:9] - 0.5)
    turned_y = torch.sin(angle) * x + torch.cos(angle) * y - 0.5 + 0.7 * (styles[:, 9:10] - 0.5)
    bend = 0.45 * turned_x.clamp(-0.9, 0.9) ** 2 + 0.25 * (turned_y.clamp(-0.9, 0.9) + 0.15) ** 2
    return torch.stack([turned_x, turned_y, z + 0.46 - bend], dim=-1)


class RationalOcclusion(nn.Module):
    """Puts one thing, of a random kind, on every face as it would be worn.

    Each thing is a surface in the frame of a mean head. The pose is the affine camera that best takes the head's
    landmarks to the image's. The deviations that remain bend the surface to the face. The head hides all that is behind
    it, such as the far temple arm of glasses.

    Args:
        kinds: the possible kinds, all equally frequent.

    Raises:
        UserError: an unknown kind, or none.
    """

    def __init__(self, kinds: Sequence[str] = RATIONAL_KINDS) -> None:
        super().__init__()
        if not kinds or not set(kinds) <= set(RATIONAL_KINDS):
            raise UserError(f"no occlusion of the kinds {list(kinds)}: choose among {', '.join(RATIONAL_KINDS)}")
        self.kinds = tuple(kinds)
        self.occluders = nn.ModuleList(Occluder(name) for name in kinds)

    @torch.no_grad()
    def forward(self, image: Tensor, landmarks: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        """The images with something on every face.

        Args:
            image: (B, 3, H, W) in [0, 1].
            landmarks: (B, 68, 2) pixels.
            generator: the same state draws the same; torch's own where absent.

        Returns:
            Images with soft edges; the mask is where the thing's opacity is above 0, clear glass included.
        """
        draws = Draws(generator, image.device)
        batch, size = len(image), (image.shape[2], image.shape[3])
        kind = draws.integers(batch, high=len(self.kinds))
        styles = draws.uniform(batch, STYLES)
        lamp = torch.stack([draws.uniform(batch, low=-0.7, high=0.7), draws.uniform(batch, low=0.1, high=0.8)], dim=1)
        textures = draws.uniform(batch, GRAIN, GRAIN)
        landmarks = landmarks.float()
        skin = _mean_color(image.float(), face_hull(landmarks, *size))
        layer = torch.zeros(batch, 4, *size, device=image.device)
        self.to(image.device)
        for index, occluder in enumerate(self.occluders):
            rows = (kind == index).nonzero().squeeze(1)
            if len(rows):
                drawn = (styles[rows], textures[rows], skin[rows])
                layer[rows] = _draw(occluder, fit_pose(landmarks[rows]), lamp[rows], *drawn, size)  # type: ignore[arg-type]
        opacity = layer[:, 3:]
        mask = opacity > LEAST_OPACITY
        blended = image * (1 - opacity) + layer[:, :3]
        return Corrupted(torch.where(mask, blended.clamp(0, 1).to(image.dtype), image), mask)


def _mean_color(image: Tensor, hull: Tensor) -> Tensor:
    """(B, 3) mean of the image over (B, H, W) pixels."""
    weight = hull[:, None].float()
    return (image * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp_min(1)


def _draw(
    occluder: Occluder, pose: Pose, lamp: Tensor, styles: Tensor, textures: Tensor, skin: Tensor, size: tuple[int, int]
) -> Tensor:
    """(B, 4, H, W) premultiplied colour and opacity of one kind."""
    fine = (size[0] * SAMPLES, size[1] * SAMPLES)
    points = occluder.place(styles)
    projected = pose.project(points, occluder.follows())
    projected[..., :2] *= SAMPLES
    seen = load_backend().visible_faces(projected, occluder.faces, fine)
    shown = (seen >= 0) & (occluder.parts[seen.clamp_min(0)] != HEAD)
    image, row, column = shown.nonzero(as_tuple=True)
    face = seen[shown]
    uv = occluder.uv.expand(len(points), -1, -1)
    vertices = torch.cat(
        [projected[..., :2], points, uv, _lighting(points, occluder.faces[occluder.parts != HEAD], pose, lamp)], dim=2
    )
    corners = (occluder.faces[face] + (image * vertices.shape[1])[:, None]).flatten()
    values = vertices.flatten(0, 1).index_select(0, corners).view(len(face), 3, vertices.shape[2])
    point, u, v, light, facing = interpolate_rows(values, row, column).split([3, 1, 1, 1, 1], dim=1)
    hits = Hits(image, point, u[:, 0], v[:, 0], occluder.parts[face], light[:, 0], facing[:, 0], styles, textures, skin)
    color, opacity = occluder.paint(hits)
    painted = torch.cat([color.clamp(0, 1), torch.ones_like(color[:, :1])], dim=1) * opacity[:, None]
    pixel = (image * size[0] + row // SAMPLES) * size[1] + column // SAMPLES
    layer = torch.zeros(len(styles) * size[0] * size[1], 4, device=styles.device)
    layer.index_add_(0, pixel, painted / SAMPLES**2)
    return layer.view(len(styles), *size, 4).permute(0, 3, 1, 2)


def interpolate_rows(values: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Interpolate values at N pixel centres: (N, 3, 2 + C) corners, x and y first -> (N, C)."""
    x, y = values[..., 0] - (column + 0.5)[:, None], values[..., 1] - (row + 0.5)[:, None]
    area = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    weight = area / (area[:, :1] + area[:, 1:2] + area[:, 2:])
    first, second, third = weight[..., None].unbind(dim=1)
    return first * values[:, 0, 2:] + second * values[:, 1, 2:] + third * values[:, 2, 2:]


def _lighting(points: Tensor, faces: Tensor, pose: Pose, lamp: Tensor) -> Tensor:
    """(B, V, 2) cosines between the normals and the directions to the lamp (0 if it is behind) and to the viewer.

    Normals are turned towards the viewer.

    Args:
        points: (B, V, 3) head frame.
        faces: (F, 3).
        pose: of the B heads.
        lamp: (B, 2) its distances to the viewer's right and upwards, over its distance in front.
    """
    normals = nn.functional.normalize(vertex_normals(points, faces), dim=2)
    right = torch.linalg.cross(pose.up, pose.to_viewer)
    to_lamp = nn.functional.normalize(pose.to_viewer + lamp[:, :1] * right + lamp[:, 1:] * pose.up, dim=1)
    light, facing = (normals @ torch.stack([to_lamp, pose.to_viewer], dim=2)).unbind(dim=2)
    light = light * torch.where(facing < 0, -1.0, 1.0)
    return torch.stack([light.clamp_min(0), facing.abs()], dim=2)


def vertex_normals(points: Tensor, faces: Tensor) -> Tensor:
    """(B, V, 3) normals of (B, V, 3) vertices; their lengths grow with the triangles around and do not matter."""
    a, b, c = points.index_select(1, faces.flatten()).unflatten(1, (-1, 3)).unbind(dim=2)
    across = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(points)
    for k in range(3):
        normals.index_add_(1, faces[:, k], across)
    return normals
