"""View synthesis against closed-form pictures of a sphere, the covisible map against a loop, both on a drawn mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from losses.multiview import depth_consistency_loss, pixel_consistency_loss
from renderers.camera import (
    CAMERA_DISTANCE,
    default_intrinsics,
    euler_to_rotation,
    project,
    rays,
    relative_pose,
    to_camera_centred,
    transform,
)
from renderers.raster import rasterize
from renderers.raster.interpolation import interpolate, pixel_centres
from renderers.view_synthesis import SynthesizedView, covisible_map, synthesize_view

TARGET = ([0.1, 0.2, 0.05], [0.1, -0.05, 0.2])  # angles, translation
SOURCE = ([-0.1, -0.3, -0.1], [-0.1, 0.1, -0.3])
Pose = tuple[Tensor, Tensor]


def pose(angles: list[float], translation: list[float]) -> Pose:
    return (
        euler_to_rotation(torch.tensor([angles], dtype=torch.float64)),
        torch.tensor([translation], dtype=torch.float64),
    )


def paint(points: Tensor) -> Tensor:
    """A smooth colour in [0, 1] for (..., 3) points of the model: (..., 3)."""
    x, y, z = points.unbind(-1)
    return 0.5 + 0.4 * torch.stack([torch.sin(3 * x + y), torch.cos(2 * y - z), torch.sin(2 * z + 3 * x)], dim=-1)


@dataclass
class View:
    """One picture, in double precision: (1, 3, H, W), (1, 1, H, W), (1, H, W, 3) and so on."""

    image: Tensor
    depth: Tensor
    points: Tensor
    rotation: Tensor
    translation: Tensor
    intrinsics: Tensor


def sphere_view(rotation: Tensor, translation: Tensor, size: int) -> View:
    """A painted unit sphere by ray casting; nothing here is shared with the renderer but the camera's definition."""
    intrinsics = default_intrinsics(size).double()[None]
    focal, centre = 1015 * size / 224, size / 2
    steps = torch.arange(size, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid((steps - centre) / focal, (steps - centre) / focal, indexing="ij")
    directions = torch.stack([x, y, torch.ones_like(x)], dim=-1)[None]
    middle = to_camera_centred(translation)[:, None, None]
    a, b = directions.square().sum(-1), (directions * middle).sum(-1)
    under_root = b.square() - a * (middle.square().sum(-1) - 1)
    hit = under_root > 0
    depth = torch.where(hit, (b - under_root.clamp_min(0).sqrt()) / a, torch.zeros_like(b))
    posed = directions * depth[..., None] * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor([0.0, 0.0, CAMERA_DISTANCE])
    points = torch.einsum("bij,bhwi->bhwj", rotation, posed - translation[:, None, None])
    image = (paint(points) * hit[..., None]).permute(0, 3, 1, 2)
    return View(image, depth.unsqueeze(1), points, rotation, translation, intrinsics)


def synthesize(target: View, source: View, source_pose: Pose | None = None) -> SynthesizedView:
    rotation, translation = source_pose or (source.rotation, source.translation)
    relative = relative_pose(target.rotation, target.translation, rotation, translation)
    return synthesize_view(source.image, source.depth, target.depth, target.intrinsics, source.intrinsics, *relative)


def facing(view: View, points: Tensor) -> Tensor:
    """(1, 1, H, W) bool: points of the unit sphere that turn well towards the view's camera."""
    camera = torch.tensor([0.0, 0.0, CAMERA_DISTANCE], dtype=torch.float64) - view.translation
    in_model = torch.einsum("bij,bi->bj", view.rotation, camera)[:, None, None]
    return ((in_model - points) * points).sum(-1, keepdim=True).permute(0, 3, 1, 2) > 0.4 * (CAMERA_DISTANCE - 1)


def test_a_view_of_itself_is_itself() -> None:
    size = 12
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 4, size, size, generator=generator, dtype=torch.float64)
    depth = 9 + torch.rand(2, 1, size, size, generator=generator, dtype=torch.float64)
    intrinsics = default_intrinsics(size).double().expand(2, 3, 3)
    still = torch.eye(3, dtype=torch.float64).expand(2, 3, 3), torch.zeros(2, 3, dtype=torch.float64)
    view = synthesize_view(noise, depth, depth, intrinsics, intrinsics, *still)
    assert view.inside.all()
    torch.testing.assert_close(view.image, noise, atol=1e-12, rtol=0)
    torch.testing.assert_close(view.depth, depth, atol=1e-12, rtol=0)


def test_a_sideways_step_of_one_pixel_shifts_the_picture_by_one_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 5, 8, generator=generator, dtype=torch.float64)
    depth = torch.full((1, 1, 5, 8), 4.0, dtype=torch.float64)
    intrinsics = torch.tensor([[[16.0, 0, 4], [0, 32.0, 2.5], [0, 0, 1]]], dtype=torch.float64)
    # f / z = 4 pixels a decimetre across, 8 down.
    step = torch.tensor([[0.25, -0.125, 0.0]], dtype=torch.float64)
    view = synthesize_view(noise, depth, depth, intrinsics, intrinsics, torch.eye(3, dtype=torch.float64)[None], step)
    torch.testing.assert_close(view.image[..., 1:, :-1], noise[..., :-1, 1:], atol=1e-12, rtol=0)
    assert view.inside[..., 1:, :-1].all()
    assert not view.inside[..., 0, :].any()
    assert not view.inside[..., -1].any()


def test_exact_poses_of_a_sphere_leave_only_interpolation_error() -> None:
    worst: dict[str, list[float]] = {"image": [], "depth": []}
    for size in (48, 96, 192):
        target, source = (sphere_view(*pose(*where), size) for where in (TARGET, SOURCE))
        view = synthesize(target, source)
        seen = view.inside & facing(source, target.points) & facing(target, target.points)
        assert seen.float().mean() > 0.2
        worst["image"].append(((view.image - target.image).abs() * seen).max().item())
        worst["depth"].append(((view.depth - target.depth).abs() * seen).max().item())
    for errors in worst.values():  # bilinear interpolation: a quarter of the error for half the pixel
        assert errors[1] < errors[0] / 3
        assert errors[2] < errors[1] / 3
    assert worst["image"][2] < 2e-3
    assert worst["depth"][2] < 1e-3

    wrong = pose([-0.1, -0.2, -0.1], SOURCE[1])
    off = synthesize(target, source, wrong)
    seen = off.inside & facing(source, target.points) & facing(target, target.points)
    assert pixel_consistency_loss(off.image, target.image, seen) > 30 * pixel_consistency_loss(
        view.image, target.image, seen & view.inside
    )


def test_depth_is_carried_back_to_the_target_and_not_left_in_the_source() -> None:
    target, source = (sphere_view(*pose(*where), 96) for where in (TARGET, SOURCE))
    view = synthesize(target, source)
    seen = view.inside & facing(source, target.points) & facing(target, target.points)
    right = depth_consistency_loss(view.depth, target.depth, seen)
    left = depth_consistency_loss(synthesize_in_source_frame(target, source), target.depth, seen)
    assert right < 0.05  # millimetres
    assert left > 100 * right


def synthesize_in_source_frame(target: View, source: View) -> Tensor:
    """D_s(p_s) as it stands in the source's depth map."""
    relative = relative_pose(target.rotation, target.translation, source.rotation, source.translation)
    return synthesize_view(
        source.depth, source.depth, target.depth, target.intrinsics, source.intrinsics, *relative
    ).image


def test_inside_leaves_out_background_rim_and_what_is_behind() -> None:
    target, source = (sphere_view(*pose(*where), 64) for where in (TARGET, SOURCE))
    view = synthesize(target, source)
    assert not view.inside[target.depth == 0].any()
    # Inside, no sampled depth is diluted by the background's zeros: it stays on the sphere's near half.
    in_source = synthesize_in_source_frame(target, source)[view.inside]
    assert in_source.min() > source.depth[source.depth > 0].min() - 1e-9
    assert view.image.isfinite().all()
    assert view.depth.isfinite().all()
    behind = torch.tensor([[0.0, 0.0, -20.0]], dtype=torch.float64)
    still = torch.eye(3, dtype=torch.float64)[None]
    lost = synthesize_view(
        source.image, source.depth, target.depth, target.intrinsics, source.intrinsics, still, behind
    )
    assert not lost.inside.any()
    assert lost.image.isfinite().all()


def test_gradients_are_right_and_finite_beside_background() -> None:
    generator = torch.Generator().manual_seed(3)
    source = torch.rand(1, 2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    depth_source, depth_target = 9.5 + torch.rand(2, 1, 1, 5, 5, generator=generator, dtype=torch.float64)
    depth_target[..., 0, 0] = 0
    intrinsics = default_intrinsics(5).double()[None]
    shift = torch.tensor([[0.03, -0.02, 0.1]], dtype=torch.float64, requires_grad=True)
    angles = torch.tensor([[0.01, 0.004, 0.05]], dtype=torch.float64, requires_grad=True)

    def sampled(source: Tensor, near: Tensor, far: Tensor, angles: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        view = synthesize_view(source, near, far, intrinsics, intrinsics, euler_to_rotation(angles), shift)
        return view.image * view.inside, view.depth * view.inside

    inputs = (source, depth_source.requires_grad_(), depth_target.requires_grad_(), angles, shift)
    assert torch.autograd.gradcheck(sampled, inputs)


def test_no_pairs_give_empty_pictures() -> None:
    cameras = torch.zeros(0, 3, 3)
    depth = torch.zeros(0, 1, 6, 8)
    view = synthesize_view(torch.zeros(0, 3, 6, 8), depth, depth, cameras, cameras, cameras, torch.zeros(0, 3))
    assert view.image.shape == (0, 3, 6, 8)
    assert view.depth.shape == view.inside.shape == (0, 1, 6, 8)
    index = torch.zeros(0, 6, 8, dtype=torch.long)
    assert covisible_map(index, index, torch.zeros(4, 3, dtype=torch.long), 6).shape == (0, 1, 6, 8)


def test_rays_undo_projection() -> None:
    generator = torch.Generator().manual_seed(4)
    posed = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    intrinsics = torch.tensor([[900.0, 0, 100], [0, 1100, 130], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    image = project(posed, intrinsics)
    torch.testing.assert_close(rays(image[..., :2], intrinsics) * image[..., 2:], to_camera_centred(posed))
    assert rays(pixel_centres(4, 6, image).expand(2, 4, 6, 2), intrinsics).shape == (2, 4, 6, 3)


def brute_force_covisible(target: np.ndarray, source: np.ndarray, faces: np.ndarray) -> np.ndarray:
    shown = [{int(v) for f in view.flatten() if f >= 0 for v in faces[f]} for view in (target, source)]
    points = shown[0] & shown[1]
    covisible = {f for f in range(len(faces)) if any(int(v) in points for v in faces[f])}
    return np.vectorize(lambda f: f in covisible)(target)


@pytest.mark.parametrize("seed", range(10))
def test_covisible_map_equals_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    vertex_count, face_count = 30, 25
    faces = generator.integers(0, vertex_count, (face_count, 3))
    # Few faces a view, so that the two share some vertices and not all; face 0 is as good as any other.
    views = [generator.choice(np.append(generator.integers(0, face_count, 6), -1), (3, 7, 9)) for _ in range(2)]
    ours = covisible_map(torch.tensor(views[0]), torch.tensor(views[1]), torch.tensor(faces), vertex_count)
    assert ours.shape == (3, 1, 7, 9)
    loop = np.stack([brute_force_covisible(t, s, faces) for t, s in zip(*views, strict=True)])
    np.testing.assert_array_equal(ours[:, 0].numpy(), loop)
    assert 0 < loop.mean() < 1


def test_the_first_face_and_the_background_are_told_apart() -> None:
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    target = torch.tensor([[[-1, 0, 1]]])
    assert covisible_map(target, torch.tensor([[[1, 1]]]), faces, 6).flatten().tolist() == [False, False, True]
    assert covisible_map(target, torch.tensor([[[0, -1]]]), faces, 6).flatten().tolist() == [False, True, False]
    assert not covisible_map(target, torch.tensor([[[-1, -1]]]), faces, 6).any()


def mesh_view(points: Tensor, faces: Tensor, where: Pose, size: int) -> tuple[View, Tensor]:
    """A painted mesh through the project's own rasterizer, and the face that each pixel sees."""
    intrinsics = default_intrinsics(size).double()[None]
    vertices = project(transform(points, *where), intrinsics)
    fragments = rasterize(vertices, faces, (size, size))
    on_model = interpolate(fragments, faces, points).permute(0, 2, 3, 1)
    image = interpolate(fragments, faces, paint(points))
    return View(image, fragments.depth[:, None], on_model, *where, intrinsics), fragments.pix_to_face


def faces_towards(points: Tensor, faces: Tensor, where: Pose) -> Tensor:
    """(F,) bool: faces of a convex mesh that turn well towards the camera, which therefore sees them whole."""
    a, b, c = to_camera_centred(transform(points, *where))[0, faces].unbind(dim=1)
    outward = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    return (outward * torch.nn.functional.normalize(-a, dim=-1)).sum(dim=-1) > 0.3


def test_a_drawn_mesh_in_two_exact_poses_agrees_with_itself() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    points = torch.tensor(np.array(ball.vertices), dtype=torch.float64)[None] * torch.tensor([0.8, 1.1, 0.9])
    faces = torch.tensor(np.array(ball.faces))
    true, wrong = pose(*SOURCE), pose([-0.1, -0.25, -0.1], SOURCE[1])
    whole = faces_towards(points, faces, true)
    residuals: dict[str, list[float]] = {"pixel": [], "depth": []}
    for size in (48, 96, 192):
        (target, seen_target), (source, seen_source) = (
            mesh_view(points, faces, where, size) for where in (pose(*TARGET), true)
        )
        covisible = covisible_map(seen_target, seen_source, faces, points.shape[1])
        assert 0.6 < covisible.sum() / (target.depth > 0).sum() < 1
        view = synthesize(target, source)
        # The map's own definition takes in faces of which the source sees a corner only: an error that no size mends.
        certain = covisible & view.inside & (whole[seen_target] & (seen_target >= 0)).unsqueeze(1)
        residuals["pixel"].append(pixel_consistency_loss(view.image, target.image, certain).item())
        residuals["depth"].append(depth_consistency_loss(view.depth, target.depth, certain).item())
    assert certain.sum() > 0.7 * covisible.sum()
    for errors in residuals.values():
        assert errors[1] < errors[0] / 2
        assert errors[2] < errors[1] / 2
    assert residuals["pixel"][2] < 2e-4
    assert residuals["depth"][2] < 0.05

    off = synthesize(target, source, wrong)
    right = pixel_consistency_loss(view.image, target.image, covisible & view.inside)
    assert right < 1e-3
    assert pixel_consistency_loss(off.image, target.image, covisible & off.inside) > 20 * right
    right = depth_consistency_loss(view.depth, target.depth, covisible & view.inside)
    assert depth_consistency_loss(off.depth, target.depth, covisible & off.inside) > 5 * right
