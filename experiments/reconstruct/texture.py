"""A face's texture: the photograph's colours where it shows the face, the model's where it does not."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from renderers.camera import CAMERA_DISTANCE
from renderers.face_renderer import Rendering
from renderers.morphable_model.model import MorphableModel
from renderers.uv import UVChart

TEXTURE_SIZE = 512
DEPTH_TOLERANCE = 0.03  # decimetres
# Cosines to the line of sight: the photograph's skin fades in between the first two, all it shows between the others.
GRAZING, FACING, FRONTAL = 0.2, 0.6, 0.85
EDGE_MARGIN = 0.012  # of the picture's width: how far from a contour the photograph is believed
DEPTH_STEP = 0.5  # decimetres; a larger difference of depth within that distance is a contour
DETAIL_SIGMA = 6.0  # texels; what is finer than this counts as detail and may be mirrored


@torch.no_grad()
def bake_texture(
    face_model: MorphableModel,
    rendering: Rendering,
    photo: Tensor,
    coverage: Tensor,
    skin: Tensor,
    size: int = TEXTURE_SIZE,
) -> np.ndarray:
    """Unwrap one face into UV space.

    Visible texels show the photograph. The others show the shaded albedo of the model, shifted by how far the
    photograph differs from it nearby, with the detail of the mirrored side where that one is visible.

    Args:
        face_model: the decoder, with its UVs.
        rendering: of one face (B = 1), drawn into `photo`.
        photo: (3, H, W) sRGB in [0, 1].
        coverage: (H, W) in [0, 1], where `photo` shows the photograph and not its repeated border.
        skin: (h, w) in [0, 1], skin probability of the same view at any size: where the face turns away, hair and
            background are close, and only skin is taken.
        size: texels along each side.

    Returns:
        (size, size, 3) uint8; row 0 is v = 1. Texels that no face covers repeat their neighbours.
    """
    chart = UVChart(face_model, size)
    sight = torch.nn.functional.normalize(_to_camera(rendering), dim=-1)
    facing = (rendering.vertex_normals * sight).sum(dim=-1, keepdim=True)
    attributes = torch.cat([believable_colors(rendering, facing), rendering.vertices_image, facing], dim=-1)
    model, points, facing = chart.bake(attributes).split([3, 3, 1], dim=1)

    stack = torch.cat([photo, coverage[None] * away_from_edges(rendering.depth)[0, 0], rendering.depth[0]])[None]
    scale = points.new_tensor([photo.shape[2], photo.shape[1]])
    sampled = _sample(stack, points[:, :2].movedim(1, -1) / scale)
    sure = _sample(skin[None, None], points[:, :2].movedim(1, -1) / scale)
    near = (sampled[:, 4:] - points[:, 2:]).abs() < DEPTH_TOLERANCE
    covered = chart.mask.to(photo.dtype)
    frontal = _fade(facing, FACING, FRONTAL)
    weight = _fade(facing, GRAZING, FACING) * (frontal + (1 - frontal) * sure) * near * sampled[:, 3:4] * covered

    color, shaded = _image(sampled[:, :3]), _image(model.clamp(0, 1))
    known = _image(weight)[..., 0]
    known = cv2.GaussianBlur(known, (0, 0), 1.0) * (known > 0)
    offset = spread(color - shaded, known)
    detail = color - spread(color, known, sigmas=(DETAIL_SIGMA,))
    other = torch.from_numpy(np.dstack([detail, known])).float().permute(2, 0, 1)[None]
    reflected = _image(chart.mirror(other))
    filled = shaded + offset + reflected[..., :3] * reflected[..., 3:]
    texture = known[..., None] * color + (1 - known[..., None]) * filled
    inside = _image(covered)
    texture = inside * texture + (1 - inside) * spread(texture, inside[..., 0])
    return (texture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def away_from_edges(depth: Tensor) -> Tensor:
    """(B, 1, H, W) 1 where depth is smooth, 0 near contours, where a slight misfit shows the background.

    Args:
        depth: (B, 1, H, W) decimetres, 0 on background.
    """
    filled = torch.where(depth > 0, depth, 2 * CAMERA_DISTANCE)
    window = 2 * round(EDGE_MARGIN * depth.shape[-1]) + 1
    farthest, nearest = (
        torch.nn.functional.max_pool2d(sign * filled, window, stride=1, padding=window // 2) for sign in (1, -1)
    )
    return (farthest + nearest < DEPTH_STEP).to(depth.dtype)


def believable_colors(rendering: Rendering, facing: Tensor) -> Tensor:
    """(B, V, 3) shaded colours, the light kept within its range on visible vertices: nothing else bounds it elsewhere.

    Args:
        rendering: of B faces.
        facing: (B, V, 1) cosines to the line of sight.
    """
    albedo = rendering.vertex_albedo.clamp_min(1e-3)
    light = rendering.vertex_colors / albedo
    visible = torch.where(facing > FACING, light, torch.nan)
    low, high = (visible.nanquantile(share, dim=1, keepdim=True) for share in (0.1, 0.9))
    return albedo * light.clamp(low.nan_to_num(0.0), high.nan_to_num(1.0))


def spread(
    values: np.ndarray, weight: np.ndarray, sigmas: tuple[float, ...] = (128.0, 48.0, 16.0, 6.0, 2.0)
) -> np.ndarray:
    """Weighted smoothing that carries values into places without weight: coarse far from it, finer near it.

    Args:
        values: (H, W, C).
        weight: (H, W) in [0, 1].
        sigmas: of the Gaussians, coarse to fine, texels.

    Returns:
        (H, W, C), smooth at the scale of the last sigma where there is weight.
    """
    total = max(float(weight.sum()), 1e-6)
    result = np.broadcast_to((values * weight[..., None]).sum(axis=(0, 1)) / total, values.shape)
    weighted = np.dstack([values * weight[..., None], weight]).astype(np.float32)
    for sigma in sigmas:
        blurred = blur(weighted, sigma)
        near = blurred[..., -1:]
        trust = (near / 0.1).clip(0, 1)
        result = trust * blurred[..., :-1] / (near + 1e-6) + (1 - trust) * result
    return result


def blur(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of (H, W, C) float32 with zeros outside; wide ones at a lower resolution, where they cost little."""
    height, width = values.shape[:2]
    shrink = max(1, int(sigma / 4))
    small = cv2.resize(values, (-(-width // shrink), -(-height // shrink)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _to_camera(rendering: Rendering) -> Tensor:
    """(B, V, 3) from each posed vertex to the camera."""
    return rendering.vertices.new_tensor([0.0, 0.0, CAMERA_DISTANCE]) - rendering.vertices


def _fade(value: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between."""
    share = ((value - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _sample(image: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples of (1, C, H, W) at (1, h, w, 2) places in [0, 1], x right, y down."""
    return torch.nn.functional.grid_sample(image, places * 2 - 1, align_corners=False, padding_mode="border")


def _image(tensor: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C)"""
    return tensor[0].permute(1, 2, 0).double().numpy()
