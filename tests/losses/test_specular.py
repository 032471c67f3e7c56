"""The specular paper's terms against loops, closed forms and gradcheck."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from losses.landmark import mouth_and_brow_weights
from losses.specular import specular_landmark_loss, specular_photometric_loss, uniform_loss


def pictures(seed: int = 0, batch: int = 3, size: int = 6) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def rand(channels: int) -> Tensor:
        return torch.rand(batch, channels, size, size, generator=g, dtype=torch.float64)

    return {
        "diffuse": rand(3),
        "both": rand(3),
        "image": rand(3),
        "mask": rand(1) > 0.3,
        "face": rand(1) > 0.3,
        "skin_probability": rand(1),
    }


def test_photometric_loss_equals_loops_over_pixels() -> None:
    named = pictures()
    loss = specular_photometric_loss(**named, eta=0.4)
    for b in range(3):
        first = weight = second = area = 0.0
        for i, j in np.ndindex(6, 6):
            if not (named["mask"][b, 0, i, j] and named["face"][b, 0, i, j]):
                continue
            image, diffuse, both = (named[k][b, :, i, j].tolist() for k in ("image", "diffuse", "both"))
            p = float(named["skin_probability"][b, 0, i, j])
            c = 1.0 if p > 0.5 else p
            first += c * math.dist(image, diffuse)
            second += math.dist(image, both)
            weight, area = weight + c, area + 1
        assert float(loss[b]) == pytest.approx(first / weight + 0.4 * second / area)


def test_only_the_overlap_of_both_faces_counts() -> None:
    named = pictures()
    expected = specular_photometric_loss(**named, eta=1.0)
    overlap = named["mask"] & named["face"]
    swapped = named | {"mask": torch.ones_like(overlap), "face": overlap.double()}
    torch.testing.assert_close(specular_photometric_loss(**swapped, eta=1.0), expected)
    outside = torch.where(overlap, named["image"], 5.0)
    torch.testing.assert_close(specular_photometric_loss(**named | {"image": outside}, eta=1.0), expected)


def test_without_pixels_or_skin_a_term_is_0_with_a_gradient_of_0() -> None:
    named = pictures()
    named["mask"][0] = False
    named["skin_probability"][1] = 0
    diffuse = named["diffuse"].requires_grad_()
    loss = specular_photometric_loss(**named, eta=0.0)
    loss.sum().backward()
    assert loss[0] == 0 and loss[1] == 0 and loss[2] > 0
    assert diffuse.grad is not None and diffuse.grad.isfinite().all() and diffuse.grad[:2].abs().max() == 0
    assert specular_photometric_loss(**named, eta=1.0)[1] > 0


def test_an_unlikely_highlight_is_left_to_the_specular_render() -> None:
    named = pictures(batch=1)
    named |= {"mask": torch.ones(1, 1, 6, 6), "face": torch.ones(1, 1, 6, 6)}
    highlight = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    highlight[..., 2:4, 2:4] = True
    named["skin_probability"] = (~highlight).double()
    diffuse, both = named["diffuse"].requires_grad_(), named["both"].requires_grad_()
    specular_photometric_loss(**named, eta=1.0).sum().backward()
    assert diffuse.grad is not None and both.grad is not None
    inside = highlight.expand(-1, 3, -1, -1)
    assert not diffuse.grad[inside].any() and diffuse.grad[~inside].all() and both.grad.all()


def test_photometric_gradcheck() -> None:
    named = pictures(batch=2, size=3)
    inputs = [named.pop(name).requires_grad_() for name in ("diffuse", "both")]
    assert torch.autograd.gradcheck(lambda d, b: specular_photometric_loss(d, b, **named, eta=0.7), inputs)


@pytest.mark.parametrize("size", [64, 224])
def test_landmark_loss_is_the_weighted_mean_distance(size: int) -> None:
    target = torch.rand(2, 68, 2, dtype=torch.float64) * size
    predicted = target.clone()
    predicted[0, 20] += torch.tensor([3.0, 4.0]) * size / 224  # a brow
    predicted[1, [0, 48]] -= torch.tensor([3.0, -4.0]) * size / 224  # the jaw, the outer mouth
    loss = specular_landmark_loss(predicted, target, mouth_and_brow_weights(), size)
    assert loss.tolist() == pytest.approx([20 * 5 / 68, 21 * 5 / 68])


def test_landmark_gradient_is_0_where_points_agree_and_right_elsewhere() -> None:
    target = torch.rand(1, 68, 2, dtype=torch.float64)
    same = target.clone().requires_grad_()
    specular_landmark_loss(same, target, mouth_and_brow_weights(), 224).sum().backward()
    assert same.grad is not None and same.grad.abs().max() == 0
    away = (target + 1).requires_grad_()
    weights = mouth_and_brow_weights().double()
    assert torch.autograd.gradcheck(lambda p: specular_landmark_loss(p, target, weights, 64), (away,))


def test_uniform_loss_is_the_sum_of_two_variances() -> None:
    g = torch.Generator().manual_seed(0)
    colors, light = torch.rand(2, 40, 3, generator=g), torch.randn(2, 27, generator=g)
    expected = [
        np.var(c.numpy(), axis=0).mean() + 3 * np.var(s.view(3, 9).numpy(), axis=0).sum()
        for c, s in zip(colors, light, strict=True)
    ]
    assert uniform_loss(colors, light).tolist() == pytest.approx(expected, rel=1e-5)


def test_one_colour_under_white_light_is_uniform() -> None:
    colors = torch.tensor([0.7, 0.5, 0.4]).expand(1, 50, 3)
    light = torch.randn(1, 1, 9).expand(1, 3, 9).reshape(1, 27)
    assert float(uniform_loss(colors, light)) == pytest.approx(0, abs=1e-10)
    assert float(uniform_loss(colors, light + torch.eye(27)[4])) == pytest.approx(2 / 3)


def test_uniform_gradcheck() -> None:
    colors = torch.rand(2, 7, 3, dtype=torch.float64, requires_grad=True)
    light = torch.randn(2, 27, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(uniform_loss, (colors, light))
