"""The render loss against a per-pixel loop, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from losses.photometric import render_loss, saturate_skin


def test_equals_the_papers_sum_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    rendered, image = torch.rand(2, 2, 3, 5, 4, generator=generator, dtype=torch.float64)
    skin = torch.rand(2, 1, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 4, generator=generator) > 0.4
    loss = render_loss(rendered, image, mask, skin)
    for b in range(2):
        total, count = 0.0, 0
        for i in range(5):
            for j in range(4):
                if mask[b, 0, i, j]:
                    difference = [float(image[b, c, i, j] - rendered[b, c, i, j]) for c in range(3)]
                    total += float(skin[b, 0, i, j]) * math.hypot(*difference)
                    count += 1
        assert loss[b].item() == pytest.approx(total / count, abs=1e-12)


def test_pixels_outside_the_face_do_not_matter_and_skinless_ones_still_count() -> None:
    image = torch.zeros(1, 3, 2, 2)
    rendered = torch.ones(1, 3, 2, 2)
    mask = torch.tensor([[[[True, True], [False, False]]]])
    skin = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    assert render_loss(rendered, image, mask, skin).item() == pytest.approx(math.sqrt(3) / 2)
    image[..., 1, :] = 7.0
    assert render_loss(rendered, image, mask, skin).item() == pytest.approx(math.sqrt(3) / 2)


def test_equal_pictures_have_no_loss_and_a_zero_gradient() -> None:
    image = torch.rand(1, 3, 4, 4)
    rendered = image.clone().requires_grad_()
    loss = render_loss(rendered, image, torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.ones(1, 1, 4, 4))
    loss.sum().backward()
    assert loss.item() == 0
    assert rendered.grad is not None
    assert torch.equal(rendered.grad, torch.zeros_like(image))


def test_a_face_outside_the_image_gives_zero_beside_one_inside() -> None:
    rendered = torch.rand(2, 3, 4, 4, requires_grad=True)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[1] = True
    loss = render_loss(rendered, torch.rand(2, 3, 4, 4), mask, torch.ones(2, 1, 4, 4))
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[1] > 0
    assert rendered.grad is not None
    assert rendered.grad.isfinite().all()
    assert rendered.grad[0].abs().max() == 0


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(1)
    rendered, image = torch.rand(2, 2, 3, 3, 3, generator=generator, dtype=torch.float64)
    skin = torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 3, 3, generator=generator) > 0.3
    assert torch.autograd.gradcheck(
        lambda r, i: render_loss(r, i, mask, skin), (rendered.requires_grad_(), image.requires_grad_())
    )


def test_sure_skin_counts_fully() -> None:
    skin = torch.tensor([0.0, 0.2, 0.5, 0.500001, 0.8, 1.0])
    assert torch.equal(saturate_skin(skin), torch.tensor([0.0, 0.2, 0.5, 1.0, 1.0, 1.0]))
