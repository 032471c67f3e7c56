"""SpecularRenderer: faces with a diffuse and a specular part, both from one rasterization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

from torch import Tensor

from renderers.camera import zoomed
from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.reflectance import blinn_phong, decode_light, decode_shininess, lambertian

SPECULAR_COEFFICIENTS: Mapping[str, int] = {"light_position": 3, "shininess": 1, "scale": 1}
"""What the paper regresses besides the usual: raw numbers, see `SpecularRenderer.forward`."""


@dataclass
class SpecularRendering(Rendering):
    """A face drawn with highlights: `vertex_colors` and `image` are diffuse + specular.

    Attributes:
        vertex_specular_albedo: (B, V, 3) display values.
        diffuse_colors: (B, V, 3) t_d times the irradiance (specular, equation 4).
        specular_colors: (B, V, 3) Blinn-Phong (equation 5), never negative.
        light_position: (B, 3) decimetres in the posed frame.
        shininess: (B, 1).
    """

    vertex_specular_albedo: Tensor
    diffuse_colors: Tensor
    specular_colors: Tensor
    light_position: Tensor
    shininess: Tensor

    @cached_property
    def diffuse(self) -> Tensor:
        """(B, 3, H, W) the diffuse part of `image`, on black, not clamped."""
        return self.draw(self.diffuse_colors)

    @cached_property
    def specular(self) -> Tensor:
        """(B, 3, H, W) the specular part of `image`, on black, not clamped."""
        return self.draw(self.specular_colors)

    def relit(self, illumination: Tensor, light_position: Tensor) -> SpecularRendering:
        """The same faces under other light, without another rasterization.

        Args:
            illumination: (B, 27) of the diffuse part.
            light_position: (B, 3) decimetres in the posed frame.
        """
        colors = lambertian(self.vertex_albedo, self.vertex_normals, illumination)
        diffuse = replace(self, vertex_colors=colors)
        return add_highlights(diffuse, self.vertex_specular_albedo, light_position, self.shininess)


def add_highlights(
    rendering: Rendering, specular_albedo: Tensor, light_position: Tensor, shininess: Tensor
) -> SpecularRendering:
    """Puts highlights on drawn faces: c = c_d + c_s (specular, section 3).

    Args:
        rendering: whose `vertex_colors` are the diffuse part.
        specular_albedo: (B, V, 3) display values.
        light_position: (B, 3) decimetres in the posed frame.
        shininess: (B, 1).
    """
    highlights = blinn_phong(specular_albedo, rendering.vertices, rendering.vertex_normals, light_position, shininess)
    kept = {f.name: getattr(rendering, f.name) for f in fields(Rendering)}
    return SpecularRendering(
        **{**kept, "vertex_colors": rendering.vertex_colors + highlights},
        vertex_specular_albedo=specular_albedo,
        diffuse_colors=rendering.vertex_colors,
        specular_colors=highlights,
        light_position=light_position,
        shininess=shininess,
    )


class SpecularRenderer(FaceRenderer):
    """Like `FaceRenderer`, and a light whose highlights the faces show."""

    lambertian = False

    def regressed_intrinsics(self, coefficients: Coefficients, intrinsics: Tensor) -> Tensor:
        """(B, 3, 3) intrinsics with the regressed focal length."""
        return zoomed(intrinsics, coefficients.extra["scale"])

    def forward(
        self, coefficients: Coefficients, intrinsics: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> SpecularRendering:
        """Draw B faces.

        Args:
            coefficients: of B images, with the extras that `SPECULAR_COEFFICIENTS` names: `light_position` and
                `shininess` as `decode_light` and `decode_shininess` read them, and `scale`, the logarithm of what the
                focal length is multiplied by (f of equation 3).
            intrinsics: (B, 3, 3); the default camera where absent.
            size: (H, W) of the images; see `FaceRenderer.forward`.

        Raises:
            UserError: the face model has no specular albedo.
        """
        extra = coefficients.extra
        return add_highlights(
            super().forward(coefficients, intrinsics, size),
            self.face_model.specular(coefficients.albedo),
            decode_light(extra["light_position"]),
            decode_shininess(extra["shininess"]),
        )
