"""Colours and patterns of the rational occlusions, computed for the visible points of their surfaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.corruption.meshes import BACK, CORD, FINGER, LENS

GRAIN = 64  # values along each axis of the random texture, which then repeats
HAIR_COLORS = (
    (0.05, 0.04, 0.04),
    (0.16, 0.1, 0.07),
    (0.3, 0.18, 0.1),
    (0.55, 0.4, 0.22),
    (0.45, 0.22, 0.1),
    (0.6, 0.6, 0.6),
)
RIM_COLORS = (
    (0.06, 0.06, 0.07),
    (0.28, 0.15, 0.08),
    (0.6, 0.5, 0.28),
    (0.62, 0.64, 0.68),
    (0.5, 0.08, 0.1),
    (0.1, 0.15, 0.4),
)
TINTS = ((0.03, 0.03, 0.04), (0.14, 0.08, 0.04), (0.05, 0.1, 0.07), (0.08, 0.1, 0.25), (0.3, 0.14, 0.05))
MASK_COLORS = ((0.62, 0.8, 0.9), (0.93, 0.94, 0.95), (0.1, 0.1, 0.12), (0.55, 0.8, 0.72), (0.93, 0.72, 0.78))
CLOTH_COLORS = (
    (0.08, 0.08, 0.1),
    (0.55, 0.05, 0.12),
    (0.15, 0.12, 0.5),
    (0.72, 0.55, 0.15),
    (0.3, 0.08, 0.38),
    (0.1, 0.42, 0.35),
)


@dataclass(frozen=True)
class Hits:
    """N visible points of occluders in the pictures of a batch.

    Attributes:
        image: (N,) number of the picture in the batch.
        point: (N, 3) decimetres, head frame.
        u: (N,) across the surface, in [0, 1].
        v: (N,) along it.
        part: (N,) of `meshes`.
        light: (N,) cosine between the surface's normal and the lamp, clamped at 0.
        facing: (N,) cosine between the normal and the viewer.
        styles: (B, S) random numbers in [0, 1) that decide the look of each picture's occluder.
        textures: (B, GRAIN, GRAIN) random numbers in [0, 1).
        skin: (B, 3) mean colour of each face.
    """

    image: Tensor
    point: Tensor
    u: Tensor
    v: Tensor
    part: Tensor
    light: Tensor
    facing: Tensor
    styles: Tensor
    textures: Tensor
    skin: Tensor

    def style(self, index: int) -> Tensor:
        """(N,) one number of the style of each point's occluder."""
        return self.styles[:, index].index_select(0, self.image)

    def choose(self, colors: tuple[tuple[float, float, float], ...], index: int) -> Tensor:
        """(N, 3) one of the colours for each occluder, by one number of its style."""
        palette = torch.tensor(colors, device=self.u.device)
        return palette[(self.styles[:, index] * len(colors)).long()].index_select(0, self.image)

    def grain(self, s: Tensor, t: Tensor) -> Tensor:
        """(N,) random texture in [0, 1) at the (N,) places s, t: linear between whole numbers."""
        column, row = s.floor(), t.floor()
        x, y = s - column, t - row
        # GRAIN is a power of two, so the last bits repeat, below 0 too.
        left, right = column.long() & (GRAIN - 1), (column.long() + 1) & (GRAIN - 1)
        upper = ((row.long() & (GRAIN - 1)) + self.image * GRAIN) * GRAIN
        lower = (((row.long() + 1) & (GRAIN - 1)) + self.image * GRAIN) * GRAIN
        texture = self.textures.flatten()
        above = torch.lerp(texture.index_select(0, upper + left), texture.index_select(0, upper + right), x)
        below = torch.lerp(texture.index_select(0, lower + left), texture.index_select(0, lower + right), x)
        return torch.lerp(above, below, y)


Paint = tuple[Tensor, Tensor]  # (N, 3) colour and (N,) opacity, in [0, 1]


def _shade(color: Tensor, brightness: Tensor) -> Tensor:
    return color * brightness[:, None]


def _line(value: Tensor, at: Tensor | float, width: float) -> Tensor:
    """1 where the value is `at`, falling smoothly to 0 beyond the width."""
    return torch.exp(-(((value - at) / width) ** 2))


def _rims(hits: Hits) -> Tensor:
    return _shade(hits.choose(RIM_COLORS, 4), 0.55 + 0.6 * hits.light + 0.5 * hits.light**12)


def _glare(hits: Hits) -> Tensor:
    """(N,) a slanting reflection on each lens."""
    slant = hits.point[:, 0].abs() - 0.335 + 0.7 * (hits.point[:, 1] - 0.195)
    return _line(slant, 0.25 * hits.style(6) - 0.15, 0.05)


def glasses(hits: Hits) -> Paint:
    """Clear lenses with a reflection."""
    lens, glare = hits.part == LENS, _glare(hits)
    clear = hits.u.new_tensor([0.86, 0.93, 0.98]).expand(len(glare), 3)
    color = torch.where(lens[:, None], clear, _rims(hits))
    return color, torch.where(lens, 0.1 + 0.1 * hits.style(5) + 0.45 * glare, 1.0)


def sunglasses(hits: Hits) -> Paint:
    """Dark lenses, lighter towards their lower edge."""
    lens, fade = hits.part == LENS, ((0.4 - hits.point[:, 1]) / 0.5).clamp(0, 1)
    glass = hits.choose(TINTS, 5) + (0.12 * fade + 0.4 * _glare(hits))[:, None]
    color = torch.where(lens[:, None], glass, _rims(hits))
    return color, torch.where(lens, 0.98 - 0.13 * fade * hits.style(7), 1.0)


def surgical_mask(hits: Hits) -> Paint:
    """Pleats across, bound edges, a wire over the nose."""
    u, v = hits.u, hits.v
    cord = hits.part == CORD
    brightness = 0.62 + 0.42 * hits.light
    for pleat in (0.34, 0.5, 0.66):
        # The upper side of a fold is lit, its underside is dark.
        brightness = brightness - 0.22 * _line(v, pleat, 0.014) + 0.08 * _line(v, pleat - 0.035, 0.02)
    edge = torch.minimum(torch.minimum(u, 1 - u) * 1.2, torch.minimum(v, 1 - v))
    brightness = brightness - 0.12 * _line(edge, 0.045, 0.01) + 0.04 * _line(v, 0.09, 0.015) * _line(u, 0.5, 0.2)
    brightness = brightness + 0.05 * (hits.grain(40 * u, 40 * v) - 0.5)
    cloth = _shade(hits.choose(MASK_COLORS, 4), brightness)
    white = _shade(torch.full_like(cloth, 0.92), 0.65 + 0.35 * hits.light)
    return torch.where(cord[:, None], white, cloth), torch.ones_like(u)


def _strands(hits: Hits, across: Tensor, along: Tensor) -> Tensor:
    """(N,) brightness of hair whose strands, of about one unit of `across`, follow `along`."""
    wave = across + 1.5 * hits.grain(across / 6, along * 2)
    return 0.65 * hits.grain(wave, along) + 0.35 * hits.grain(wave * 2.3, along * 1.7)


def _hair(hits: Hits, strands: Tensor) -> Tensor:
    return _shade(hits.choose(HAIR_COLORS, 4), 0.25 + 0.9 * strands + 0.5 * hits.light * (0.4 + strands))


def beard(hits: Hits) -> Paint:
    """Curls that are thinner at the edges, from stubble to a full beard."""
    whole = hits.point[:, 1] < -0.2
    across = hits.point[:, 0] * 45
    strands = _strands(hits, across, hits.point[:, 1] * 14)
    edge = torch.minimum(hits.v, 1 - hits.v).clamp_max(0.5) * 2 + 0.0 * whole
    edge = torch.minimum(edge, torch.minimum(hits.u, 1 - hits.u) * 12)
    density = 0.55 + 0.45 * (3 * hits.style(5)).clamp_max(1)
    cover = ((edge * 4 + 1.4 * (strands - 0.5)) * 1.3).clamp(0, 1)
    thin = 0.6 + 0.8 * (strands - 0.3)
    opacity = cover * torch.lerp(thin.clamp(0, 1) * density, density, density)
    return _hair(hits, strands), opacity


def moustache(hits: Hits) -> Paint:
    """Strands that fall to both sides."""
    side = (hits.u - 0.5).abs() * 2
    strands = _strands(hits, hits.v * 9 + side * 5, side * 5 + 10 * (hits.u > 0.5))
    edge = torch.minimum(torch.minimum(hits.v, 1 - hits.v) * 2, torch.minimum(hits.u, 1 - hits.u) * 5)
    cover = ((edge * 4 + 1.2 * (strands - 0.3)) * 1.4).clamp(0, 1)
    return _hair(hits, strands), cover * 0.97


def eye_mask(hits: Hits) -> Paint:
    """Cloth with a border; two times in three with holes for the eyes."""
    x, y = hits.point[:, 0].abs(), hits.point[:, 1]
    from_eye = torch.hypot((x - 0.325) / 0.155, (y - 0.225) / 0.085)
    holed = hits.style(5) < 0.67
    edge = torch.minimum(torch.minimum(hits.u, 1 - hits.u) * 2.5, torch.minimum(hits.v, 1 - hits.v))
    border = torch.maximum(_line(edge, 0.0, 0.07), _line(from_eye, 1.0, 0.22) * holed)
    weave = 1 + 0.12 * (hits.grain(hits.u * 60, hits.v * 24) - 0.5)
    cloth = _shade(hits.choose(CLOTH_COLORS, 4), (0.55 + 0.55 * hits.light) * weave)
    trim = _shade(hits.choose(CLOTH_COLORS, 6) * 0.5 + 0.4, 0.6 + 0.5 * hits.light)
    cord = hits.part == CORD
    color = torch.lerp(cloth, trim, (border * ~cord)[:, None])
    return color, torch.where(holed & (from_eye < 1) & ~cord, 0.0, 1.0)


def hand(hits: Hits) -> Paint:
    """The skin of the face, lined at the joints, with nails."""
    finger, along = hits.part == FINGER, hits.v
    # Rounded sides are darker, so that the fingers can be told apart.
    brightness = 0.45 + 0.4 * hits.light + 0.35 * hits.facing.clamp_min(0)
    joints = _line(along, 0.42, 0.02) + _line(along, 0.46, 0.015) + _line(along, 0.66, 0.018)
    knuckles = _line(along, 0.03, 0.04) * 0.4
    brightness = brightness - 0.14 * (joints + knuckles) * finger
    bones = torch.cos(hits.point.new_tensor(31.4) * (hits.u - 0.25)) * _line(along, 0.2, 0.15)
    brightness = brightness + 0.05 * bones * (hits.part == BACK) + 0.05 * (hits.grain(hits.u * 50, along * 90) - 0.5)
    tone = torch.tensor([1.02, 0.96, 0.93], device=hits.u.device) * (0.9 + 0.25 * hits.styles[:, 4:5])
    skin = _shade((hits.skin * tone)[hits.image], brightness)
    # u is 0 on a tube's right side and 1/4 on its front.
    nail = finger & (torch.hypot((hits.u - 0.25) / 0.13, (along - 0.83) / 0.09) < 1)
    pale = _shade(torch.lerp(skin, torch.ones_like(skin), 0.35), 0.95 + 0.1 * hits.light)
    return torch.where(nail[:, None], pale, skin), torch.ones_like(along)


def hair_fringe(hits: Hits) -> Paint:
    """Straight strands, each of its own length."""
    across = hits.u * 70 + 3 * (hits.style(5) - 0.5) * hits.v * 4
    strands = _strands(hits, across, hits.v * 2.5)
    ends = hits.grain(across * 0.45, torch.full_like(across, 7.0))
    left = (1 - 0.28 * ends - hits.v) * 14 + strands
    return _hair(hits, strands), left.clamp(0, 1)


PAINTS: Mapping[str, Callable[[Hits], Paint]] = {
    "glasses": glasses,
    "sunglasses": sunglasses,
    "surgical_mask": surgical_mask,
    "beard": beard,
    "moustache": moustache,
    "eye_mask": eye_mask,
    "hand": hand,
    "hair_fringe": hair_fringe,
}
