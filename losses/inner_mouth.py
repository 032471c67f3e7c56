"""Inner mouth term: compares the area of the model's open mouth with the labelled one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderers.camera import REFERENCE_SIZE
from renderers.landmarks68 import INNER_MOUTH
from renderers.raster.soft_mask import polygon_coverage

CELL = 3.5  # side of the cells in which the areas are compared, in pixels of a 224 px image
SOFTNESS = 2.0  # cells; mouths that lie farther apart have no gradient towards each other
MARGIN = 2  # cells round both mouths


def inner_mouth_loss(predicted: Tensor, target: Tensor, image_size: int) -> Tensor:
    """L_mouth = |A - A^p|, the inner mouth's labelled area and that of the model (specular paper, equation (11)).

    The model's mouth is the octagon through its eight inner-mouth landmark vertices, which every model with 68
    landmarks has. Both areas are drawn as soft coverage (`polygon_coverage`) and compared cell by cell, so equal areas
    at different places differ. Where the model's lips pass through each other, its area is negative, and the loss opens
    the mouth until the lips touch. A negative labelled area is taken as 0. Only the part inside the image counts.

    Args:
        predicted: (B, 68, 2) the model's projected landmarks, pixels.
        target: (B, 68, 2) labelled landmarks, pixels.
        image_size: pixels along the image's side.

    Returns:
        (B,) square pixels at 224 px.
    """
    scale = REFERENCE_SIZE / image_size / CELL
    model, label = scale * predicted[:, INNER_MOUTH], scale * target[:, INNER_MOUTH]
    cells = math.ceil(REFERENCE_SIZE / CELL)
    origin, size = _window(torch.cat([model, label], dim=1).detach(), cells)
    with torch.no_grad():
        labelled = polygon_coverage(label - origin, size, SOFTNESS).clamp_min(0)
    rendered = polygon_coverage(model - origin, size, SOFTNESS)
    return CELL**2 * (rendered - labelled).abs().flatten(1).sum(dim=1)


def _window(points: Tensor, cells: int) -> tuple[Tensor, tuple[int, int]]:
    """Windows inside the image that hold all (B, N, 2) points: corners (B, 1, 2), and one size (H, W) for the batch."""
    if points.is_cuda:  # the full window avoids a CUDA synchronisation
        return points.new_zeros(len(points), 1, 2), (cells, cells)
    low = (points.amin(dim=1).floor() - MARGIN).nan_to_num().clamp(0, cells - 1)
    high = (points.amax(dim=1).ceil() + MARGIN).nan_to_num().clamp(1, cells)
    width, height = (int(extent) for extent in (high - low).clamp_min(1).amax(dim=0).tolist())
    room = torch.tensor([cells - width, cells - height], dtype=points.dtype, device=points.device)
    return torch.minimum(low, room)[:, None], (height, width)
