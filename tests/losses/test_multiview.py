"""MGCNet's multi-view losses against exact poses, loops, and the cases in which nothing is left to compare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from datamodules.batch import MultiViewBatch
from losses.multiview import (
    MIN_BASELINE,
    depth_consistency_loss,
    epipolar_distance,
    epipolar_loss,
    essential_matrix,
    pixel_consistency_loss,
)
from renderers.camera import default_intrinsics, euler_to_rotation, project, rays, relative_pose, transform

Motion = tuple[Tensor, Tensor]


def exact_views(pairs: int = 20, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Motion]:
    """68 random points seen in two random poses: target and source pixels, intrinsics, relative pose."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.randn(pairs, 68, 3, generator=generator, dtype=torch.float64) * 0.7
    rotations = euler_to_rotation(torch.randn(2, pairs, 3, generator=generator, dtype=torch.float64) * 0.6)
    shifts = torch.randn(2, pairs, 3, generator=generator, dtype=torch.float64) * 0.3
    intrinsics = default_intrinsics(224).double().expand(pairs, 3, 3)
    target, source = (project(transform(model, rotations[v], shifts[v]), intrinsics)[..., :2] for v in range(2))
    return target, source, intrinsics, relative_pose(rotations[0], shifts[0], rotations[1], shifts[1])


def random_maps(seed: int = 0, channels: int = 1, pairs: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = 9 + torch.rand(2, pairs, channels, 4, 5, generator=generator, dtype=torch.float64)
    return first, second, torch.rand(pairs, 1, 4, 5, generator=generator) > 0.5


def test_pixel_loss_equals_a_loop() -> None:
    synthesized, target, covisible = random_maps(channels=3)
    loss = pixel_consistency_loss(synthesized, target, covisible)
    for p in range(3):
        errors = [
            abs(float(synthesized[p, c, i, j] - target[p, c, i, j]))
            for i in range(4) for j in range(5) if covisible[p, 0, i, j] for c in range(3)
        ]  # fmt: skip
        assert loss[p].item() == pytest.approx(sum(errors) / len(errors), abs=1e-12)


def test_euclidean_pixel_loss_equals_a_loop() -> None:
    """And outside the covisible pixels neither the value nor the gradient minds what is there."""
    synthesized, target, covisible = random_maps(channels=3)
    spoilt = torch.where(covisible, synthesized, torch.nan).requires_grad_()
    loss = pixel_consistency_loss(spoilt, target, covisible, euclidean=True)
    for p in range(3):
        errors = [
            math.dist(synthesized[p, :, i, j].tolist(), target[p, :, i, j].tolist())
            for i in range(4) for j in range(5) if covisible[p, 0, i, j]
        ]  # fmt: skip
        assert loss[p].item() == pytest.approx(sum(errors) / len(errors), abs=1e-12)
    loss.sum().backward()
    assert spoilt.grad is not None and spoilt.grad.isfinite().all()
    assert spoilt.grad[~covisible.expand_as(spoilt)].abs().max() == 0


def test_depth_loss_equals_a_loop_in_millimetres() -> None:
    synthesized, target, covisible = random_maps(seed=1)
    loss = depth_consistency_loss(synthesized, target, covisible)
    for p in range(3):
        places = [(i, j) for i in range(4) for j in range(5) if covisible[p, 0, i, j]]
        made = [100 * float(synthesized[p, 0, i, j]) for i, j in places]
        wanted = [100 * float(target[p, 0, i, j]) for i, j in places]
        scale = sum(wanted) / sum(made)
        expected = sum(abs(scale * m - w) for m, w in zip(made, wanted, strict=True)) / len(places)
        assert loss[p].item() == pytest.approx(expected, rel=1e-9)


def test_depth_loss_is_blind_to_scale_and_only_to_scale() -> None:
    synthesized, target, covisible = random_maps(seed=2)
    loss = depth_consistency_loss(synthesized, target, covisible)
    torch.testing.assert_close(depth_consistency_loss(synthesized * 3.7, target, covisible), loss)
    torch.testing.assert_close(
        depth_consistency_loss(0.2 * target, target, covisible), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0
    )
    assert (depth_consistency_loss(synthesized + 5, target, covisible) - loss).abs().min() > 1e-3


def test_what_is_not_covisible_does_not_matter_even_when_it_is_not_a_number() -> None:
    for channels, loss in ((3, pixel_consistency_loss), (1, depth_consistency_loss)):
        synthesized, target, covisible = random_maps(channels=channels)
        clean = loss(synthesized, target, covisible)
        spoilt = torch.where(covisible, synthesized, torch.nan)
        torch.testing.assert_close(loss(spoilt, target, covisible), clean)


@pytest.mark.parametrize(("channels", "loss"), [(3, pixel_consistency_loss), (1, depth_consistency_loss)])
def test_without_a_covisible_pixel_loss_and_gradient_are_zero(channels: int, loss: type) -> None:
    synthesized, target, covisible = random_maps(channels=channels)
    covisible[0] = False
    synthesized.requires_grad_()
    target.requires_grad_()
    values = loss(synthesized, target, covisible)
    values.sum().backward()
    assert values[0] == 0
    assert values[1:].min() > 0
    for tensor in (synthesized, target):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad[0].abs().max() == 0
        assert tensor.grad[1:].abs().max() > 0


def test_depths_that_sum_to_nothing_are_left_unscaled() -> None:
    target = torch.full((1, 1, 2, 2), 10.0)
    synthesized = torch.zeros(1, 1, 2, 2, requires_grad=True)
    loss = depth_consistency_loss(synthesized, target, torch.ones(1, 1, 2, 2, dtype=torch.bool))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1000.0)
    assert synthesized.grad is not None
    assert synthesized.grad.isfinite().all()


def test_consistency_gradcheck() -> None:
    for channels, loss in ((3, pixel_consistency_loss), (1, depth_consistency_loss)):
        synthesized, target, covisible = random_maps(seed=5, channels=channels)
        assert torch.autograd.gradcheck(
            lambda s, t, loss=loss, covisible=covisible: loss(s, t, covisible),
            (synthesized.requires_grad_(), target.requires_grad_()),
        )


def test_exact_poses_leave_no_epipolar_residual() -> None:
    target, source, intrinsics, (rotation, translation) = exact_views()
    distance = epipolar_distance(rays(target, intrinsics), rays(source, intrinsics), rotation, translation)
    assert distance.shape == (20, 68)
    assert distance.max() < 1e-6
    assert epipolar_loss(target, source, intrinsics, intrinsics, rotation, translation).max() < 1e-6


def test_the_releases_essential_matrix_and_the_printed_pose_do_leave_one() -> None:
    target, source, intrinsics, (rotation, translation) = exact_views()
    t, s = rays(target, intrinsics), rays(source, intrinsics)
    ours = essential_matrix(rotation, translation)
    cross = essential_matrix(torch.eye(3, dtype=torch.float64).expand(20, 3, 3), translation)  # [t]x alone
    residual = {
        name: torch.einsum("pni,pij,pnj->pn", s, matrix, t).abs().mean(dim=1) / translation.norm(dim=-1)
        for name, matrix in {"ours": ours, "release": rotation @ cross}.items()
    }
    assert residual["ours"].max() < 1e-12
    assert residual["release"].min() > 1e-3
    # [t]x R as the paper writes it, whichever way it is computed
    torch.testing.assert_close(ours, cross @ rotation)
    off = epipolar_distance(t, s, rotation.transpose(-1, -2), translation)
    assert off.mean(dim=1).min() > 1e-3


def test_cross_product_matrix() -> None:
    t = torch.tensor([[1.0, 2.0, 3.0]])
    expected = torch.tensor([[[0.0, -3.0, 2.0], [3.0, 0.0, -1.0], [-2.0, 1.0, 0.0]]])
    torch.testing.assert_close(essential_matrix(torch.eye(3)[None], t), expected)


def test_distance_is_the_papers_quotient_taken_both_ways() -> None:
    target, source, intrinsics, (rotation, translation) = exact_views(pairs=2)
    source = source + torch.randn(2, 68, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    t, s = rays(target, intrinsics), rays(source, intrinsics)
    essential = essential_matrix(rotation, translation)
    total = torch.zeros(2, dtype=torch.float64)
    for p in range(2):
        for i in range(68):
            there, back = essential[p] @ t[p, i], essential[p].T @ s[p, i]
            numerator = abs(float(s[p, i] @ there))
            lengths = [math.hypot(*line[:2].tolist(), MIN_BASELINE) for line in (there, back)]
            total[p] += (numerator / lengths[0] + numerator / lengths[1]) / 2
    ours = epipolar_loss(target, source, intrinsics, intrinsics, rotation, translation)
    torch.testing.assert_close(ours, 1015 * total)


def test_a_known_step_off_the_line_is_measured_in_pixels() -> None:
    """A camera that steps sideways has horizontal epipolar lines: two pixels down are a distance of two."""
    intrinsics = default_intrinsics(224).double()[None]
    target = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 224
    source = target + torch.tensor([30.0, 2.0])
    eye, step = torch.eye(3, dtype=torch.float64)[None], torch.tensor([[8.0, 0.0, 0.0]], dtype=torch.float64)
    loss = epipolar_loss(target, source, intrinsics, intrinsics, eye, step)
    assert loss.item() == pytest.approx(68 * 2, rel=5e-3)  # MIN_BASELINE takes 0.2 % of it
    # half below and half above do not cancel
    source[:, ::2, 1] -= 4
    assert epipolar_loss(target, source, intrinsics, intrinsics, eye, step).item() == pytest.approx(68 * 2, rel=5e-3)


@pytest.mark.parametrize("size", [64, 448])
def test_epipolar_loss_of_the_same_views_in_another_size_is_the_same(size: int) -> None:
    target, source, intrinsics, (rotation, translation) = exact_views(pairs=3)
    source = source + 2
    scale, other = size / 224, default_intrinsics(size).double().expand(3, 3, 3)
    torch.testing.assert_close(
        epipolar_loss(target * scale, source * scale, other, other, rotation, translation),
        epipolar_loss(target, source, intrinsics, intrinsics, rotation, translation),
        rtol=1e-6, atol=0,
    )  # fmt: skip


def test_swapping_the_views_changes_nothing() -> None:
    target, source, intrinsics, (rotation, translation) = exact_views(pairs=4)
    source = source + 3
    back = rotation.transpose(-1, -2)
    there = epipolar_loss(target, source, intrinsics, intrinsics, rotation, translation)
    again = epipolar_loss(source, target, intrinsics, intrinsics, back, -(back @ translation[..., None])[..., 0])
    torch.testing.assert_close(there, again)


def test_views_with_the_same_pose_have_no_loss_and_finite_gradients() -> None:
    """A network whose last layer starts at zero gives every view one pose: E is 0, or the noise of rounding."""
    angles = torch.full((2, 3), 0.3, requires_grad=True)
    shifts = torch.full((2, 3), 0.1, requires_grad=True)
    target, source = torch.rand(2, 1, 68, 2, generator=torch.Generator().manual_seed(0)) * 224
    intrinsics = default_intrinsics(224)[None]
    turns = euler_to_rotation(angles)
    motion = relative_pose(turns[:1], shifts[:1], turns[1:], shifts[1:])
    loss = epipolar_loss(target, source, intrinsics, intrinsics, *motion)
    loss.sum().backward()
    assert loss.item() < 1.0
    for parameter in (angles, shifts):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() < 1e5  # without MIN_BASELINE it is above 1e10
    still = torch.zeros(1, 3, requires_grad=True)
    exact = epipolar_loss(target, source, intrinsics, intrinsics, torch.eye(3)[None], still)
    exact.sum().backward()
    assert exact.item() == 0
    assert still.grad is not None
    assert still.grad.isfinite().all()


def test_epipolar_gradcheck() -> None:
    target, source, intrinsics, (rotation, translation) = exact_views(pairs=2)
    source = source + torch.linspace(1, 3, 68, dtype=torch.float64)[:, None]
    intrinsics = intrinsics[:2]
    assert torch.autograd.gradcheck(
        lambda t, s, r, x: epipolar_loss(t, s, intrinsics, intrinsics, r, x) / 1000,
        (target.requires_grad_(), source.requires_grad_(), rotation.requires_grad_(), translation.requires_grad_()),
    )


def test_no_pairs_give_empty_losses_with_gradients() -> None:
    maps = torch.zeros(0, 1, 4, 4, requires_grad=True)
    none = torch.zeros(0, 1, 4, 4, dtype=torch.bool)
    points = torch.zeros(0, 68, 2, requires_grad=True)
    matrices = torch.zeros(0, 3, 3)
    losses = [
        pixel_consistency_loss(maps, maps, none),
        depth_consistency_loss(maps, maps, none),
        epipolar_loss(points, points, matrices, matrices, matrices, torch.zeros(0, 3)),
    ]
    assert [tuple(loss.shape) for loss in losses] == [(0,)] * 3
    torch.cat(losses).sum().backward()
    assert maps.grad is not None
    assert points.grad is not None


def test_single_views_of_a_mixed_batch_get_no_multi_view_gradient() -> None:
    """Flags [0, 1, 1]: one single view beside two triples. Gating is by pairs, not by a mask that could broadcast."""
    batch = MultiViewBatch(
        image=torch.rand(7, 3, 8, 8),
        landmarks=torch.rand(7, 68, 2) * 224,
        skin=torch.ones(7, 1, 8, 8),
        intrinsics=default_intrinsics(224).expand(7, 3, 3),
        views=torch.tensor([[1, 2, 3], [4, 5, 6]]),
    )
    angles = (torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 0.4).requires_grad_()
    shifts = torch.zeros(7, 3, requires_grad=True)
    turns = euler_to_rotation(angles)
    t, s = batch.pairs()
    motion = relative_pose(turns[t], shifts[t], turns[s], shifts[s])
    loss = epipolar_loss(batch.landmarks[t], batch.landmarks[s], batch.intrinsics[t], batch.intrinsics[s], *motion)
    assert loss.shape == (4,)
    loss.sum().backward()
    for parameter in (angles, shifts):
        assert parameter.grad is not None
        reached = parameter.grad.abs().sum(dim=1) > 0
        assert reached.tolist() == [False] + [True] * 6
