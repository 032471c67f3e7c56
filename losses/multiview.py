"""Multi-view terms of MGCNet: pixel, depth and epipolar consistency of a target view with its source views.

P is the number of (target, source) pairs; P may be 0. What two views share comes from `renderers.view_synthesis`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.photometric import color_distance
from renderers.camera import REFERENCE_FOCAL, rays
from renderers.units import MILLIMETRES

# Decimetres, which is about 3 degrees of yaw. Cameras that are closer to each other constrain a match hardly at all.
MIN_BASELINE = 0.5


def _covisible_mean(error: Tensor, covisible: Tensor) -> Tensor:
    """1/|C| sum_C error over (P, 1, H, W) maps; 0 where C is empty. Values outside C have no effect, not even NaN."""
    kept = torch.where(covisible, error, torch.zeros_like(error)).flatten(1)
    return kept.sum(dim=1) / covisible.flatten(1).sum(dim=1).clamp_min(1)


def pixel_consistency_loss(
    synthesized: Tensor, target_image: Tensor, covisible: Tensor, euclidean: bool = False
) -> Tensor:
    """L_pixel = 1/|C| sum_C |I_synthesized - I_t| (MGCNet, equation 3).

    A pixel's error is the mean absolute error of its channels, or the Euclidean distance of its colours, which the
    paper's release takes.

    Args:
        synthesized: (P, C, H, W) the target view made from the source view's photograph, in [0, 1].
        target_image: (P, C, H, W) the target view's photograph, in [0, 1].
        covisible: (P, 1, H, W) bool.
        euclidean: whether a pixel's error is a Euclidean distance.

    Returns:
        (P,) in [0, 1], or in [0, sqrt(3)] of RGB where Euclidean; 0 for a pair without a covisible pixel.
    """
    if euclidean:
        kept = torch.where(covisible, synthesized, target_image)
        return _covisible_mean(color_distance(kept, target_image), covisible)
    return _covisible_mean((synthesized - target_image).abs().mean(dim=1, keepdim=True), covisible)


def depth_consistency_loss(synthesized_depth: Tensor, target_depth: Tensor, covisible: Tensor) -> Tensor:
    """L_depth = 1/|C| sum_C |S D_synthesized - D_t| with S = sum_C D_t / sum_C D_synthesized (MGCNet, equation 4).

    The scale of the synthesized depth has no effect. S is 1 where those depths do not have a positive sum.

    Args:
        synthesized_depth: (P, 1, H, W) decimetres.
        target_depth: (P, 1, H, W) decimetres.
        covisible: (P, 1, H, W) bool.

    Returns:
        (P,) millimetres, which the paper's weight of 1e-4 acts on; 0 for a pair without a covisible pixel.
    """
    zero = torch.zeros_like(target_depth)
    total_synthesized = torch.where(covisible, synthesized_depth, zero).sum(dim=(1, 2, 3))
    total_target = torch.where(covisible, target_depth, zero).sum(dim=(1, 2, 3))
    positive = total_synthesized > 0
    ones = torch.ones_like(total_target)
    scale = torch.where(positive, total_target, ones) / torch.where(positive, total_synthesized, ones)
    error = (scale[:, None, None, None] * synthesized_depth - target_depth).abs()
    return MILLIMETRES * _covisible_mean(error, covisible)


def essential_matrix(rotation: Tensor, translation: Tensor) -> Tensor:
    """E = [t]_x R, so that p_s^T E p_t = 0 for c_s = R c_t + t (MGCNet, section 3.7).

    Args:
        rotation: (P, 3, 3) from target to source, between camera-centred frames.
        translation: (P, 3) decimetres.

    Returns:
        (P, 3, 3)
    """
    # Column by column t x R_k.
    return torch.linalg.cross(translation.unsqueeze(-1).expand_as(rotation), rotation, dim=-2)


def epipolar_distance(rays_target: Tensor, rays_source: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """How far matched points lie from each other's epipolar lines (MGCNet, the summand of equation 5).

    The distance of the source point from the target point's line is |p'^T E p| / sqrt((E p)_1^2 + (E p)_2^2). It is
    averaged with the distance of the target point from the source point's line, with E^T in place of E. The paper calls
    its equation symmetric but prints only the first half. It prints no absolute values either; without them, distances
    of opposite sign would cancel.

    The quotient does not depend on the length of t. At t = 0 it is undefined: both views have the same pose, as those
    of an untrained network do. `MIN_BASELINE` under the root lets distance and gradient fade to 0 there.

    Args:
        rays_target: (P, N, 3) normalised coordinates (x, y, 1), see `renderers.camera.rays`.
        rays_source: (P, N, 3) the matching ones.
        rotation: (P, 3, 3) from target to source, between camera-centred frames.
        translation: (P, 3) decimetres.

    Returns:
        (P, N) in normalised coordinates (pixels over the focal length).
    """
    essential = essential_matrix(rotation, translation)
    line_source = rays_target @ essential.transpose(-1, -2)
    line_target = rays_source @ essential
    residual = (rays_source * line_source).sum(dim=-1).abs()
    halves = [
        residual / (line[..., 0].square() + line[..., 1].square() + MIN_BASELINE**2).sqrt()
        for line in (line_source, line_target)
    ]
    return (halves[0] + halves[1]) / 2


def epipolar_loss(
    landmarks_target: Tensor,
    landmarks_source: Tensor,
    intrinsics_target: Tensor,
    intrinsics_source: Tensor,
    rotation: Tensor,
    translation: Tensor,
    counted: Tensor | None = None,
) -> Tensor:
    """L_epi, the sum of the landmarks' epipolar distances (MGCNet, equation 5).

    Distances are measured in normalised coordinates, where the essential matrix lives, and expressed in pixels of the
    224 px reference camera (times its focal length), so that the paper's weight of 1e-3 holds for every image size.

    Args:
        landmarks_target: (P, N, 2) pixels.
        landmarks_source: (P, N, 2) pixels.
        intrinsics_target: (P, 3, 3) pixels, zero skew.
        intrinsics_source: (P, 3, 3) pixels, zero skew.
        rotation: (P, 3, 3) from target to source, see `renderers.camera.relative_pose`.
        translation: (P, 3) decimetres.
        counted: (P, N) bool, the landmarks that are one point of the face in both views; None: all are.

    Returns:
        (P,) pixels at 224 px, summed over the landmarks that count.
    """
    distance = epipolar_distance(
        rays(landmarks_target, intrinsics_target), rays(landmarks_source, intrinsics_source), rotation, translation
    )
    if counted is not None:
        distance = torch.where(counted, distance, torch.zeros_like(distance))
    return REFERENCE_FOCAL * distance.sum(dim=-1)
