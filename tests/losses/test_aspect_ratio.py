"""Aspect ratios against ellipses whose axes are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.aspect_ratio import aspect_ratio_loss, aspect_ratios
from renderers.landmarks68 import MIRROR


def face(right: float, left: float, mouth: float) -> Tensor:
    """(1, 68, 2): eyes and mouth are hexagons and an octagon in circles, squeezed to heights over widths."""
    points = torch.zeros(1, 68, 2)
    for first, count, ratio in ((36, 6, right), (42, 6, left), (60, 8, mouth)):
        angle = math.pi - 2 * math.pi * torch.arange(count) / count
        points[0, first : first + count] = torch.stack([angle.cos(), ratio * angle.sin()], dim=-1)
    return points


def test_heights_over_widths_of_squeezed_polygons() -> None:
    found = aspect_ratios(face(0.3, 0.1, 0.5))[0]
    eye, mouth = math.sin(math.pi / 3), (1 + 2 * math.sin(math.pi / 4)) / 3
    torch.testing.assert_close(found, torch.tensor([0.3 * eye, 0.1 * eye, 0.5 * mouth]))


def test_the_ratios_ignore_a_similarity_and_a_mirror_swaps_the_eyes() -> None:
    points = face(0.3, 0.1, 0.5)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    torch.testing.assert_close(aspect_ratios(3 * points @ turn + 5), aspect_ratios(points))
    mirrored = (points * torch.tensor([-1.0, 1.0]))[:, MIRROR]
    torch.testing.assert_close(aspect_ratios(mirrored)[:, [1, 0, 2]], aspect_ratios(points))


def test_shut_eyes_have_a_gradient_and_no_width_is_no_error() -> None:
    shut = face(1e-3, 1e-3, 1e-3).requires_grad_()
    aspect_ratio_loss(shut, face(0.3, 0.3, 0.3)).sum().backward()
    gradient = shut.grad
    assert gradient is not None and gradient[0, [37, 43, 62]].abs().sum(dim=-1).min() > 0.01
    assert torch.isfinite(aspect_ratios(torch.zeros(1, 68, 3))).all()
