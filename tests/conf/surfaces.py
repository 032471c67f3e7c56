"""Face models that are no faces: surfaces whose every property is known in closed form."""

from __future__ import annotations

import numpy as np
import torch

from renderers.camera import default_intrinsics, project
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import Rendering
from renderers.raster import rasterize


def surface_model(
    points: np.ndarray, faces: np.ndarray, uv: np.ndarray, albedo: np.ndarray | None = None
) -> LinearModel:
    """A face model of one shape: (V, 3), (F, 3), (V, 2) and (V, 3) colors, grey where absent."""
    still = np.zeros((len(points), 3, 1))
    return LinearModel(
        name="surface",
        mean_shape=points,
        identity_basis=still,
        expression_basis=still,
        mean_albedo=np.full((len(points), 3), 0.5) if albedo is None else albedo,
        albedo_basis=still,
        faces=faces,
        landmark_indices=np.zeros(68, dtype=np.int64),
        uv=uv,
        regions={"skin": np.arange(len(points))},
    )


def grid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The unit square as count x count cells of two counter-clockwise triangles: (V, 2) places and (F, 3)."""
    steps = np.linspace(0, 1, count + 1)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    corner = (np.arange(count)[:, None] * (count + 1) + np.arange(count)).ravel()
    right, up, both = corner + 1, corner + count + 1, corner + count + 2
    return places, np.concatenate([np.stack([corner, right, both], 1), np.stack([corner, both, up], 1)])


PLANE_U, PLANE_V = np.array([1.2, 0.1, -0.3]), np.array([-0.4, 1.5, 0.2])


def plane_model(count: int = 8) -> LinearModel:
    """A sheared, tilted plane: x = PLANE_U (u - 1/2) + PLANE_V (v - 1/2)."""
    uv, faces = grid(count)
    return surface_model((uv[:, :1] - 0.5) * PLANE_U + (uv[:, 1:] - 0.5) * PLANE_V, faces, uv)


def sphere_cap_model(count: int = 48) -> LinearModel:
    """The part of the unit sphere above a square of half-width 0.6 in x and y."""
    uv, faces = grid(count)
    x, y = (1.2 * (uv - 0.5)).T
    return surface_model(np.stack([x, y, np.sqrt(1 - x**2 - y**2)], axis=1), faces, uv)


def draw_surface(model: LinearModel, vertices: torch.Tensor, size: int) -> Rendering:
    """A rendering of posed vertices (B, V, 3) by the default camera, in the vertices' own precision."""
    batch = len(vertices)
    intrinsics = default_intrinsics(size).to(vertices).expand(batch, 3, 3)
    image, albedo = project(vertices, intrinsics), model.mean_albedo.to(vertices).expand(batch, -1, -1)
    return Rendering(
        shape=vertices,
        vertices=vertices,
        vertices_image=image,
        landmarks=image[:, model.landmark_indices, :2],
        vertex_normals=model.normals(vertices),
        vertex_albedo=albedo,
        vertex_colors=albedo,
        rotation=torch.eye(3).to(vertices).expand(batch, 3, 3),
        translation=torch.zeros(batch, 3).to(vertices),
        faces=model.faces,
        fragments=rasterize(image, model.faces, (size, size)),
    )
