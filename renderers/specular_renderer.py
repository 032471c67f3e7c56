"""SpecularRenderer: faces with a diffuse and a specular part, both from one rasterization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from torch import Tensor

from renderers.camera import zoomed
from renderers.coefficients import Coefficients
from renderers.color import decode, encode
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.reflectance import blinn_phong, decode_intensity, decode_light, decode_shininess, lambertian

SPECULAR_COEFFICIENTS: Mapping[str, int] = {"light_position": 3, "shininess": 1, "intensity": 1, "scale": 1}
"""What the paper regresses besides the usual, and the lamp's intensity: raw numbers, see `SpecularRenderer.forward`."""


@dataclass
class Lamp:
    """One point light for each of B faces, and how their skin answers it.

    Attributes:
        position: (B, 3) decimetres in the posed frame.
        shininess: (B, 1), positive.
        intensity: (B, 1), positive: the highlight's peak as a multiple of the specular albedo.
    """

    position: Tensor
    shininess: Tensor
    intensity: Tensor


@dataclass
class SpecularRendering(Rendering):
    """A face drawn with highlights: colours are (diffuse + specular light) ** (1 / 2.2) (specular, equation 2).

    `vertex_albedo`, `vertex_colors`, `diffuse_colors`, `specular_colors` and the pictures are display values.

    Attributes:
        vertex_specular_albedo: (B, V, 3) linear.
        diffuse_light: (B, V, 3) linear, t_d times the irradiance (equation 4).
        specular_light: (B, V, 3) linear, Blinn-Phong (equation 5) times the lamp's intensity, never negative.
        lamp: of the highlights.
    """

    vertex_specular_albedo: Tensor
    diffuse_light: Tensor
    specular_light: Tensor
    lamp: Lamp

    @cached_property
    def diffuse_colors(self) -> Tensor:
        """(B, V, 3) of the face without its highlights."""
        return encode(self.diffuse_light)

    @cached_property
    def specular_colors(self) -> Tensor:
        """(B, V, 3) of its highlights alone."""
        return encode(self.specular_light)

    @cached_property
    def diffuse(self) -> Tensor:
        """(B, 3, H, W) the face without highlights, on a black background; values above 1 are kept."""
        return self.draw(self.diffuse_colors)

    @cached_property
    def specular(self) -> Tensor:
        """(B, 3, H, W) its highlights alone, on black, not clamped."""
        return self.draw(self.specular_colors)


def lit(
    rendering: Rendering,
    specular_albedo: Tensor,
    illumination: Tensor,
    lamp: Lamp,
    lobe: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = blinn_phong,
) -> SpecularRendering:
    """The same faces under soft light and a lamp, without another rasterization.

    c = (t_d SH + t_s I BP) ** (1 / 2.2): light is added in linear values, and the sum encoded once (specular,
    equations 2, 4 and 5; the paper has no intensity I).

    Args:
        rendering: of the faces under any light.
        specular_albedo: (B, V, 3) linear.
        illumination: (B, 27) of the diffuse part.
        lamp: of the specular part.
        lobe: `blinn_phong`, or another function of the same arguments.
    """
    vertices, normals = rendering.vertices, rendering.vertex_normals
    diffuse = lambertian(decode(rendering.vertex_albedo), normals, illumination)
    specular = lamp.intensity[..., None] * lobe(specular_albedo, vertices, normals, lamp.position, lamp.shininess)
    kept = {f.name: getattr(rendering, f.name) for f in fields(Rendering)}
    return SpecularRendering(
        **{**kept, "vertex_colors": encode(diffuse + specular)},
        vertex_specular_albedo=specular_albedo,
        diffuse_light=diffuse,
        specular_light=specular,
        lamp=lamp,
    )


class SpecularRenderer(FaceRenderer):
    """Like `FaceRenderer`, and a lamp whose highlights the faces show; light is linear."""

    lambertian = False

    def regressed_intrinsics(self, coefficients: Coefficients, intrinsics: Tensor) -> Tensor:
        """(B, 3, 3) intrinsics with the regressed focal length."""
        return zoomed(intrinsics, coefficients.extra["scale"])

    def forward(
        self, coefficients: Coefficients, intrinsics: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> SpecularRendering:
        """Draw B faces.

        Args:
            coefficients: of B images, with the extras that `SPECULAR_COEFFICIENTS` names: `light_position`, `shininess`
                and `intensity` as `decode_light` and the others read them, and `scale`, the logarithm of what the focal
                length is multiplied by (f of equation 3).
            intrinsics: (B, 3, 3); the default camera where absent.
            size: (H, W) of the images; see `FaceRenderer.forward`.

        Raises:
            UserError: the face model has no specular albedo.
        """
        extra = coefficients.extra
        rendering = super().forward(coefficients, intrinsics, size)
        lamp = Lamp(
            decode_light(extra["light_position"]),
            decode_shininess(extra["shininess"]),
            decode_intensity(extra["intensity"]),
        )
        return lit(rendering, self.face_model.specular(coefficients.albedo), coefficients.illumination, lamp)
