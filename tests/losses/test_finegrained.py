"""The fine-grained paper's terms: closed forms, loops, invariances, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.finegrained import (
    LEAST_LIGHT,
    detailed_albedo_loss,
    normal_change,
    skin_photometric_loss,
    squared_identity_loss,
    total_variation,
    unlit,
    unsaturated,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_photometric_is_equation_7() -> None:
    drawn, image = numbers(2, 3, 5, 4), 0.9 * numbers(2, 3, 5, 4, seed=1)
    skin, mask = numbers(2, 1, 5, 4, seed=2), numbers(2, 1, 5, 4, seed=3) > 0.4
    loss = skin_photometric_loss(drawn, image, mask, skin)
    for index in range(2):
        total = weight = 0.0
        for i, j in np.ndindex(5, 4):
            if mask[index, 0, i, j]:
                v = float(skin[index, 0, i, j])
                total += float(np.linalg.norm(v * (image[index, :, i, j] - drawn[index, :, i, j])))
                weight += v
        assert float(loss[index]) == pytest.approx(total / weight)


def test_photometric_without_skin_is_zero_and_has_no_nan() -> None:
    drawn, image = numbers(1, 3, 4, 4).requires_grad_(), numbers(1, 3, 4, 4, seed=1)
    nothing = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    loss = skin_photometric_loss(drawn, image, nothing > 0, nothing)
    loss.sum().backward()
    assert loss.item() == 0 and drawn.grad is not None and torch.equal(drawn.grad, torch.zeros_like(drawn))
    same = image.clone().requires_grad_()
    skin_photometric_loss(same, image, nothing == 0, nothing + 1).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()


def test_white_is_no_error_of_what_is_drawn_brighter() -> None:
    image = torch.tensor([1.0, 1.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    everywhere = torch.ones(1, 1, 2, 2)
    bright = torch.tensor([1.7, 1.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert skin_photometric_loss(bright, image, everywhere > 0, everywhere).item() == 0
    dark = bright - torch.tensor([0.9, 0.0, 0.0]).view(1, 3, 1, 1)
    assert skin_photometric_loss(dark, image, everywhere > 0, everywhere).item() == pytest.approx(0.2)
    assert not unsaturated(image).any() and unsaturated(0.9 * image).all()


def test_identity_is_equation_9() -> None:
    a, b = (torch.nn.functional.normalize(numbers(4, 8, seed=seed) - 0.5, dim=-1) for seed in (0, 1))
    torch.testing.assert_close(squared_identity_loss(a, b), 2 - 2 * (a * b).sum(dim=-1))
    assert torch.equal(squared_identity_loss(a, a), torch.zeros(4, dtype=torch.float64))


def test_unlit_undoes_shading_down_to_the_least_light() -> None:
    albedo = numbers(1, 3, 4, 4)
    light = 0.2 + numbers(1, 3, 4, 4, seed=1)
    torch.testing.assert_close(unlit(albedo * light, light), albedo)
    dark = torch.zeros_like(light)
    torch.testing.assert_close(unlit(albedo, dark), albedo / LEAST_LIGHT)


def test_albedo_is_equation_12() -> None:
    """A loop over texels: its own target where it is seen, the flipped one where not, by their visibilities."""
    albedo, target, flipped = (numbers(2, 3, 3, 4, seed=seed) for seed in range(3))
    visibility, mirrored = (numbers(2, 1, 3, 4, seed=seed) for seed in (3, 4))
    loss = detailed_albedo_loss(albedo, target, visibility, flipped, mirrored)
    for index in range(2):
        total = weight = 0.0
        for i, j in np.ndindex(3, 4):
            v, m = float(visibility[index, 0, i, j]), float(mirrored[index, 0, i, j])
            here = albedo[index, :, i, j]
            own = float((here - target[index, :, i, j]).abs().mean())
            instead = float((here - flipped[index, :, i, j]).abs().mean())
            total += v * own + (1 - v) * m * instead
            weight += v + (1 - v) * m
        assert float(loss[index]) == pytest.approx(total / weight)


def test_albedo_of_an_unseen_face_is_zero() -> None:
    albedo = numbers(1, 3, 4, 4).requires_grad_()
    nothing = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    loss = detailed_albedo_loss(albedo, numbers(1, 3, 4, 4), nothing, numbers(1, 3, 4, 4), nothing)
    loss.sum().backward()
    assert loss.item() == 0 and albedo.grad is not None and torch.equal(albedo.grad, torch.zeros_like(albedo))


def test_normal_change_of_a_turned_normal() -> None:
    angle = 0.3
    flat = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    turned = torch.tensor([np.sin(angle), 0.0, np.cos(angle)], dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    half = torch.tensor([[True, False], [True, False]]).view(1, 1, 2, 2)
    everywhere = torch.ones_like(half)
    chord = 2 * np.sin(angle / 2)
    assert float(normal_change(turned, flat, everywhere)) == pytest.approx(chord, rel=1e-5)
    mixed = torch.where(half, turned, flat)
    assert float(normal_change(mixed, flat, everywhere)) == pytest.approx(chord / 2, rel=1e-5)
    assert float(normal_change(mixed, flat, half)) == pytest.approx(chord, rel=1e-5)


@pytest.mark.parametrize("size", [32, 64])
def test_total_variation_of_a_ramp_holds_for_every_size(size: int) -> None:
    """d = 0.3 u + 0.1 v along the sides of the square."""
    along = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    ramp = (0.3 * along + 0.1 * along[:, None]).view(1, 1, size, size)
    mask = torch.ones(1, 1, size, size, dtype=torch.bool)
    assert float(total_variation(ramp, mask)) == pytest.approx(0.4)
    assert float(total_variation(ramp + 1, mask)) == pytest.approx(0.4)


def test_total_variation_does_not_reach_across_the_border() -> None:
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 2:6, 2:6] = True
    plateau = (0.5 * mask).double().requires_grad_()
    variation = total_variation(plateau, mask)
    variation.sum().backward()
    assert variation.item() == 0 and plateau.grad is not None and torch.equal(plateau.grad, torch.zeros_like(plateau))


def test_gradients() -> None:
    albedo, target, flipped = (numbers(1, 3, 3, 3, seed=seed).requires_grad_() for seed in range(3))
    visibility, mirrored = (numbers(1, 1, 3, 3, seed=seed) for seed in (3, 4))
    assert torch.autograd.gradcheck(
        lambda a, t, f: detailed_albedo_loss(a, t, visibility, f, mirrored), (albedo, target, flipped)
    )
    assert torch.autograd.gradcheck(
        lambda a, b: skin_photometric_loss(a, b, mirrored > 0.2, visibility), (albedo, target)
    )
    assert torch.autograd.gradcheck(lambda a, b: normal_change(a, b, visibility), (albedo, target))
    displacement = numbers(2, 1, 4, 4).requires_grad_()
    mask = numbers(1, 1, 4, 4, seed=7) > 0.2
    assert torch.autograd.gradcheck(lambda d: total_variation(d, mask), displacement)
