"""The render loss against a per-pixel loop, and its behaviour at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from losses.photometric import color_distance, guided_render_loss, render_loss, saturate_skin
from renderers.raster import rasterize
from renderers.raster.fragments import Fragments
from renderers.raster.interpolation import interpolate


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


SQUARE = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
SKIN, PAINT = torch.tensor([0.7, 0.5, 0.55]), torch.tensor([0.8, 0.6, 0.5])


def drawn_square(moved: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, mask and surface points of a square of one colour; `moved` is (x, y, scale) in units of the image."""
    place = size * (0.5 + 0.25 * moved[2] * SQUARE + moved[:2])
    vertices = torch.cat([place, torch.full((4, 1), 2.0)], dim=1)[None]
    seen = rasterize(vertices, FACES, (size, size))
    fixed = Fragments(seen.pix_to_face, seen.barycentric.detach(), seen.depth.detach())
    image = interpolate(seen, FACES, PAINT.expand(1, 4, 3))
    return image, seen.mask[:, None], interpolate(fixed, FACES, vertices[..., :2])


def guided(moved: torch.Tensor, size: int) -> torch.Tensor:
    _, region, _ = drawn_square(torch.tensor([0.0, 0.0, 1.0]), size)
    return guided_render_loss(*drawn_square(moved, size), SKIN.view(1, 3, 1, 1).expand(1, 3, size, size), region)


@pytest.mark.parametrize("moved", [(0.08, 0.0, 1.0), (0.05, -0.06, 1.24), (-0.03, 0.04, 0.7)])
def test_the_outline_moves_as_the_areas_of_two_squares_do(moved: tuple[float, float, float]) -> None:
    """Closed form: paint on skin, bare skin and paint on black, each times its area; and its derivative."""
    on_skin, bare, on_black = (float(v.norm()) for v in (PAINT - SKIN, SKIN, PAINT))

    def by_areas(x: torch.Tensor) -> torch.Tensor:
        half = 0.25 * x[2]
        overlap = torch.stack(
            [
                torch.minimum(x[k] + half, torch.tensor(0.25)) - torch.maximum(x[k] - half, torch.tensor(-0.25))
                for k in (0, 1)
            ]
        ).prod()
        return (on_skin * overlap + bare * (0.25 - overlap) + on_black * (4 * half**2 - overlap)) / 0.25

    x = torch.tensor(moved, requires_grad=True)
    loss = guided(x, 400)
    expected = by_areas(x)
    assert loss.item() == pytest.approx(expected.item(), rel=0.03)
    ours, theirs = (torch.autograd.grad(value.sum(), x)[0] for value in (loss, expected))
    assert torch.allclose(ours, theirs, atol=0.03 * float(theirs.abs().max()))


def test_a_guided_face_finds_back_and_does_not_shrink() -> None:
    """Gradient steps from a smaller square off its place: the plain render loss would leave it there."""
    x = torch.tensor([0.06, -0.05, 0.8], requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        guided(x, 48).sum().backward()
        optimizer.step()
    assert x.detach().tolist() == pytest.approx([0.0, 0.0, 1.0], abs=0.05)  # one of 24 pixels


def test_equal_faces_have_no_guided_loss_whatever_stands_around_them() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.manual_seed(0))
    drawn, mask, points = drawn_square(torch.tensor([0.0, 0.0, 1.0]), 32)
    assert guided_render_loss(drawn, mask, points, torch.where(mask, drawn, image), mask) == 0
    assert guided_render_loss(drawn, mask, points, image, torch.zeros_like(mask)).isfinite()


def test_color_distance_equals_the_norm_and_keeps_nan() -> None:
    one, other = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(color_distance(one, other)[:, 0], torch.linalg.vector_norm(one - other, dim=1))
    one[0, 1, 2, 3] = torch.nan
    assert color_distance(one, other).isnan().nonzero().tolist() == [[0, 0, 2, 3]]
