"""View synthesis: which pixels two views share, and the target view sampled from the source view.

P is the number of (target, source) pairs. Poses are those of `renderers.camera.relative_pose`: c_s = R c_t + t between
camera-centred points (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from renderers.camera import NEAR, rays
from renderers.kernels.on_gpu import on_gpu
from renderers.raster.interpolation import pixel_centres


@on_gpu("renderers.kernels.view_synthesis")
def covisible_map(target: Tensor, source: Tensor, faces: Tensor, vertex_count: int) -> Tensor:
    """C_s of MGCNet section 3.4: the target's pixels whose face touches a vertex that both views show.

    A view shows a vertex when some pixel sees a face with that corner; vertices that both show are the covisible
    points; every face adjacent to one is covisible, and so are the target's pixels that see such a face. No
    synchronisation with the device.

    Args:
        target: (P, H, W) face index seen by each pixel of the target view, -1 for background.
        source: (P, H', W') the same for the source view.
        faces: (F, 3) vertex indices.
        vertex_count: V, above every index in `faces`.

    Returns:
        (P, 1, H, W) bool.
    """
    # Row 0 is the background's face; its corners are one vertex more, which no view shows.
    corners = torch.cat([faces.new_full((1, 3), vertex_count), faces]).long()
    in_target = corners[target.long() + 1].flatten(1)
    in_source = corners[source.long() + 1].flatten(1)
    shown = torch.zeros(2, len(target), vertex_count + 1, dtype=torch.bool, device=faces.device)
    shown[0].scatter_(1, in_target, True)
    shown[1].scatter_(1, in_source, True)
    covisible = shown[0] & shown[1]
    covisible[:, vertex_count] = False
    return covisible.gather(1, in_target).view(*target.shape, 3).any(dim=-1).unsqueeze(1)


@dataclass(frozen=True)
class SynthesizedView:
    """The target view, sampled from the source view.

    Attributes:
        image: (P, C, H, W) the source's picture, sampled.
        depth: (P, 1, H, W) the source's depth map, sampled and carried into the target's camera; decimetres. With exact
            poses it equals the target's own depth wherever both views see the same point.
        inside: (P, 1, H, W) bool: the target pixel shows the face, lies in front of the source camera and within its
            image, and none of the source pixels it was sampled from is background. Elsewhere `image` and `depth` mean
            nothing, but are finite.
    """

    image: Tensor
    depth: Tensor
    inside: Tensor


@on_gpu("renderers.kernels.view_synthesis")
def synthesize_view(
    source: Tensor,
    depth_source: Tensor,
    depth_target: Tensor,
    intrinsics_target: Tensor,
    intrinsics_source: Tensor,
    rotation: Tensor,
    translation: Tensor,
) -> SynthesizedView:
    """Bilinear samples of the source view at p_s ~ K_s [R | t] D_t(p_t) K_t^-1 p_t (MGCNet, equation 2).

    The sampled depth D_s(p_s) lies in the source's frame. The paper compares a synthesized *target* depth map with D_t,
    so the point D_s(p_s) K_s^-1 p_s is taken back through the inverse relative pose; its z is the synthesized depth.
    Differentiable in the pictures, the depths and the pose.

    Args:
        source: (P, C, H', W') the source view's picture.
        depth_source: (P, 1, H', W') its depth map, decimetres, 0 on background.
        depth_target: (P, 1, H, W) the target's depth map, decimetres, 0 on background.
        intrinsics_target: (P, 3, 3) pixels, zero skew.
        intrinsics_source: (P, 3, 3) pixels, zero skew.
        rotation: (P, 3, 3) from target to source, see `renderers.camera.relative_pose`.
        translation: (P, 3) decimetres.
    """
    channels, height, width = source.shape[1:]
    rows, columns = depth_target.shape[2:]
    centres = pixel_centres(rows, columns, like=depth_target).view(1, -1, 2).expand(len(source), -1, -1)
    # Coordinates first, (P, 3, H W), which is several times as fast on a CPU.
    turned = rotation @ rays(centres, intrinsics_target).transpose(1, 2)
    covered = depth_target.flatten(2) > NEAR
    moved = turned * depth_target.flatten(2) + translation.unsqueeze(-1)
    in_front = covered & (moved[:, 2:] > NEAR)
    # Points behind the camera are divided by 1, so that no value or gradient is 0 * inf.
    source_rays = moved / torch.where(moved[:, 2:] > NEAR, moved[:, 2:], 1.0)

    # grid_sample without aligned corners has the image's borders at -1 and 1: a continuous x lies at 2 x / W - 1.
    focal = torch.stack([intrinsics_source[:, 0, 0] / width, intrinsics_source[:, 1, 1] / height], dim=-1)
    principal = torch.stack([intrinsics_source[:, 0, 2] / width, intrinsics_source[:, 1, 2] / height], dim=-1)
    grid = torch.addcmul((2 * principal - 1).unsqueeze(-1), 2 * focal.unsqueeze(-1), source_rays[:, :2])
    layers = torch.cat([source, depth_source, (depth_source <= 0).to(source.dtype)], dim=1)
    places = grid.transpose(1, 2).view(-1, rows, columns, 2)
    sampled = functional.grid_sample(layers, places, mode="bilinear", padding_mode="border", align_corners=False)
    image, depth, background = sampled.split([channels, 1, 1], dim=1)
    within = in_front & (grid.abs() <= 1).all(dim=1, keepdim=True)
    inside = within.view_as(background) & (background <= 0)

    # `source_rays` are K_s^-1 p_s; back in the target's camera its z is that of R^T (D_s(p_s) K_s^-1 p_s - t).
    axis = rotation[:, :, 2].unsqueeze(1)
    depth_back = (axis @ source_rays).view_as(depth) * depth - (axis @ translation.unsqueeze(-1)).unsqueeze(-1)
    return SynthesizedView(image, depth_back, inside)
