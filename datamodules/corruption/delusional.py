"""Delusional occlusions: random shapes and patterns of any colour at any place (ROGUE, section 4.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datamodules.corruption.draws import Corrupted, Draws
from datamodules.corruption.shapes import (
    blob_gauge,
    ellipse_gauge,
    face_hull,
    polygon_gauge,
    rectangle_gauge,
    stripes_gauge,
)
from renderers.io.errors import UserError
from renderers.raster.interpolation import pixel_centres

SHAPES = ("ellipse", "rectangle", "polygon", "blob", "stripes")
PATTERNS = ("flat", "stripes", "checks", "gradient", "noise")
MOST_SHAPES = 4
SIDES = 7  # most sides of a polygon
WAVES = 4  # on a blob's outline
CELLS = 16  # along each axis of the noise pattern, which then repeats


class DelusionalOcclusion(nn.Module):
    """Covers a random share of the face with one to four random shapes in random patterns.

    The face is the part of the 68 landmarks' convex hull inside the picture, or the whole picture if that part has less
    than sixteen pixels. All shapes of an image grow together until they cover the share: a pixel's gauge is the scale
    at which a shape first reaches it, and the final scale is the share's quantile of the gauge over the face.

    Args:
        coverage: least and greatest share, within [0, 1]; the share is uniform between them.

    Raises:
        UserError: a coverage that is no such range.
    """

    def __init__(self, coverage: tuple[float, float] = (0.05, 0.7)) -> None:
        super().__init__()
        least, most = coverage
        if not 0 <= least <= most <= 1:
            raise UserError(f"coverage {coverage} is no range of shares: give two numbers, 0 <= least <= most <= 1")
        self.coverage = (least, most)

    @torch.no_grad()
    def forward(self, image: Tensor, landmarks: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        """The images with shapes over the faces.

        Args:
            image: (B, 3, H, W) in [0, 1].
            landmarks: (B, 68, 2) pixels.
            generator: the same state draws the same; torch's own where absent.

        Returns:
            Images and masks; edges are hard.
        """
        draws = Draws(generator, image.device)
        height, width = image.shape[2:]
        hull = face_hull(landmarks.float(), height, width)
        x, y = _frames(landmarks.float(), height, width, draws)
        gauges = _gauges(x, y, draws)
        scale = self._scales(gauges.amin(dim=1), hull, draws)
        order = torch.arange(MOST_SHAPES, device=image.device)[:, None, None]
        top = torch.where(gauges <= scale[:, None], order, -1).amax(dim=1)  # later shapes lie on top
        mask = top >= 0
        occluded = image.permute(0, 2, 3, 1).clone()
        occluded[mask] = _colors(x, y, top, mask, draws).to(image.dtype)
        return Corrupted(occluded.permute(0, 3, 1, 2).contiguous(), mask[:, None])

    def _scales(self, gauge: Tensor, hull: Tensor, draws: Draws) -> Tensor:
        """(B, 1, 1) the scale below which the gauge (B, H, W) lies for a random share of the hull's pixels."""
        least, most = self.coverage
        count = hull.flatten(1).sum(dim=1)
        wanted = (draws.uniform(len(gauge), low=least, high=most) * count).round()
        # The rounded number must not leave the range.
        wanted = wanted.clamp((least * count - 1e-3).ceil(), (most * count + 1e-3).floor()).long()
        ranked = torch.where(hull, gauge, torch.inf).flatten(1).sort(dim=1).values
        scale = ranked.gather(1, (wanted - 1).clamp_min(0)[:, None])
        return torch.where(wanted[:, None] > 0, scale, -1.0)[..., None]


def _frames(landmarks: Tensor, height: int, width: int, draws: Draws) -> tuple[Tensor, Tensor]:
    """x, y (B, K, H, W) of the pixels in each shape's frame: about its centre, turned, in half-widths of the face."""
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    half = ((high - low) / 2).prod(dim=1).sqrt().clamp_min(1.0)[:, None, None, None]
    place = draws.uniform(2, len(landmarks), MOST_SHAPES, low=-0.1, high=1.1)
    center = [low[:, axis, None] + place[axis] * (high - low)[:, axis, None] for axis in range(2)]
    angle = draws.uniform(len(landmarks), MOST_SHAPES, 1, 1, high=2 * math.pi)
    cosine, sine = torch.cos(angle) / half, torch.sin(angle) / half
    x, y = pixel_centres(height, width, landmarks).unbind(dim=-1)
    across, down = x - center[0][..., None, None], y - center[1][..., None, None]
    return cosine * across + sine * down, cosine * down - sine * across


def _gauges(x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """(B, K, H, W) gauges of one to four shapes of random kinds; infinite for shapes that an image does not have."""
    batch = len(x)
    kind = draws.integers(batch, MOST_SHAPES, high=len(SHAPES))
    many = draws.integers(batch, 1, low=1, high=MOST_SHAPES + 1)
    size = draws.log_uniform(batch, MOST_SHAPES, low=0.4, high=1.6)
    aspect = draws.log_uniform(batch, MOST_SHAPES, 1, 1, low=0.45, high=2.2)
    period = draws.log_uniform(batch, MOST_SHAPES, 1, 1, low=0.25, high=1.2)
    sides = draws.integers(batch, MOST_SHAPES, 1, low=3, high=SIDES + 1)
    jitter = draws.uniform(batch, MOST_SHAPES, SIDES, low=-0.2, high=0.2)
    distances = draws.uniform(batch, MOST_SHAPES, SIDES, low=0.6, high=1.2)
    waves = draws.uniform(2, batch, MOST_SHAPES, WAVES)
    present = torch.arange(MOST_SHAPES, device=x.device) < many
    # Indices beyond the last side of a polygon start again at its first.
    turn = torch.arange(SIDES, device=x.device) % sides
    angles = 2 * math.pi * (turn + jitter.gather(2, turn)) / sides
    distances = distances.gather(2, turn)
    gauges = torch.full_like(x, torch.inf)
    for index, name in enumerate(SHAPES):
        at = (present & (kind == index)).nonzero(as_tuple=True)
        if not len(at[0]):
            continue
        u, v = x[at], y[at]
        if name == "ellipse":
            gauge = ellipse_gauge(u, v, aspect[at])
        elif name == "rectangle":
            gauge = rectangle_gauge(u, v, aspect[at])
        elif name == "polygon":
            gauge = polygon_gauge(u, v, angles[at], distances[at])
        elif name == "blob":
            gauge = blob_gauge(u, v, 0.3 * waves[0][at], 2 * math.pi * waves[1][at])
        else:
            gauge = stripes_gauge(u, period[at])
        gauges[at] = gauge / size[at][:, None, None]
    return gauges


def _colors(x: Tensor, y: Tensor, top: Tensor, mask: Tensor, draws: Draws) -> Tensor:
    """(N, 3) in [0, 1]: colours of the N pixels of the mask, by the patterns of the shapes `top` (B, H, W)."""
    shapes = len(x) * MOST_SHAPES
    kind = draws.integers(shapes, high=len(PATTERNS))
    frequency = draws.log_uniform(shapes, low=1.0, high=5.0)
    cells = draws.uniform(shapes, CELLS * CELLS)
    first, second = draws.uniform(2, shapes, 3)
    image, row, column = mask.nonzero(as_tuple=True)
    upper = top[mask]
    shape = image * MOST_SHAPES + upper
    looks = torch.cat([kind[:, None].float(), frequency[:, None], first, second], dim=1).index_select(0, shape)
    pattern, pitch, one, other = looks.split([1, 1, 3, 3], dim=1)
    # In half-periods of the shape's pattern.
    u = x[image, upper, row, column] * pitch[:, 0]
    v = y[image, upper, row, column] * pitch[:, 0]
    along, across = u.floor().int(), v.floor().int()
    # CELLS is a power of two, so the last bits repeat, below 0 too.
    cell = ((3 * v).floor().int() & (CELLS - 1)) * CELLS + ((3 * u).floor().int() & (CELLS - 1))
    mixtures = {
        "stripes": along & 1,
        "checks": (along + across) & 1,
        "gradient": (0.5 + 0.25 * u).clamp(0, 1),
        "noise": cells.flatten().index_select(0, shape * CELLS * CELLS + cell),
    }
    part = torch.zeros_like(u)  # "flat"
    for name, mixture in mixtures.items():
        part = torch.where(pattern[:, 0] == PATTERNS.index(name), mixture, part)
    return torch.lerp(one, other, part[:, None])
