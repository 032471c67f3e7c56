"""The fine-grained paper's photometric, identity, albedo and smoothness terms."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.photometric import color_distance

LEAST_LIGHT = 0.1  # irradiance; in weaker light a pixel's colour says little about the albedo
SATURATED = 0.99  # a channel this bright is clipped: the true value is unknown


def skin_photometric_loss(rendered: Tensor, image: Tensor, mask: Tensor, skin: Tensor) -> Tensor:
    """L_pho = 1/sum_M V sum_M ||V * (I - I_R)||_2 (finegrained, equation (7)).

    M is the rendered face. Where the photograph is saturated, a brighter rendering costs nothing. An image without a
    weighted pixel gives 0. The norm's gradient is 0 where two pixels agree.

    Args:
        rendered: (B, 3, H, W) rendered face, in [0, 1] before clamping.
        image: (B, 3, H, W) photograph, in [0, 1].
        mask: (B, 1, H, W) the rendered face, bool or 0/1.
        skin: (B, 1, H, W) V, skin weights in [0, 1].

    Returns:
        (B,) in [0, sqrt(3)] for colours in [0, 1].
    """
    shown = torch.where(image >= SATURATED, torch.minimum(rendered, image), rendered)
    return _weighted_mean(color_distance(image, shown), mask.to(image.dtype) * skin)


def unsaturated(image: Tensor) -> Tensor:
    """(B, 3, H, W) photograph in [0, 1] -> (B, 1, H, W) bool: no channel of the pixel is white."""
    return image.amax(dim=1, keepdim=True) < SATURATED


def squared_identity_loss(features_a: Tensor, features_b: Tensor) -> Tensor:
    """L_id = ||Phi(I) - Phi(I_R)||_2^2 (finegrained, equation (9)).

    Args:
        features_a: (B, D).
        features_b: (B, D) likewise.

    Returns:
        (B,), at most 4 for features of unit length.
    """
    return (features_a - features_b).square().sum(dim=-1)


def unlit(image: Tensor, irradiance: Tensor) -> Tensor:
    """Solve I = T * C for the albedo T, given the colour I and the light C. C is raised to at least `LEAST_LIGHT`.

    Args:
        image: (B, 3, H, W) colours.
        irradiance: (B, 3, H, W) C, see `renderers.illumination.irradiance`.

    Returns:
        (B, 3, H, W)
    """
    return image / irradiance.clamp_min(LEAST_LIGHT)


def detailed_albedo_loss(
    albedo: Tensor, target: Tensor, visibility: Tensor, flipped: Tensor, flipped_visibility: Tensor
) -> Tensor:
    """L_alb: L1 between the detailed albedo map and the unlit photograph (finegrained, equation (12)).

    Where a texel is not visible, the photograph's texel on the other side of the face replaces it. The paper describes
    this term but does not print its equation. A face without a visible texel gives 0.

    Args:
        albedo: (B, 3, R, R) detailed albedo map.
        target: (B, 3, R, R) the photograph unwrapped and unlit, see `unlit`.
        visibility: (B, 1, R, R) how visible each texel is, in [0, 1].
        flipped: (B, 3, R, R) `target` mirrored across the face.
        flipped_visibility: (B, 1, R, R) `visibility` mirrored likewise.

    Returns:
        (B,), a mean over texels and channels.
    """
    own, instead = visibility, (1 - visibility) * flipped_visibility
    error = own * (albedo - target).abs() + instead * (albedo - flipped).abs()
    total = (own + instead).flatten(1).sum(dim=1)
    return error.mean(dim=1).flatten(1).sum(dim=1) / torch.where(total > 0, total, 1.0)


def normal_change(detailed: Tensor, coarse: Tensor, mask: Tensor) -> Tensor:
    """Mean distance of detailed from coarse unit normals, the first part of equation (13).

    Args:
        detailed: (B, 3, H, W) unit normals.
        coarse: (B, 3, H, W) unit normals.
        mask: (B, 1, H, W) where they are, bool or 0/1.

    Returns:
        (B,) in [0, 2].
    """
    return _weighted_mean(color_distance(detailed, coarse), mask.to(detailed.dtype))


def total_variation(displacement: Tensor, mask: Tensor) -> Tensor:
    """Mean |dd/du| + |dd/dv| of a displacement map, the second part of equation (13), by forward differences.

    Args:
        displacement: (B, 1, R, R) decimetres.
        mask: (1, 1, R, R) or (B, 1, R, R) bool, the chart; no difference is taken across its border.

    Returns:
        (B,) decimetres per side of the UV square, so that the same weight serves every R. Its size is about that of
        `normal_change`.
    """
    inside = mask.expand_as(displacement).to(displacement.dtype)
    total = displacement.new_zeros(len(displacement))
    for axis in (-1, -2):
        change = displacement.diff(dim=axis).abs()
        both = inside.narrow(axis, 1, inside.shape[axis] - 1) * inside.narrow(axis, 0, inside.shape[axis] - 1)
        total = total + _weighted_mean(change, both)
    return displacement.shape[-1] * total


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """(B, 1, H, W) twice -> (B,): 0 where nothing has weight."""
    total = weights.flatten(1).sum(dim=1)
    return (weights * values).flatten(1).sum(dim=1) / torch.where(total > 0, total, 1.0)
