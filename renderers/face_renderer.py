"""FaceRenderer: Coefficients -> Rendering, with one rasterization for everything that is drawn of a face."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from renderers.camera import (
    Camera,
    default_intrinsics,
    euler_to_rotation,
    pose_and_project,
    project_orthographic,
    projection_matrix,
    transform,
)
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.raster import rasterize
from renderers.raster.fragments import Fragments
from renderers.raster.interpolation import interpolate
from renderers.reflectance import lambertian

R = TypeVar("R", bound="Rendering")


@dataclass
class Rendering:
    """B rendered faces in images of H x W pixels. Each picture is drawn when it is first used, and kept.

    Attributes:
        shape: (B, V, 3) model space, decimetres.
        vertices: (B, V, 3) posed, x_cam = R x + t, decimetres.
        vertices_image: (B, V, 3) x, y in pixels, z the positive depth in decimetres.
        landmarks: (B, 68, 2) pixels.
        vertex_normals: (B, V, 3) unit, camera space.
        vertex_albedo: (B, V, 3) RGB.
        vertex_colors: (B, V, 3) shaded RGB.
        rotation: (B, 3, 3).
        translation: (B, 3) decimetres.
        faces: (F, 3).
        fragments: the rasterization that every picture below shares.
    """

    shape: Tensor
    vertices: Tensor
    vertices_image: Tensor
    landmarks: Tensor
    vertex_normals: Tensor
    vertex_albedo: Tensor
    vertex_colors: Tensor
    rotation: Tensor
    translation: Tensor
    faces: Tensor
    fragments: Fragments

    def split(self, count: int) -> list[Rendering]:
        """Renderings of `count` faces each."""
        fragments = self.fragments
        names = [field.name for field in fields(Rendering) if field.name not in ("faces", "fragments")]
        # `split` and not slices: each slice's gradient would be as large as the whole tensor.
        parts = zip(*(getattr(self, name).split(count) for name in names), strict=True)
        pixels = zip(
            *(part.split(count) for part in (fragments.pix_to_face, fragments.barycentric, fragments.depth)),
            strict=True,
        )
        return [
            Rendering(**dict(zip(names, part, strict=True)), faces=self.faces, fragments=Fragments(*of_pixels))
            for part, of_pixels in zip(parts, pixels, strict=True)
        ]

    def warped(self: R, matrix: Tensor, size: tuple[int, int]) -> R:
        """The same faces in other images.

        Args:
            matrix: (2, 3) affine, from these images' pixels to the others'; it mirrors nothing.
            size: (H, W) of the others.
        """
        linear, shift = matrix[:, :2].T, matrix[:, 2]
        places = torch.cat([self.vertices_image[..., :2] @ linear + shift, self.vertices_image[..., 2:]], dim=-1)
        fragments = rasterize(places, self.faces, size)
        return replace(self, vertices_image=places, landmarks=self.landmarks @ linear + shift, fragments=fragments)

    def draw(self, attributes: Tensor) -> Tensor:
        """(B, V, C) vertex attributes -> (B, C, H, W), 0 on background."""
        return interpolate(self.fragments, self.faces, attributes)

    @cached_property
    def image(self) -> Tensor:
        """(B, 3, H, W) shaded face on black, in [0, 1] before clamping."""
        return self.draw(self.vertex_colors)

    @cached_property
    def albedo(self) -> Tensor:
        """(B, 3, H, W)"""
        return self.draw(self.vertex_albedo)

    @cached_property
    def normals(self) -> Tensor:
        """(B, 3, H, W) camera-space normals, interpolated (not renormalised)."""
        return self.draw(self.vertex_normals)

    @cached_property
    def surface_points(self) -> Tensor:
        """(B, 2, H, W) the image position of the surface point that each pixel shows, in pixels; 0 on background.

        The value is about the pixel's centre. The gradient is that of a point fixed to the surface.
        """
        fragments = self.fragments
        fixed = Fragments(fragments.pix_to_face, fragments.barycentric.detach(), fragments.depth.detach())
        return interpolate(fixed, self.faces, self.vertices_image[..., :2])

    @property
    def mask(self) -> Tensor:
        """(B, 1, H, W) bool: the projected face."""
        return self.fragments.mask.unsqueeze(1)

    @property
    def depth(self) -> Tensor:
        """(B, 1, H, W) decimetres, 0 on background."""
        return self.fragments.depth.unsqueeze(1)


class FaceRenderer(nn.Module):
    """Decodes, poses, lights and draws faces.

    Args:
        face_model: the decoder.
        size: (H, W) or one number for square images, pixels.
        backend: rasterizer, see `renderers.raster.rasterize`.
        camera: `orthographic` is `renderers.camera.project_orthographic`; inside a triangle its attributes are still
            interpolated in perspective, which moves them by less than the triangle's depth over the distance.
    """

    intrinsics: Tensor
    lambertian = True  # colours are `reflectance.lambertian` of the albedo, and nothing else

    def __init__(
        self,
        face_model: MorphableModel,
        size: int | tuple[int, int] = 224,
        backend: str = "auto",
        camera: Camera = "perspective",
    ) -> None:
        super().__init__()
        self.face_model = face_model
        self.size = (size, size) if isinstance(size, int) else size
        self.backend, self.camera = backend, camera
        self.register_buffer("intrinsics", default_intrinsics(self.size[0]), persistent=False)

    def regressed_intrinsics(self, coefficients: Coefficients, intrinsics: Tensor) -> Tensor:
        """(B, 3, 3) intrinsics as the coefficients change them: here not at all."""
        return intrinsics

    def projection(self, coefficients: Coefficients, intrinsics: Tensor) -> Tensor:
        """(B, 3, 4) from model space to pixels, see `renderers.camera.projection_matrix`.

        Args:
            coefficients: of B faces.
            intrinsics: (B, 3, 3).
        """
        intrinsics = self.regressed_intrinsics(coefficients, intrinsics)
        rotation = euler_to_rotation(coefficients.angles)
        return projection_matrix(self.camera, rotation, coefficients.translation, intrinsics)

    def forward(
        self, coefficients: Coefficients, intrinsics: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Rendering:
        """Draw B faces.

        Args:
            coefficients: of B images.
            intrinsics: (B, 3, 3); the default camera where absent.
            size: (H, W) of the images, with `intrinsics` of their pixels; the renderer's own where absent.
        """
        model = self.face_model
        shape = model.shape(coefficients.identity, coefficients.expression)
        rotation = euler_to_rotation(coefficients.angles)
        if intrinsics is None:
            intrinsics = self.intrinsics.expand(len(shape), 3, 3)
        intrinsics = self.regressed_intrinsics(coefficients, intrinsics)
        if self.camera == "orthographic":
            vertices = transform(shape, rotation, coefficients.translation)
            vertices_image = project_orthographic(vertices, coefficients.translation, intrinsics)
        else:
            vertices, vertices_image = pose_and_project(shape, rotation, coefficients.translation, intrinsics)
        normals = model.normals(vertices)
        albedo = model.albedo(coefficients.albedo)
        return Rendering(
            shape=shape,
            vertices=vertices,
            vertices_image=vertices_image,
            landmarks=model.landmarks(vertices_image[..., :2]),
            vertex_normals=normals,
            vertex_albedo=albedo,
            vertex_colors=lambertian(albedo, normals, coefficients.illumination),
            rotation=rotation,
            translation=coefficients.translation,
            faces=model.faces,
            fragments=rasterize(vertices_image, model.faces, size or self.size, self.backend),
        )


def mean_coefficients(face_model: MorphableModel, batch: int, device: torch.device | str = "cpu") -> Coefficients:
    """The mean face, frontal, at the origin, under the ambient light: all zeros."""
    layout = face_model.layout()
    return layout.split(torch.zeros(batch, layout.length, device=device))
