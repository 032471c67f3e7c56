"""Face chips: upright crops as a recognition network was trained on, cut out of an image differentiably.

A chip template says where some of the 68 landmarks lie in the chip. A least-squares similarity transform takes the
template to an image's landmarks. It maps chip pixels to image pixels, and the chip is sampled through it. Both are
continuous pixels: origin at the top-left corner, pixel centres at +0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.constants import constant
from renderers.landmarks68 import LEFT_EYE, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE

# dlib's mean face without jaw, brows and lower lip, in a unit box: (landmark, x, y). Chip layout of dlib (BSL-1.0).
_DLIB_MEAN_FACE = (
    (27, 0.490127, 0.203352), (28, 0.490127, 0.307009), (29, 0.490127, 0.409805), (30, 0.490127, 0.515625),
    (31, 0.36688, 0.587326), (32, 0.426036, 0.609345), (33, 0.490127, 0.628106), (34, 0.554217, 0.609345),
    (35, 0.613373, 0.587326), (36, 0.121737, 0.216423), (37, 0.187122, 0.178758), (38, 0.265825, 0.179852),
    (39, 0.334606, 0.231733), (40, 0.260918, 0.245099), (41, 0.182743, 0.244077), (42, 0.645647, 0.231733),
    (43, 0.714428, 0.179852), (44, 0.793132, 0.178758), (45, 0.858516, 0.216423), (46, 0.79751, 0.244077),
    (47, 0.719335, 0.245099), (48, 0.254149, 0.780233), (49, 0.340985, 0.745405), (50, 0.428858, 0.727388),
    (51, 0.490127, 0.742578), (52, 0.551395, 0.727388), (53, 0.639268, 0.745405), (54, 0.726104, 0.780233),
    (60, 0.290379, 0.784792), (61, 0.428096, 0.778746), (62, 0.490127, 0.785343), (63, 0.552157, 0.778746),
    (64, 0.689874, 0.784792),
)  # fmt: skip
_DLIB_PADDING = 0.25

# dlib's five points in the same unit box: outer and inner eye corners, base of the nose (BSL-1.0).
_DLIB_FIVE_POINTS = (
    (45, 0.8595675, 0.2134982), (42, 0.6460605, 0.2289674), (36, 0.1205751, 0.2137275), (39, 0.3340851, 0.2290642),
    (33, 0.4901123, 0.6277976),
)  # fmt: skip
_DLIB_FIVE_POINT_PADDING = 0.2

# ArcFace's five points in a 112 px chip: eye centres, nose tip, mouth corners; integer pixel indices.
_ARCFACE_SIZE = 112
_ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


@dataclass(frozen=True)
class ChipTransform:
    """x_image = linear @ x_chip + shift, continuous pixels of B images.

    Attributes:
        linear: (B, 2, 2) a rotation times the scale in image pixels per chip pixel.
        shift: (B, 2) image pixels.
    """

    linear: Tensor
    shift: Tensor


def fit_similarity(source: Tensor, target: Tensor) -> ChipTransform:
    """The least-squares similarity (rotation, scale, shift; no reflection) from source to target points.

    With the centred points as complex numbers s and t, rotation and scale are one complex number:
    sum(conj(s) t) / sum(|s|^2). This is Umeyama's closed form in the plane.

    Args:
        source: (N, 2).
        target: (B, N, 2).
    """
    source_mean, target_mean = source.mean(dim=-2), target.mean(dim=-2)
    s, t = source - source_mean, target - target_mean.unsqueeze(-2)
    spread = s.square().sum()
    real = (s * t).sum(dim=(-1, -2)) / spread
    imaginary = (s[:, 0] * t[..., 1] - s[:, 1] * t[..., 0]).sum(dim=-1) / spread
    linear = torch.stack([real, -imaginary, imaginary, real], dim=-1).unflatten(-1, (2, 2))
    return ChipTransform(linear, target_mean - linear @ source_mean)


def dlib_chip(landmarks: Tensor, chip_size: int) -> ChipTransform:
    """The transform by which `dlib.get_face_chip(..., size=chip_size, padding=0.25)` cuts out a face of 68 points.

    Args:
        landmarks: (B, 68, 2) continuous pixels.
        chip_size: pixels.
    """
    return _dlib_transform(landmarks, _DLIB_MEAN_FACE, _DLIB_PADDING, chip_size)


def dlib_five_point_chip(landmarks: Tensor, chip_size: int) -> ChipTransform:
    """The transform by which `dlib.get_face_chip(..., size=chip_size, padding=0.2)` cuts out a face of five points.

    Args:
        landmarks: (B, 68, 2) continuous pixels, the five among them.
        chip_size: pixels.
    """
    return _dlib_transform(landmarks, _DLIB_FIVE_POINTS, _DLIB_FIVE_POINT_PADDING, chip_size)


def _dlib_transform(
    landmarks: Tensor, mean_face: tuple[tuple[float, float, float], ...], padding: float, chip_size: int
) -> ChipTransform:
    """The similarity, with two habits of dlib: it rotates and scales about the chip's centre, and it maps the centres
    of the chip's outermost pixels onto a box that is one image pixel narrower.
    """
    table = constant(mean_face, landmarks)
    template = (padding + table[:, 1:]) / (2 * padding + 1) * chip_size
    similarity = fit_similarity(template, landmarks[:, table[:, 0].long()])
    scale = similarity.linear[:, :, 0].norm(dim=-1)
    narrowed = (chip_size * scale - 1) / ((chip_size - 1) * scale).clamp_min(torch.finfo(scale.dtype).tiny)
    linear = similarity.linear * narrowed[:, None, None]
    centre = constant((chip_size / 2, chip_size / 2), landmarks)
    return ChipTransform(linear, similarity.linear @ centre + similarity.shift - linear @ centre)


def arcface_chip(landmarks: Tensor, chip_size: int) -> ChipTransform:
    """The five-point alignment of ArcFace and its kin, scaled from 112 px to chip_size.

    Args:
        landmarks: (B, 68, 2) continuous pixels; eye centres are the means of the six points of each eye.
        chip_size: pixels.
    """
    template = (constant(_ARCFACE_POINTS, landmarks) + 0.5) * (chip_size / _ARCFACE_SIZE)
    return fit_similarity(template, five_points(landmarks))


def five_points(landmarks: Tensor) -> Tensor:
    """(B, 68, 2) -> (B, 5, 2): eye centres (image-left first), nose tip, mouth corners (image-left first)."""
    eyes = landmarks[:, RIGHT_EYE.start : LEFT_EYE.stop].unflatten(1, (2, 6)).mean(dim=2)
    right, left = MOUTH_CORNERS
    nose_tip, mouth_corners = landmarks[:, NOSE_TIP : NOSE_TIP + 1], landmarks[:, right : left + 1 : left - right]
    return torch.cat([eyes, nose_tip, mouth_corners], dim=1)


def extract_chips(images: Tensor, transform: ChipTransform, chip_size: int) -> Tensor:
    """Sample chips bilinearly. Outside an image a chip is black.

    Where a chip shrinks its image more than twice, each chip pixel averages a square of samples that lie at most two
    image pixels apart. This avoids aliasing of large photographs. An image of at most twice the chip's size gets one
    sample per chip pixel: shrunk more than twice, the whole image would fill less than the chip.

    Args:
        images: (B, C, H, W).
        transform: of B images.
        chip_size: pixels.

    Returns:
        (B, C, chip_size, chip_size), differentiable in the images.
    """
    height, width = images.shape[-2:]
    oversampling = 1
    if max(height, width) > 2 * chip_size and len(images):  # avoids a CUDA synchronisation
        shrinkage = float(transform.linear[:, :, 0].norm(dim=-1).nan_to_num(1.0).amax())
        finest = max(height, width) // chip_size + 2  # bounds the memory for a chip that reaches far beyond its image
        oversampling = max(1, min(math.ceil(shrinkage / 2), finest))
    steps = chip_size * oversampling
    axis = (torch.arange(steps, device=images.device, dtype=images.dtype) + 0.5) / oversampling
    chip_points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).view(1, -1, 2)
    points = chip_points @ transform.linear.transpose(-1, -2) + transform.shift.unsqueeze(1)
    grid = (2 * points / constant((width, height), points) - 1).unflatten(1, (steps, steps))
    chips = F.grid_sample(images, grid.to(images.dtype), padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(chips, oversampling) if oversampling > 1 else chips
