"""Re-renders of a reconstructed face in other colours, in another pose, or partly hidden (section 3.2.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.reflectance import lambertian

MAX_PITCH, MAX_ROLL = 20.0, 10.0  # degrees, of a random view


@dataclass
class TexturedFaces:
    """The model's faces of B pictures. Both renderings share shape, pose, light and fragments.

    Attributes:
        coefficients: of the coarse model.
        coarse, fine: renderings in the coarse and in the fine vertex colours.
        attributes: (B, E) attribute features of the pictures.
    """

    coefficients: Coefficients
    coarse: Rendering
    fine: Rendering
    attributes: Tensor

    def change(self) -> Tensor:
        """Mean over faces and vertices of the squared distance of fine from coarse colours."""
        return (self.fine.vertex_albedo - self.coarse.vertex_albedo).square().sum(dim=-1).mean()


@dataclass
class View:
    """Re-rendered pictures of B faces, which the model takes as input.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        face: (B, 1, H, W) bool, where it shows the face.
        rendering: of the whole faces, in the pose of the view.
    """

    image: Tensor
    face: Tensor
    rendering: Rendering

    @property
    def landmarks(self) -> Tensor:
        """(B, 68, 2) pixels."""
        return self.rendering.landmarks


def difference(found: Rendering, shown: Rendering) -> Tensor:
    """How far the faces found in views are from the faces that the views show, parts that nobody sees included.

    It is the squared distance of the vertices in the picture, in half sides of it, of their albedo and of their lit
    colours. Usual errors of each are about a tenth. No gradient flows to the shown faces.

    Returns:
        The mean over faces and vertices.
    """
    half = found.mask.shape[-1] / 2
    pairs = (
        (found.vertices_image[..., :2] / half, shown.vertices_image[..., :2] / half),
        (found.vertex_albedo, shown.vertex_albedo),
        (found.vertex_colors, shown.vertex_colors),
    )
    return torch.stack([(one - other.detach()).square().sum(dim=-1).mean() for one, other in pairs]).sum()


def recolored(rendering: Rendering, texture: Tensor, coefficients: Coefficients) -> Rendering:
    """The same rasterized faces with other vertex colours `texture` (B, V, 3), in the light of `coefficients`."""
    colors = lambertian(texture, rendering.vertex_normals, coefficients.illumination)
    return replace(rendering, vertex_albedo=texture, vertex_colors=colors)


def turned_view(
    renderer: FaceRenderer, coefficients: Coefficients, texture: Tensor, intrinsics: Tensor, max_yaw: float
) -> View:
    """I_rot: the faces in random poses, on black.

    Args:
        renderer: draws the coefficients.
        coefficients: of B faces. Their angles are replaced by uniformly distributed ones.
        texture: (B, V, 3) vertex colours.
        intrinsics: (B, 3, 3) pixels.
        max_yaw: degrees to either side. `MAX_PITCH` and `MAX_ROLL` bound the other two angles.
    """
    most = torch.deg2rad(texture.new_tensor([MAX_PITCH, max_yaw, MAX_ROLL]))
    angles = most * (2 * torch.rand_like(coefficients.angles) - 1)
    rendering = recolored(renderer(replace(coefficients, angles=angles), intrinsics), texture, coefficients)
    return View(rendering.image.clamp(0, 1), rendering.mask, rendering)


def hidden_view(rendering: Rendering, photograph: Tensor, corruption: nn.Module) -> View:
    """I_occ: photographs with the rendered faces in place of the true ones, and occluders on them.

    Args:
        rendering: of B faces.
        photograph: (B, 3, H, W) in [0, 1].
        corruption: (image, landmarks) -> image and (B, 1, H, W) bool mask of what it hides.
    """
    image = torch.where(rendering.mask, rendering.image.clamp(0, 1), photograph)
    occluded, hidden = corruption(image.detach(), rendering.landmarks.detach())
    return View(torch.where(hidden, occluded, image), rendering.mask & ~hidden, rendering)
