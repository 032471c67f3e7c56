"""The inner mouth's area against areas by other means, and where its gradient leads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.draw import polygon2mask
from torch import Tensor

from losses import inner_mouth
from losses.inner_mouth import inner_mouth_loss

CENTRE = (113.0, 161.0)


def face(opening: float, width: float = 42.0, centre: tuple[float, float] = CENTRE, size: int = 224) -> Tensor:
    """(1, 68, 2) landmarks whose inner mouth is an ellipse `opening` pixels high, in the iBUG order."""
    angles = torch.linspace(math.pi, 3 * math.pi, 9, dtype=torch.float64)[:-1]
    mouth = torch.stack([width / 2 * angles.cos(), opening / 2 * angles.sin()], dim=-1)
    points = torch.full((1, 68, 2), 50.0, dtype=torch.float64)
    points[:, 60:68] = mouth + torch.tensor(centre, dtype=torch.float64)
    return points * (size / 224)


def counted_area(points: Tensor, fine: int = 16) -> float:
    """Of the inner mouth in a 224 px image, by counting samples."""
    corners = (points[0, 60:68].flip(-1).numpy() - np.array([120, 80])) * fine - 0.5
    return polygon2mask((80 * fine, 64 * fine), corners).sum() / fine**2


def test_an_open_mouth_against_a_closed_one_is_its_area() -> None:
    for opening in (4.0, 12.0, 30.0):
        loss = inner_mouth_loss(face(opening), face(0), 224)
        assert float(loss) == pytest.approx(counted_area(face(opening)), rel=0.02)
        torch.testing.assert_close(inner_mouth_loss(face(0), face(opening), 224), loss)


def test_nested_mouths_differ_by_the_difference_of_their_areas() -> None:
    loss = inner_mouth_loss(face(8), face(20), 224)
    assert float(loss) == pytest.approx(counted_area(face(20)) - counted_area(face(8)), rel=0.02)


def test_the_same_mouth_costs_nothing_and_the_more_it_differs_the_more_it_costs() -> None:
    assert float(inner_mouth_loss(face(10), face(10), 224)) == 0
    openings = torch.arange(0.0, 41.0, 2).tolist()
    losses = [float(inner_mouth_loss(face(opening), face(10), 224)) for opening in openings]
    closing, widening = losses[:6], losses[5:]
    assert closing == sorted(closing, reverse=True) and widening == sorted(widening)
    assert len(set(losses)) > len(losses) / 2


def test_areas_that_are_equal_beside_each_other_do_not_agree() -> None:
    apart = inner_mouth_loss(face(20, centre=(113, 131)), face(20), 224)
    assert float(apart) == pytest.approx(2 * counted_area(face(20)), rel=0.02)


@pytest.mark.parametrize("size", [64, 112, 448])
def test_the_same_face_in_another_size_has_the_same_loss(size: int) -> None:
    expected = inner_mouth_loss(face(7), face(20, width=36), 224)
    torch.testing.assert_close(inner_mouth_loss(face(7, size=size), face(20, width=36, size=size), size), expected)


def test_each_face_is_compared_with_its_own_label() -> None:
    pairs = [(face(3), face(20)), (face(25, centre=(60, 40)), face(20, centre=(64, 40))), (face(0), face(0))]
    predicted, target = (torch.cat(side) for side in zip(*pairs, strict=True))
    together = inner_mouth_loss(predicted, target, 224)
    torch.testing.assert_close(together, torch.cat([inner_mouth_loss(*pair, 224) for pair in pairs]))


@pytest.mark.parametrize("way", [(4.0, 0.0), (-4.0, 0.0), (0.0, 4.0), (0.0, -4.0)])
def test_a_displaced_mouth_is_drawn_back(way: tuple[float, float]) -> None:
    displaced = face(16, centre=(CENTRE[0] + way[0], CENTRE[1] + way[1])).requires_grad_()
    (gradient,) = torch.autograd.grad(inner_mouth_loss(displaced, face(16), 224).sum(), displaced)
    pull = gradient[0, 60:68].sum(dim=0)
    assert float(pull @ torch.tensor(way, dtype=torch.float64)) > 0
    assert gradient[0, :60].abs().max() == 0


@pytest.mark.parametrize(("opening", "labelled"), [(0.0, 12.0), (-3.0, 0.0), (-3.0, 12.0), (2.0, 12.0)])
def test_a_mouth_that_is_shut_too_far_is_opened(opening: float, labelled: float) -> None:
    """At 0 the mouth has no area; below, the lips have passed through each other."""
    points = face(opening).requires_grad_()
    (gradient,) = torch.autograd.grad(inner_mouth_loss(points, face(labelled), 224).sum(), points)
    assert gradient.isfinite().all()
    upper, lower = gradient[0, 61:64, 1], gradient[0, 65:68, 1]
    assert (upper > 0).all() and (lower < 0).all()  # going down the gradient: up, and down


def test_crossed_labels_count_as_a_shut_mouth() -> None:
    torch.testing.assert_close(inner_mouth_loss(face(10), face(-6), 224), inner_mouth_loss(face(10), face(0), 224))


@pytest.mark.parametrize("centre", [CENTRE, (3.0, 161.0), (113.0, 222.0), (400.0, 161.0)])
def test_whole_image_says_what_the_window_says(centre: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU no window is cut out; a mouth at the edge of the image, and one outside, too."""
    answers = []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr(inner_mouth, "_window", lambda points, n: (points.new_zeros(len(points), 1, 2), (n, n)))
        drawn = face(20.0, centre=centre).requires_grad_()
        loss = inner_mouth_loss(drawn, face(9.0, centre=(centre[0] + 5, centre[1])), 224)
        answers.append((loss.detach(), *torch.autograd.grad(loss.sum(), drawn)))
    torch.testing.assert_close(*answers)


def test_gradcheck() -> None:
    points = torch.cat([face(9, width=33.3), face(21, width=44.4)]).requires_grad_()
    target = torch.cat([face(14.1), face(15.2)])
    assert torch.autograd.gradcheck(lambda p: inner_mouth_loss(p, target, 224), (points,))


def test_descending_opens_a_shut_mouth_to_its_label() -> None:
    points, target = face(0).requires_grad_(), face(20)
    before = float(inner_mouth_loss(face(0), target, 224))
    optimizer = torch.optim.Adam([points], lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        inner_mouth_loss(points, target, 224).sum().backward()
        optimizer.step()
    assert float(inner_mouth_loss(points.detach(), target, 224)) < 0.15 * before


def test_far_outside_the_image_nothing_breaks_and_a_nan_shows() -> None:
    for centre in ((-400.0, 100.0), (1e6, 1e6), (223.0, 1.0)):
        points = face(20, centre=centre).requires_grad_()
        loss = inner_mouth_loss(points, face(20), 224)
        loss.sum().backward()
        assert loss.isfinite().all() and points.grad is not None and points.grad.isfinite().all()
    assert inner_mouth_loss(face(math.nan), face(20), 224).isnan().all()
