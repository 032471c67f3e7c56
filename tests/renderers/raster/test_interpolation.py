"""Interpolation against closed forms on planes, finite differences, and a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renderers.camera import default_intrinsics, project, to_camera_centred
from renderers.raster import rasterize
from renderers.raster.interpolation import gather_corners, interpolate, make_fragments, pixel_centres


def flat_square(tilt: float, turn: float, cells: int = 6) -> tuple[Tensor, Tensor]:
    """A tilted and turned square of 2 dm as posed points (1, V, 3) in float64, and its triangles (F, 3)."""
    side = torch.linspace(-1, 1, cells + 1, dtype=torch.float64)
    x, y = torch.meshgrid(side, side, indexing="xy")
    points = torch.stack([x, y, tilt * x + turn * y], dim=-1).view(1, -1, 3)
    corner = torch.arange((cells + 1) ** 2).view(cells + 1, cells + 1)
    here, right, above, across = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = torch.cat([torch.stack([here, right, across], -1), torch.stack([here, across, above], -1)])
    return points, faces.view(-1, 3)


@settings(max_examples=30, deadline=None)
@given(tilt=st.floats(-2, 2), turn=st.floats(-2, 2))
def test_plane_is_interpolated_as_in_space(tilt: float, turn: float) -> None:
    """Each pixel's ray meets the plane z = tilt x + turn y at a depth, and so at attributes, known in closed form."""
    size = 48
    intrinsics = default_intrinsics(size).double()
    posed, faces = flat_square(tilt, turn)
    fragments = rasterize(project(posed, intrinsics[None]), faces, (size, size))

    ray = (pixel_centres(size, size, posed) - intrinsics[:2, 2]) / intrinsics[0, 0]
    # x = u d, y = -v d, z = 10 - d on the plane: 10 - d = (tilt u - turn v) d.
    depth = 10 / (1 + tilt * ray[..., 0] - turn * ray[..., 1])
    point = torch.stack([ray[..., 0] * depth, -ray[..., 1] * depth, 10 - depth])
    mask = fragments.mask[0]
    assert mask.sum() > 10
    torch.testing.assert_close(fragments.depth[0][mask], depth[mask], rtol=1e-9, atol=1e-9)
    drawn = interpolate(fragments, faces, posed)[0]
    torch.testing.assert_close(drawn[:, mask], point[:, mask], rtol=1e-7, atol=1e-7)
    assert (drawn[:, ~mask] == 0).all()


def test_constant_attribute_stays_constant() -> None:
    posed, faces = flat_square(0.5, -0.3)
    fragments = rasterize(project(posed, default_intrinsics(32).double()[None]), faces, (32, 32))
    drawn = interpolate(fragments, faces, torch.full((1, posed.shape[1], 2), 3.5, dtype=torch.float64))
    torch.testing.assert_close(drawn, 3.5 * fragments.mask.double().unsqueeze(1).expand_as(drawn))


def test_depth_is_the_interpolated_depth() -> None:
    posed, faces = flat_square(1.0, 0.4)
    fragments = rasterize(project(posed, default_intrinsics(32).double()[None]), faces, (32, 32))
    torch.testing.assert_close(interpolate(fragments, faces, to_camera_centred(posed)[..., 2:])[:, 0], fragments.depth)


def test_gather_corners_is_a_loop() -> None:
    random = torch.Generator().manual_seed(0)
    attributes = torch.rand(2, 7, 4, generator=random)
    faces = torch.randint(7, (5, 3), generator=random)
    pix_to_face = torch.randint(-1, 5, (2, 3, 6), generator=random)
    gathered = gather_corners(attributes, faces, pix_to_face)
    for image, row, column in np.ndindex(2, 3, 6):
        face = faces[max(int(pix_to_face[image, row, column]), 0)]
        assert torch.equal(gathered[image, :, :, row, column].T, attributes[image][face])


def test_pixel_centres() -> None:
    centres = pixel_centres(2, 3, torch.zeros(1, dtype=torch.float64))
    assert centres.tolist() == [[[0.5, 0.5], [1.5, 0.5], [2.5, 0.5]], [[0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]]
    assert centres.dtype == torch.float64


@pytest.fixture
def scene() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertices in the image, faces, attributes and what each pixel sees: two images with faces of both windings."""
    random = torch.Generator().manual_seed(1)
    corners = 7 * torch.rand(2, 9, 2, generator=random, dtype=torch.float64)
    depth = 8 + 4 * torch.rand(2, 9, 1, generator=random, dtype=torch.float64)
    vertices = torch.cat([corners, depth], dim=-1)
    faces = torch.arange(9).view(3, 3)
    attributes = torch.rand(2, 9, 2, generator=random, dtype=torch.float64)
    pix_to_face = rasterize(vertices, faces, (6, 7)).pix_to_face
    assert {0, 1, 2, -1} == set(pix_to_face.unique().tolist())
    return vertices, faces, attributes, pix_to_face


def test_gradcheck(scene: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    vertices, faces, attributes, pix_to_face = scene

    def draw(vertices: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fragments = make_fragments(vertices, faces, pix_to_face)
        return interpolate(fragments, faces, attributes), fragments.depth, fragments.barycentric

    assert torch.autograd.gradcheck(draw, (vertices.requires_grad_(), attributes.requires_grad_()))


def test_hidden_vertices_have_no_gradient(scene: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    vertices, faces, _, _ = scene
    leaf = vertices.requires_grad_()
    seen = torch.full((2, 6, 7), -1)
    seen[0, 3, 3] = 1
    make_fragments(leaf, faces, seen).depth.sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[0, 3:6] != 0).any()
    assert (leaf.grad[1] == 0).all()
    assert (leaf.grad[0, [0, 1, 2, 6, 7, 8]] == 0).all()


def test_barycentric_of_a_centre_barely_outside_stays_in_range() -> None:
    """A backend may call a centre inside by rounding; its weight is then 0, never negative."""
    vertices = torch.tensor([[[0.0, 0.0, 9.0], [4.0, 0.0, 9.0], [0.0, 4.0, 9.0]]])
    outside = vertices + torch.tensor([0.5 + 1e-6, 0.0, 0.0])
    fragments = make_fragments(outside, torch.tensor([[0, 1, 2]]), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert fragments.barycentric.min() == 0
    assert fragments.barycentric.sum().item() == pytest.approx(1.0)
    assert fragments.depth.item() == pytest.approx(9.0)


def test_face_without_area_gives_no_nan() -> None:
    vertices = torch.tensor([[[1.0, 1.0, 9.0]] * 3], requires_grad=True)
    pix_to_face = torch.zeros(1, 2, 2, dtype=torch.int64)
    fragments = make_fragments(vertices, torch.tensor([[0, 1, 2]]), pix_to_face)
    (fragments.barycentric.sum() + fragments.depth.sum()).backward()
    assert fragments.barycentric.isfinite().all()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
