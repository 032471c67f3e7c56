"""How far the eyes and the mouth are open, computed from the 68 landmarks: over their width, or as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.camera import REFERENCE_SIZE
from renderers.landmarks68 import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS

# Upper points, the lower ones below them, and the two corners.
OPENINGS = (
    ((37, 38), (41, 40), RIGHT_EYE_CORNERS),
    ((43, 44), (47, 46), LEFT_EYE_CORNERS),
    ((61, 62, 63), (67, 66, 65), (60, 64)),
)


def aspect_ratios(landmarks: Tensor) -> Tensor:
    """Height over width of the right eye, the left eye and the inner mouth, the person's right and left.

    For the eyes this is the eye aspect ratio of Soukupova and Cech 2016: about 0.3 when open, 0 when closed.

    Args:
        landmarks: (B, 68, D) points in the plane or in space, any unit.

    Returns:
        (B, 3), at least 0.

    >>> square = torch.zeros(1, 68, 2)
    >>> square[0, 37:40] = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 0.0]])
    >>> square[0, 40:42] = torch.tensor([[2.0, -1.0], [1.0, -1.0]])
    >>> aspect_ratios(square)[0, 0].item()
    0.6666666865348816
    """
    ratios = []
    for upper, lower, (right, left) in OPENINGS:
        height = heights(landmarks, upper, lower).mean(dim=-1)
        width = (landmarks[:, right] - landmarks[:, left]).norm(dim=-1)
        ratios.append(height / width.clamp_min(torch.finfo(width.dtype).tiny))
    return torch.stack(ratios, dim=-1)


def aspect_ratio_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the `aspect_ratios` of (B, 68, D) landmarks -> (B,)."""
    return (aspect_ratios(predicted) - aspect_ratios(target)).abs().mean(dim=-1)


def lid_distance_loss(predicted: Tensor, target: Tensor, image_size: int) -> Tensor:
    """The mean absolute difference of `lid_distances` between rendered and annotated eyes; ours.

    An eye that is shut costs the landmark term little: its lids are a few pixels off, as any landmark is.

    Args:
        predicted: (B, 68, 2) pixels.
        target: (B, 68, 2) pixels.
        image_size: pixels along the image's side.

    Returns:
        (B,) pixels at 224 px.
    """
    difference = lid_distances(predicted) - lid_distances(target)
    return REFERENCE_SIZE / image_size * difference.abs().mean(dim=-1)


def lid_distances(landmarks: Tensor) -> Tensor:
    """How far the lids are apart, two places of each eye: (B, 68, D) points -> (B, 4) of their unit.

    >>> points = torch.zeros(1, 68, 2)
    >>> points[0, 38, 1] = -3.0  # of the right eye's upper lid; the lower one lies at 40
    >>> lid_distances(points).tolist()
    [[0.0, 3.0, 0.0, 0.0]]
    """
    return torch.cat([heights(landmarks, upper, lower) for upper, lower, _ in OPENINGS[:2]], dim=-1)


def heights(landmarks: Tensor, upper: tuple[int, ...], lower: tuple[int, ...]) -> Tensor:
    """(B, 68, D) points -> (B, P) distances of P upper points from the lower ones below them."""
    return torch.linalg.vector_norm(landmarks[:, upper] - landmarks[:, lower], dim=-1)
