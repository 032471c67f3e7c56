"""A face's texture: the photograph's skin where it shows it, the mirrored side's where not, else the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.preparation.skin import feature_mask, opening_mask
from renderers.camera import CAMERA_DISTANCE
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.albedo import smoothstep
from renderers.face_renderer import Rendering
from renderers.uv.chart import UVChart

TEXTURE_SIZE = 512
GRAZING, FACING = 0.2, 0.6  # cosines to the line of sight between which the photograph fades in
SQUARELY = 4  # power of that cosine by which photographs of one place are weighed: little blurs where one is clearest
EDGE_MARGIN = 0.012  # of the picture's width: how far from a contour the photograph is believed
DEPTH_STEP = 0.5  # decimetres; a larger difference of depth within that distance is a contour
DOUBTFUL, SURE = 0.3, 0.6  # skin probabilities between which the photograph fades in
OPENINGS = ("eyes", "inner_mouth")  # regions of models that have them
OPEN = 0.001  # below it the photograph shows an eye or the mouth's interior
ISLAND = 0.1  # of all skin seen; smaller pieces are bright hair or a collar
# Of the texture's width: what a piece of skin loses at its border, where the photograph has some of what is beside it;
# then what everything loses, and the standard deviation of the soft border of what is left.
RIM, FADE = 0.02, 0.004
LARGEST_RATIO = 5.0  # of photograph to model; beyond it one of them shows something else
DARKEST = 0.02  # likewise
GRAY = 3 / 255  # difference between the channels of a picture without colour


@dataclass(frozen=True)
class PhotoView:
    """A photograph that shows the face.

    Attributes:
        rendering: of the face (B = 1), drawn into `photo`.
        photo: (3, H, W) sRGB in [0, 1].
        coverage: (H, W) in [0, 1], where `photo` shows the photograph and not its repeated border.
        skin: (h, w) in [0, 1], skin probability of the same view at any size; 0 in eyes and mouth.
        trust: how much this view's colours count among several.
    """

    rendering: Rendering
    photo: Tensor
    coverage: Tensor
    skin: Tensor
    trust: float = 1.0

    @property
    def gray(self) -> bool:
        """Whether the photograph is without colour."""
        return float((self.photo.amax(dim=0) - self.photo.amin(dim=0)).flatten().quantile(0.99)) < GRAY


@dataclass(frozen=True)
class _Unwrapped:
    """What one photograph says of each texel.

    Attributes:
        color: (S, S, 3) of the photograph.
        known: (S, S) in [0, 1], how far `color` is believed.
        weight: (S, S) how much that counts beside other photographs.
        ratio: (S, S, 3) logarithm of the photograph's colour over the drawn one.
        model: (S, S, 3) the model's colours in this photograph's light.
    """

    color: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    ratio: np.ndarray
    model: np.ndarray


@torch.no_grad()
def bake_texture(face_model: MorphableModel, views: Sequence[PhotoView], size: int = TEXTURE_SIZE) -> np.ndarray:
    """Unwrap one face into UV space.

    A texel shows the photograph where that shows this part of the face (`believed`). Elsewhere it shows the model's
    albedo under the fitted light, times the ratio of photograph to model: of its mirror image, where that is believed,
    else of the skin around. A ratio of two colours under one light is one of albedos: each side keeps its own light.

    Several photographs are blended in these ratios, which their lights leave alike. Each counts where it is believed,
    by how squarely the face is seen there. The texture is then lit by the mean of the photographs' lights.

    Args:
        face_model: the decoder, with its UVs.
        views: the photographs that show the face.
        size: texels along each side.

    Returns:
        (size, size, 3) uint8; row 0 is v = 1. Texels that no face covers repeat their neighbours. Gray if all
        photographs are.
    """
    chart = UVChart(face_model, size)
    points = face_model.uv[face_model.landmark_indices].double().numpy() * [size, -size] + [0, size]
    features = feature_mask(points, size, size)
    openings = _openings(face_model, chart, points)
    blended = _blended([_unwrapped(chart, view, features, openings) for view in views])
    ratio, known = blended.ratio, blended.known
    around = spread(ratio, known * ~features)
    reflected = _image(chart.mirror(_maps(np.dstack([ratio, known]))))
    other, trust = reflected[..., :3], reflected[..., 3:]
    other = other + spread(ratio - other, known * trust[..., 0])
    filled = blended.model.clip(0, 1) * np.exp(trust * other + (1 - trust) * around)
    texture = known[..., None] * blended.color + (1 - known[..., None]) * filled
    inside = _image(chart.mask.to(torch.float32))
    texture = inside * texture + (1 - inside) * spread(texture, inside[..., 0])
    if all(view.gray for view in views):
        texture = texture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    return (texture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _openings(face_model: MorphableModel, chart: UVChart, points: np.ndarray) -> np.ndarray:
    """(S, S) bool: eyeballs and inner mouth, or, of a model that has none, what lies between its landmarks.

    Our landmarks lie outside of the openings, on the edges of lids and lips.
    """
    if not all(len(face_model.regions.get(name, ())) for name in OPENINGS):
        return opening_mask(points, *chart.mask.shape[-2:])
    inside = torch.zeros(1, face_model.vertex_count, 1)
    for name in OPENINGS:
        inside[:, face_model.regions[name]] = 1
    return np.asarray(_image(chart.bake(inside))[..., 0] > 0.5)


def _unwrapped(chart: UVChart, view: PhotoView, features: np.ndarray, openings: np.ndarray) -> _Unwrapped:
    photo, rendering = view.photo, view.rendering
    cosines = facing(rendering)
    probability = interpolate(view.skin[None, None].to(photo.dtype), photo.shape[1:], mode="bilinear")[0]
    smooth = view.coverage[None] * away_from_edges(rendering.depth)[0]
    shown, visible = chart.unwrap(torch.cat([photo, probability, smooth])[None], rendering)
    vertices = torch.cat([cosines, rendering.vertex_colors, believable_colors(rendering, cosines)], dim=-1)
    maps = torch.cat([shown, visible, chart.bake(vertices)], dim=1)
    color, sure, usable, seen, frontal, drawn, model = np.split(_image(maps), [3, 4, 5, 6, 7, 10], axis=2)
    seen = seen * usable * smoothstep(frontal, GRAZING, FACING)
    known = believed(seen[..., 0], sure[..., 0], features, openings)
    ratio = np.log(color.clip(DARKEST) / drawn.clip(DARKEST)).clip(-np.log(LARGEST_RATIO), np.log(LARGEST_RATIO))
    return _Unwrapped(color, known, view.trust * known * frontal[..., 0].clip(0) ** SQUARELY, ratio, model)


def _blended(views: Sequence[_Unwrapped]) -> _Unwrapped:
    """All photographs as one; a single one stays as it is."""
    if len(views) == 1:
        return views[0]
    weights = np.stack([view.weight for view in views])
    shares = (weights / weights.sum(axis=0).clip(1e-9))[..., None]
    ratio = (shares * np.stack([view.ratio for view in views])).sum(axis=0)
    model = np.exp(np.mean([np.log(view.model.clip(DARKEST)) for view in views], axis=0))
    known = np.max([view.known for view in views], axis=0)
    return _Unwrapped(model * np.exp(ratio), known, weights.sum(axis=0), ratio, model)


def believed(seen: np.ndarray, sure: np.ndarray, features: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """(S, S) in [0, 1]: where the photograph shows the part of the face that a texel belongs to; all (S, S).

    Bare skin is believed where the photograph has skin. Eyes, brows and lips have other colours: they are believed as
    far as the skin around them is, so that nothing of glasses or a mask stays, and only where they meet their own kind:
    no teeth on lips, no lids on eyeballs.

    Args:
        seen: visibility in [0, 1].
        sure: skin probability of what is seen; 0 in the photograph's eyes and mouth.
        features: bool, eyes, brows and mouth with a rim.
        openings: bool, the eyes between their lids and the mouth between its lips.
    """
    skin = smoothstep(sure, DOUBTFUL, SURE)
    large = _large_pieces((seen * skin > 0.5) & ~features)
    bare = _without_rim(np.where(features, 1.0, skin * large), RIM)
    around = smoothstep(spread(bare[..., None], seen * ~features)[..., 0], DOUBTFUL, SURE)
    known = seen * np.where(features, around * np.where(openings, 1 - skin, sure > OPEN), bare)
    # What is seen through an opening is a few texels wide, and has its borders from the mesh.
    return np.where(openings, known, cv2.GaussianBlur(_without_rim(known, FADE), (0, 0), FADE * len(seen)))


def _without_rim(weight: np.ndarray, share: float) -> np.ndarray:
    """(S, S) the weights, of each place the least within this share of S."""
    radius = max(1, round(share * len(weight)))
    return cv2.erode(weight, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))


def _large_pieces(mask: np.ndarray) -> np.ndarray:
    """(S, S) bool: the connected pieces that have their share of it, and two texels more for their soft borders."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the background
    large = (areas[labels] > ISLAND * max(1, mask.sum())).astype(np.uint8)
    return cv2.dilate(large, np.ones((5, 5), np.uint8)).astype(bool)


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


def believable_colors(rendering: Rendering, cosines: Tensor) -> Tensor:
    """(B, V, 3) shaded colours, the light kept within its range on visible vertices: nothing else bounds it elsewhere.

    Args:
        rendering: of B faces.
        cosines: (B, V, 1) to the line of sight, see `facing`.
    """
    albedo = rendering.vertex_albedo.clamp_min(1e-3)
    light = rendering.vertex_colors / albedo
    visible = torch.where(cosines > FACING, light, torch.nan)
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


def facing(rendering: Rendering) -> Tensor:
    """(B, V, 1) cosines between the normals and the directions to the camera."""
    to_camera = rendering.vertices.new_tensor([0.0, 0.0, CAMERA_DISTANCE]) - rendering.vertices
    return (rendering.vertex_normals * torch.nn.functional.normalize(to_camera, dim=-1)).sum(dim=-1, keepdim=True)


def _maps(image: np.ndarray) -> Tensor:
    """(H, W, C) -> (1, C, H, W) float32"""
    return torch.from_numpy(image).float().permute(2, 0, 1)[None]


def _image(maps: Tensor) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C)"""
    return maps[0].permute(1, 2, 0).double().numpy()
