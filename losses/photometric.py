"""Photometric terms: the rendered face against the photograph."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from renderers.kernels.on_gpu import on_gpu

SURE_SKIN = 0.5  # skin probability above which MGCNet's release counts a pixel fully


def saturate_skin(skin: Tensor) -> Tensor:
    """Raise skin weights above 0.5 to 1, as MGCNet's release does; lower ones stay. `render_loss` does not do this.

    Args:
        skin: any shape, in [0, 1].

    >>> saturate_skin(torch.tensor([0.25, 0.5, 0.75])).tolist()
    [0.25, 0.5, 1.0]
    """
    return torch.where(skin > SURE_SKIN, torch.ones_like(skin), skin)


@on_gpu("losses.kernels")
def color_distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distance over RGB at every pixel: two images (B, 3, H, W) -> (B, 1, H, W).

    The gradient is 0 where the two agree. NaN stays NaN.
    """
    # torch.linalg.vector_norm along any dimension but the last is forty times slower on a CPU.
    squared = (one - other).square().sum(dim=1, keepdim=True)
    return torch.where(squared == 0, 0.0, squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt())


def render_loss(rendered: Tensor, image: Tensor, mask: Tensor, skin: Tensor) -> Tensor:
    """L_render = 1/M sum_i w_skin^i ||I^i - I_re^i|| (MGCNet, section 3.3).

    The norm is Euclidean over RGB, its gradient 0 where the two pixels agree. M counts all pixels of the projected
    face, skin or not; an image without any gives 0.

    Args:
        rendered: (B, 3, H, W) rendered face, in [0, 1] before clamping.
        image: (B, 3, H, W) photograph, in [0, 1].
        mask: (B, 1, H, W) the projected face, bool or 0/1.
        skin: (B, 1, H, W) skin weights in [0, 1].

    Returns:
        (B,) in [0, sqrt(3)] for colours in [0, 1].
    """
    weights = (mask.to(image.dtype) * skin).flatten(1)
    distance = color_distance(image, rendered).flatten(1)
    return (weights * distance).sum(dim=1) / mask.flatten(1).sum(dim=1).clamp_min(1)


def guided_render_loss(rendered: Tensor, mask: Tensor, surface_points: Tensor, image: Tensor, region: Tensor) -> Tensor:
    """L_O and L_N: the rendered face against the guiding one, ||I_O' - I_G||, ||I_N' - I_G|| (ROGUE, (10) and (11)).

    Both faces stand on black, and every pixel of either face counts. A loss over the rendered face's pixels alone would
    shrink the face, because no landmark term acts on it. Rasterization gives no gradient at the outline, so this
    function adds it, as the boundary term of Reynolds' transport theorem: (loss just inside - loss just outside) x
    speed at which the surface crosses the side between the two pixels.

    Args:
        rendered: (B, 3, H, W) rendered face, in [0, 1] before clamping.
        mask: (B, 1, H, W) bool, where it is.
        surface_points: (B, 2, H, W) pixels, see `Rendering.surface_points`.
        image: (B, 3, H, W) clean photograph, in [0, 1].
        region: (B, 1, H, W) bool, where the guiding face is.

    Returns:
        (B,) mean over the guiding face's pixels.
    """
    face, guiding = torch.where(mask, rendered, 0.0), torch.where(region, image, 0.0)
    moves = surface_points - surface_points.detach()
    at_outline = (outline_gain(face, guiding, mask) * moves).flatten(1).sum(dim=1)
    total = color_distance(face, guiding).flatten(1).sum(dim=1) + at_outline
    return total / region.flatten(1).sum(dim=1).clamp_min(1)


@on_gpu("losses.kernels")
@torch.no_grad()
def outline_gain(rendered: Tensor, guiding: Tensor, mask: Tensor) -> Tensor:
    """How `guided_render_loss` changes if the rendered face grows by a pixel to the right or down; without gradient.

    Args:
        rendered: (B, 3, H, W) the rendered face on black.
        guiding: (B, 3, H, W) the guiding one.
        mask: (B, 1, H, W) bool, where the rendered one is.

    Returns:
        (B, 2, H, W) along x and along y; 0 away from the rendered face's outline.
    """
    bare, covered = color_distance(guiding, torch.zeros_like(guiding)), color_distance(rendered, guiding)
    gain = rendered.new_zeros(len(rendered), 2, *rendered.shape[2:])
    for axis, along in ((0, -1), (1, -2)):
        size = mask.shape[along] - 1
        for first, second, outward in ((0, 1, 1.0), (1, 0, -1.0)):
            inner, outer = (partial(torch.narrow, dim=along, start=start, length=size) for start in (first, second))
            crossing = inner(mask) & ~outer(mask)
            beyond = color_distance(inner(rendered), outer(guiding))
            step = outward / 2 * (inner(covered) + beyond - inner(bare) - outer(bare))
            inner(gain[:, axis : axis + 1]).add_(torch.where(crossing, step, 0.0))
    return gain
