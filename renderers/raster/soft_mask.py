"""Coverage of polygons with a gradient: how much of a small square round each pixel's centre they fill."""

from __future__ import annotations

import torch
from torch import Tensor

_UPRIGHT = 1e-3  # of a square's width: an edge that leans less than this crosses it at one place


def polygon_coverage(polygon: Tensor, size: tuple[int, int], softness: float = 1.0) -> Tensor:
    """The polygon's winding number, averaged exactly over a square round every pixel's centre.

    Green's theorem turns the area that a square shares with the polygon into a sum over the edges, each of which is
    integrated in closed form; so it is differentiable in the corners (all but where one crosses a square's side), and
    a polygon without area is 0 everywhere with a gradient that opens it. Where the outline crosses itself, what runs
    the other way round counts negative: any fan of triangles over the corners covers the same.

    Args:
        polygon: (B, N, 2) x, y in continuous pixels, clockwise as seen where it counts positive.
        size: (H, W).
        softness: width of the square in pixels; with 1 it is the pixel itself, and the coverages' sum is the area of
            what lies inside the picture.

    Returns:
        (B, 1, H, W) share of the square, in [0, 1] for a simple polygon run clockwise.

    >>> square = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [1.5, 1.0], [0.0, 1.0]]])
    >>> polygon_coverage(square, (1, 3), softness=1.0).tolist()
    [[[[1.0, 0.5, 0.0]]]]
    """
    height, width = size
    rows, columns = (torch.arange(n, dtype=polygon.dtype, device=polygon.device) for n in (height, width))
    corner, after = polygon[:, :, None], polygon.roll(-1, dims=1)[:, :, None]
    # In every row of squares, 0 at the upper side and 1 at the lower: (B, N, H).
    (x0, y0), (x1, y1) = corner.unbind(-1), after.unbind(-1)
    upper = rows + 0.5 - softness / 2
    top, bottom = ((y - upper) / softness for y in (y0, y1))
    start, end = _between(top), _between(bottom)
    rise = y1 - y0
    level = rise.abs() < _UPRIGHT * softness
    slope = (x1 - x0) / torch.where(level, 1.0, rise)
    # Where the piece of the edge inside this row begins and ends; a level edge lies in one row whole.
    from_x = torch.where(level, x0, x0 + slope * (upper + softness * start - y0))
    to_x = torch.where(level, x1, x0 + slope * (upper + softness * end - y0))
    left = (columns + 0.5 - softness / 2)[:, None]
    share = _mean_of_clamped((from_x[:, :, None] - left) / softness, (to_x[:, :, None] - left) / softness)
    # The direction of an edge decides whether pixels to its right are covered or bare; (B, N, W, H) summed over edges.
    covered = ((start - end)[:, :, None] * (1 - share)).sum(dim=1)
    return covered.transpose(1, 2)[:, None]


def _between(values: Tensor) -> Tensor:
    """clamp(u, 0, 1) whose gradient is 1 at one of the two ends: a point on a side belongs to one square."""
    return values.relu() - (values - 1).relu()


def _mean_of_clamped(first: Tensor, last: Tensor) -> Tensor:
    """Mean of clamp(u, 0, 1) over u from `first` to `last`, in either order, without cancellation."""
    length = last - first
    upright = length.abs() < _UPRIGHT
    inside = (_between(last).square() - _between(first).square()) / 2
    beyond = (last - 1).relu() - (first - 1).relu()
    return torch.where(upright, _between((first + last) / 2), (inside + beyond) / torch.where(upright, 1.0, length))
