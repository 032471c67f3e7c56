"""Reconstruction: what `FaceModule.reconstruct` returns for every paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from renderers.coefficients import Coefficients
from renderers.face_renderer import Rendering


@dataclass(frozen=True)
class Reconstruction:
    """Faces as a paper's module makes and draws them. B pictures, V vertices.

    Attributes:
        coefficients: with respect to the camera of the module's renderer.
        rendering: the faces in their pictures, by that renderer, with all that the paper finds.
        texture: (B, V, 3) display RGB in place of the face model's albedo; None where the paper keeps that.
        maps: what else the paper estimates, by name: numbers (B, C), vertex attributes (B, V, C), or UV maps (B, C, R,
            R). `albedo` and `specular_albedo` are display RGB; `displacement` is in decimetres along the normals,
            `light_position` in decimetres in the posed frame, `shininess` an exponent.
        coarse: the faces before the paper's fine stage; None where it has none.
    """

    coefficients: Coefficients
    rendering: Rendering
    texture: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    coarse: Rendering | None = None
