"""Cameras against SciPy's rotations, closed forms and exact synthetic poses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from renderers.camera import (
    NEAR,
    default_intrinsics,
    euler_to_rotation,
    project,
    project_orthographic,
    relative_pose,
    rotation_to_euler,
    to_camera_centred,
    transform,
)
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer
from tests.conf.scenes import small_face_model
from tests.conf.shiny import small_shiny_model

ANGLE = st.floats(-3.1, 3.1)
YAW = st.floats(-1.5, 1.5)


@settings(deadline=None)
@given(ANGLE, ANGLE, ANGLE)
def test_rotation_is_scipys_extrinsic_xyz(pitch: float, yaw: float, roll: float) -> None:
    ours = euler_to_rotation(torch.tensor([pitch, yaw, roll], dtype=torch.float64))
    np.testing.assert_allclose(ours.numpy(), Rotation.from_euler("xyz", [pitch, yaw, roll]).as_matrix(), atol=1e-12)


@settings(deadline=None)
@given(ANGLE, YAW, ANGLE)
def test_euler_angles_come_back(pitch: float, yaw: float, roll: float) -> None:
    angles = torch.tensor([[pitch, yaw, roll]], dtype=torch.float64)
    torch.testing.assert_close(rotation_to_euler(euler_to_rotation(angles)), angles, atol=1e-9, rtol=0)


def test_angles_turn_the_face_as_named() -> None:
    forward = torch.tensor([[0.0, 0.0, 1.0]])
    still = torch.zeros(3)
    yawed = transform(forward, euler_to_rotation(torch.tensor([0.0, 0.5, 0.0])), still)
    pitched = transform(forward, euler_to_rotation(torch.tensor([0.5, 0.0, 0.0])), still)
    torch.testing.assert_close(yawed, torch.tensor([[math.sin(0.5), 0.0, math.cos(0.5)]]))
    torch.testing.assert_close(pitched, torch.tensor([[0.0, -math.sin(0.5), math.cos(0.5)]]))


@pytest.mark.parametrize("size", [64, 224, 500])
def test_default_camera_scales_with_the_image(size: int) -> None:
    scale = size / 224
    expected = torch.tensor([[1015 * scale, 0, 112 * scale], [0, 1015 * scale, 112 * scale], [0, 0, 1.0]])
    torch.testing.assert_close(default_intrinsics(size), expected)


def test_projection_in_closed_form() -> None:
    posed = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, -2.0, 5.0]]])
    expected = [
        [112.0, 112.0, 10.0],
        [112 + 101.5, 112.0, 10.0],  # to the right
        [112.0, 112 - 101.5, 10.0],  # upwards
        [112 + 203.0, 112 + 406.0, 5.0],  # twice as near
    ]
    torch.testing.assert_close(project(posed, default_intrinsics(224)[None]), torch.tensor([expected]))


def test_projection_is_the_pinhole_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    posed = torch.randn(3, 20, 3, generator=generator, dtype=torch.float64)
    intrinsics = torch.tensor([[900.0, 0, 100], [0, 1100, 130], [0, 0, 1]], dtype=torch.float64).expand(3, 3, 3)
    homogeneous = torch.einsum("bij,bnj->bni", intrinsics, to_camera_centred(posed))
    expected = torch.cat([homogeneous[..., :2] / homogeneous[..., 2:], homogeneous[..., 2:]], dim=-1)
    torch.testing.assert_close(project(posed, intrinsics), expected)


def test_points_behind_the_camera_stay_finite_and_keep_their_depth() -> None:
    posed = torch.tensor([[[0.5, 0.5, 10.0], [0.5, 0.5, 12.0]]], requires_grad=True)
    image = project(posed, default_intrinsics(224)[None])
    image.sum().backward()
    assert image[0, :, 2].tolist() == [0.0, -2.0]
    assert image[0, 1, 0].item() == pytest.approx(112 + 1015 * 0.5 / NEAR)
    assert posed.grad is not None
    assert posed.grad.isfinite().all()


def test_scaled_orthographic_projection_in_closed_form() -> None:
    """Every point is scaled as the origin is, however deep it lies; t_z is the scale."""
    intrinsics = default_intrinsics(224)[None]
    translation = torch.tensor([[0.3, -0.2, 2.0]])
    posed = torch.tensor([[[0.0, 0.0, 2.0], [1.0, 0.5, 3.0], [1.0, 0.5, -4.0]]])
    scale = 1015 / 8
    wanted = [[112, 112, 8], [112 + scale, 112 - scale / 2, 7], [112 + scale, 112 - scale / 2, 14]]
    torch.testing.assert_close(project_orthographic(posed, translation, intrinsics)[0], torch.tensor(wanted))


def test_both_projections_agree_far_away_and_at_the_origins_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(1, 20, 3, generator=generator, dtype=torch.float64)
    flat = offsets * torch.tensor([1.0, 1.0, 0.0])
    intrinsics = default_intrinsics(224)[None].double()
    near = torch.tensor([[0.1, 0.2, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(
        project_orthographic(flat + near[:, None], near, intrinsics), project(flat + near[:, None], intrinsics)
    )
    far = torch.tensor([[0.0, 0.0, -1e6]], dtype=torch.float64)
    telephoto = intrinsics.clone()
    telephoto[:, (0, 1), (0, 1)] *= 1e5
    orthographic, perspective = (
        project_orthographic(offsets + far[:, None], far, telephoto),
        project(offsets + far[:, None], telephoto),
    )
    torch.testing.assert_close(orthographic, perspective, atol=1e-3, rtol=0)


def test_orthographic_gradcheck_and_faces_at_the_camera() -> None:
    generator = torch.Generator().manual_seed(0)
    posed = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    translation = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    intrinsics = default_intrinsics(64).double().expand(2, 3, 3)
    assert torch.autograd.gradcheck(lambda p, t: project_orthographic(p, t, intrinsics), (posed, translation))
    at_camera = torch.tensor([[0.0, 0.0, 10.0]])
    assert project_orthographic(torch.zeros(1, 1, 3), at_camera, default_intrinsics(64)[None]).isfinite().all()


def test_a_face_keeps_its_proportions_through_the_orthographic_renderer() -> None:
    """As wide and high as the shape itself at focal length over distance; half the distance doubles it."""
    coefficients = mean_coefficients(small_face_model(), 1)
    renderer = FaceRenderer(small_face_model(), 48, camera="orthographic")
    rendering = renderer(coefficients)
    wanted = project_orthographic(rendering.vertices, rendering.translation, renderer.intrinsics[None])
    assert torch.equal(rendering.vertices_image, wanted) and rendering.mask.any()
    spread = rendering.vertices_image[..., :2].amax(dim=1) - rendering.vertices_image[..., :2].amin(dim=1)
    size = rendering.shape[..., :2].amax(dim=1) - rendering.shape[..., :2].amin(dim=1)
    torch.testing.assert_close(spread, size * 1015 * 48 / 224 / 10, rtol=1e-4, atol=0)
    coefficients.translation[:, 2] = 5
    nearer = renderer(coefficients).vertices_image[..., :2] - 24
    torch.testing.assert_close(nearer, 2 * (rendering.vertices_image[..., :2] - 24), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["perspective", "orthographic", "zoomed"])
def test_one_matrix_takes_a_face_from_model_space_to_pixels(kind: str) -> None:
    model = small_shiny_model()
    layout = model.layout(SPECULAR_COEFFICIENTS)
    coefficients = layout.split(0.3 * torch.randn(2, layout.length, generator=torch.Generator().manual_seed(0)))
    renderer = FaceRenderer(model, 48, camera="orthographic" if kind == "orthographic" else "perspective")
    if kind == "zoomed":
        renderer = SpecularRenderer(model, 48)
    intrinsics = torch.tensor([[900.0, 0, 20], [0, 1100, 30], [0, 0, 1]]).expand(2, 3, 3)
    rendering = renderer(coefficients, intrinsics)
    matrix = renderer.projection(coefficients, intrinsics)
    projected = torch.nn.functional.pad(rendering.shape, (0, 1), value=1.0) @ matrix.transpose(1, 2)
    torch.testing.assert_close(
        projected[..., :2] / projected[..., 2:], rendering.vertices_image[..., :2], atol=1e-3, rtol=0
    )


def test_gradcheck() -> None:
    angles = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    translation = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    points = torch.randn(2, 4, 3, dtype=torch.float64)
    intrinsics = default_intrinsics(8).double().expand(2, 3, 3)

    def picture(angles: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
        return project(transform(points, euler_to_rotation(angles), translation), intrinsics)

    assert torch.autograd.gradcheck(picture, (angles, translation))


def test_relative_pose_carries_exact_points_between_the_cameras() -> None:
    generator = torch.Generator().manual_seed(1)
    model = torch.randn(50, 40, 3, generator=generator, dtype=torch.float64)
    angles = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    shifts = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    turns = euler_to_rotation(angles)
    in_target, in_source = (to_camera_centred(transform(model, turns[v], shifts[v])) for v in range(2))
    rotation, translation = relative_pose(turns[0], shifts[0], turns[1], shifts[1])
    torch.testing.assert_close(transform(in_target, rotation, translation), in_source, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))


def test_relative_pose_of_a_view_with_itself_is_no_motion() -> None:
    rotation = euler_to_rotation(torch.tensor([[0.3, -0.8, 0.1]], dtype=torch.float64))
    shift = torch.tensor([[0.2, 0.1, -0.4]], dtype=torch.float64)
    relative, translation = relative_pose(rotation, shift, rotation, shift)
    torch.testing.assert_close(relative[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(translation[0], torch.zeros(3, dtype=torch.float64), atol=1e-14, rtol=0)
