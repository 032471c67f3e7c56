"""A classifier of pairs of coefficient vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from renderers.camera import euler_to_rotation, transform
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.face_models.base import MorphableModel
from renderers.reflectance import lambertian

HIDDEN = 124
LENGTH_UNIT, COLOR_UNIT = 0.1, 0.2  # decimetres, and of colours in [0, 1]: changes of a face that weigh alike


class CoefficientDiscriminator(nn.Module):
    """Three fully connected layers of L, 124 and 2 units, where L is a vector's length: 257 with BFM 2009.

    It is given a clean face's coefficients C_G and others of the same face, as (8) and (9) print it: D(C_G, C_O). The
    two answers are the probabilities that the others are "guiding", C_G itself, or "corrupted", what a corrupted copy
    gave (ROGUE, sections 3.2.2 and 6.2.2). A classifier of single vectors could not tell a wrong pose from another
    face's.

    The paper names no activations; these are leaky ReLUs between the layers and a softmax at the end: without a bound
    the network, which maximises the discriminator's loss, drives its coefficients away without end. Every layer's
    spectral norm is held at 1 (Miyato et al. 2018): a softmax that is sure gives no gradient, and one whose scores
    move no faster than the coefficients is never sure of faces that are alike.

    Every coefficient is first scaled by what it does to the face, see `effects`. Else scores would follow identity and
    expression, whose numbers are large, and hardly the pose, which moves a face most.

    Args:
        layout: of the vector.
        scale: (L,) of its coefficients.
    """

    scale: Tensor

    def __init__(self, layout: CoefficientLayout, scale: Tensor) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("scale", scale, persistent=False)
        self.layers = nn.Sequential(
            spectral_norm(nn.Linear(2 * layout.length, layout.length)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(layout.length, HIDDEN)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(HIDDEN, 2)),
        )

    def forward(self, guiding: Coefficients, other: Coefficients) -> Tensor:
        """Coefficients of B clean images, others of the same faces -> (B, 2): are these (guiding, corrupted)?"""
        both = [self.scale * self.layout.join(coefficients) for coefficients in (guiding, other)]
        scores: Tensor = self.layers(torch.cat(both, dim=1))
        return scores.softmax(dim=-1)


@torch.no_grad()
def effects(face_model: MorphableModel) -> Tensor:
    """(L,) what one unit of each coefficient does to the mean face in even light.

    The root mean square over the vertices of how far they move, in `LENGTH_UNIT`, and how much their colours change, in
    `COLOR_UNIT`.
    """
    layout, step = face_model.layout(), 0.1  # central differences would gain nothing: most coefficients act linearly
    none = face_model.mean_shape.new_zeros(1, layout.length)
    moved = step * torch.eye(layout.length, device=none.device)
    still, other = (_appearance(face_model, layout.split(vectors)) for vectors in (none, moved))
    return (other - still).square().sum(dim=-1).mean(dim=-1).sqrt() / step


def _appearance(face_model: MorphableModel, coefficients: Coefficients) -> Tensor:
    """(B, V, 6) where the vertices are and how they are lit, in the units of `effects`."""
    shape = face_model.shape(coefficients.identity, coefficients.expression)
    posed = transform(shape, euler_to_rotation(coefficients.angles), coefficients.translation)
    albedo = face_model.albedo(coefficients.albedo)
    colors = lambertian(albedo, face_model.normals(posed), coefficients.illumination)
    return torch.cat([posed / LENGTH_UNIT, colors / COLOR_UNIT], dim=-1)
