"""UV space against closed forms: linear functions, planes and spheres, ray casting by brute force."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from renderers.camera import CAMERA_DISTANCE
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.fixed_sum import FixedSum
from renderers.uv.chart import DEPTH_TOLERANCE, GRAZING, UVChart
from tests.conf.scenes import small_face_model
from tests.conf.surfaces import PLANE_U, PLANE_V, draw_surface, grid, plane_model, sphere_cap_model, surface_model

SIZE = 64


@pytest.fixture(scope="module")
def face_model() -> MorphableModel:
    return load_default()


@pytest.fixture(scope="module")
def chart(face_model: MorphableModel) -> UVChart:
    return UVChart(face_model, SIZE)


@pytest.fixture(scope="module")
def profile(face_model: MorphableModel) -> Rendering:
    """Three poses, of which the last turns one cheek away and hides part of the other side behind the nose."""
    coefficients = mean_coefficients(face_model, 3)
    coefficients.angles.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.5, 0.2], [0.0, 0.9, 0.0]]))
    return FaceRenderer(face_model, 160)(coefficients)


def texel_centres(size: int) -> Tensor:
    """(1, 2, R, R) u, v"""
    steps = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(1 - steps, steps, indexing="ij")
    return torch.stack([u, v])[None]


@pytest.mark.parametrize("model", [load_default, small_face_model, plane_model])
def test_a_linear_function_of_uv_is_baked_as_itself(model) -> None:
    face_model = model()
    chart = UVChart(face_model, SIZE)
    matrix = torch.tensor([[1.0, -2.0, 0.3], [0.5, 4.0, 1.0]])
    baked = chart.bake((face_model.uv @ matrix).expand(2, -1, -1))
    expected = torch.einsum("bchw,cd->bdhw", texel_centres(SIZE), matrix) * chart.mask
    assert chart.mask.float().mean() > 0.3
    torch.testing.assert_close(baked, expected.expand(2, -1, -1, -1), atol=1e-4, rtol=0)


def test_the_outermost_of_overlapping_faces_has_the_texel() -> None:
    uv, faces = grid(2)
    flat = np.column_stack([uv - 0.5, np.zeros(len(uv))])
    points = np.concatenate([flat, flat + np.array([0, 0, 0.2])])
    model = surface_model(points, np.concatenate([faces, faces + len(uv)]), np.concatenate([uv, uv]))
    outer = UVChart(model, 16).bake(model.mean_shape[None])[:, 2]
    torch.testing.assert_close(outer, torch.full_like(outer, 0.2))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**16))
def test_a_fixed_sum_is_the_dense_product(rows: int, columns: int, channels: int, seed: int) -> None:
    matrix = sparse.random(rows, columns, density=0.4, format="csr", random_state=seed, dtype=np.float32)
    product = FixedSum(matrix)
    values = torch.randn(columns, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.from_numpy(matrix.toarray()).double() @ values
    torch.testing.assert_close(product(values), expected, atol=1e-6, rtol=0)
    assert torch.autograd.gradcheck(product, values.requires_grad_())


def test_samples_at_texel_centres_are_the_texels(chart: UVChart) -> None:
    maps = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    spoilt = torch.where(chart.mask, maps, torch.nan)
    places = texel_centres(SIZE).expand(2, -1, -1, -1)
    inside = chart.mask.expand(2, 3, -1, -1)
    torch.testing.assert_close(chart.sample(spoilt, places)[inside], maps[inside], atol=1e-5, rtol=0)
    listed = chart.sample(spoilt, places.flatten(2).transpose(1, 2))
    torch.testing.assert_close(listed.transpose(1, 2).reshape_as(maps), chart.sample(spoilt, places))


def test_what_stands_outside_the_chart_never_bleeds_in(chart: UVChart, profile: Rendering) -> None:
    """On the chart 0.3 everywhere, outside infinitely bright: every pixel of the face reads 0.3."""
    maps = torch.where(chart.mask, 0.3, torch.inf).expand(3, 1, -1, -1)
    sampled = chart.sample(maps, chart.places(profile))
    torch.testing.assert_close(sampled, torch.full_like(sampled, 0.3))
    # A smooth map: the texels' own error where all four are inside, a texel's slope at the border.
    slanted = chart.bake(chart.uv.expand(3, -1, -1))
    error = ((chart.sample(slanted, chart.places(profile)) - chart.places(profile)).abs() * profile.mask).flatten()
    assert error.max() < 2 / SIZE
    assert error.median() < 1e-5


def test_samples_have_the_right_gradient() -> None:
    chart = UVChart(plane_model(2), 5)
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 2, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    places = 0.15 + 0.7 * torch.rand(2, 7, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(chart.sample, (maps, places.requires_grad_()))


def test_an_unwrapped_picture_is_the_baked_color(
    chart: UVChart, face_model: MorphableModel, profile: Rendering
) -> None:
    colors = 0.5 + 0.4 * torch.sin(4 * face_model.mean_shape + torch.tensor([0.0, 1.0, 2.0])).expand(3, -1, -1)
    unwrapped, visibility = chart.unwrap(profile.draw(colors), profile)
    assert ((visibility >= 0) & (visibility <= 1)).all()
    assert not visibility[~chart.mask.expand_as(visibility)].any()
    error = (unwrapped - chart.bake(colors)).abs()[(visibility > 0.5).expand_as(unwrapped)]
    assert error.mean() < 3e-3
    assert error.quantile(0.999) < 0.05
    frontal, _, turned = visibility.mean(dim=(1, 2, 3)) / chart.mask.float().mean()
    assert 0.4 < turned < frontal < 0.95


def first_hits(origin: np.ndarray, directions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N,) distance along each ray to the first triangle (Moeller and Trumbore 1997), every pair tried."""
    edges = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    first = np.full(len(directions), np.inf)
    for index, direction in enumerate(directions):
        cross = np.cross(direction, edges[1])
        determinant = (edges[0] * cross).sum(axis=1)
        inverse = 1 / np.where(np.abs(determinant) < 1e-12, np.inf, determinant)
        offset = origin - triangles[:, 0]
        u, turned = (offset * cross).sum(axis=1) * inverse, np.cross(offset, edges[0])
        v, distance = (turned @ direction) * inverse, (edges[1] * turned).sum(axis=1) * inverse
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
        first[index] = distance[hit].min(initial=np.inf)
    return first


def test_visibility_is_what_ray_casting_finds(chart: UVChart, face_model: MorphableModel, profile: Rendering) -> None:
    _, visibility = chart.unwrap(profile.image, profile)
    surface = torch.cat([profile.vertices, profile.vertex_normals], dim=-1)
    places, normals = chart.bake(surface)[2].flatten(1).T.double().split(3, dim=1)
    chosen = torch.from_numpy(np.random.default_rng(0).choice(np.flatnonzero(chart.mask.numpy()), 400, replace=False))
    camera = torch.tensor([0.0, 0.0, CAMERA_DISTANCE], dtype=torch.float64)
    to_camera = camera - places[chosen]
    cosine = (normalize(normals[chosen], dim=1) * normalize(to_camera, dim=1)).sum(dim=1).numpy()
    length = to_camera.norm(dim=1).numpy()
    triangles = profile.vertices[2].double().numpy()[face_model.faces.numpy()]
    hits = first_hits(camera.numpy(), -(to_camera.numpy() / length[:, None]), triangles)
    seen = (hits > length - 1e-4) & (cosine > 0)
    ours = visibility[2].flatten()[chosen].numpy() > 0.5
    clear = np.abs(cosine) > GRAZING
    assert (seen & clear).sum() > 100
    # Turned to the viewer and yet hidden, behind the nose or the lips: what normals alone cannot tell.
    hidden = ~seen & (cosine > GRAZING)
    assert hidden.sum() >= 10
    assert (ours == seen)[clear].mean() > 0.97
    assert ours[hidden].mean() < 0.2


def test_a_rounded_surface_hides_nothing_of_itself_in_few_pixels() -> None:
    """Neighbouring pixels of the cap's rim lie further apart in depth than the tolerance."""
    model = sphere_cap_model()
    rendering = draw_surface(model, model.mean_shape[None], 40)
    colors, visibility = UVChart(model, SIZE).unwrap(rendering.draw(model.mean_shape[None]), rendering)
    step = rendering.depth.diff(dim=-1).abs()[rendering.mask[..., 1:] & rendering.mask[..., :-1]].max()
    assert step > 1.4 * DEPTH_TOLERANCE
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(visibility[inner], torch.ones_like(visibility[inner]))
    x, y = (1.2 * (texel_centres(SIZE) - 0.5)).unbind(1)
    expected = torch.stack([x, y, (1 - x.square() - y.square()).sqrt()], dim=1)
    assert (colors - expected)[inner].abs().max() < 0.03


def test_unwrapping_has_the_right_gradient_in_the_image() -> None:
    model = plane_model(2)
    rendering = draw_surface(model, 0.3 * model.mean_shape.double()[None], 6)
    image = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chart = UVChart(model, 4)
    assert chart.unwrap(image, rendering)[1].max() > 0.9
    assert torch.autograd.gradcheck(lambda image: chart.unwrap(image, rendering)[0], image.requires_grad_())


def test_nothing_is_seen_of_a_face_outside_the_image_or_of_no_numbers(
    chart: UVChart, face_model: MorphableModel
) -> None:
    away = face_model.mean_shape + torch.tensor([[[9.0, 0, 0]], [[0, 0, 12.0]], [[torch.nan, 0, 0]]])
    rendering = draw_surface(face_model, away, 32)
    colors, visibility = chart.unwrap(torch.ones(3, 3, 32, 32), rendering)
    assert not visibility.any()
    assert not colors.any()


def test_no_difference_reaches_across_the_charts_border(chart: UVChart, face_model: MorphableModel) -> None:
    # Each eyeball is a part of its own: as high as a tower, and yet flat.
    height = torch.zeros(face_model.vertex_count, 1)
    height[face_model.regions["eyes"]] = 100.0
    towers = torch.where(chart.mask, chart.bake(height[None]).round(), 1e6)
    assert towers.unique().tolist() == [0, 100, 1e6]
    assert not chart.slopes(towers).any()
    ramp = torch.where(chart.mask, (texel_centres(SIZE) * torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)).sum(1), torch.nan)
    ramp = torch.where(chart.mask, ramp.view(1, 1, SIZE, SIZE), -1e6)
    found = chart.slopes(ramp)
    linked = chart.slopes(texel_centres(SIZE).sum(1, keepdim=True)) > 0
    assert linked.float().mean() > 0.98 * chart.mask.float().mean()
    expected = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1) * linked
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def test_normals_without_displacement_are_the_interpolated_ones(chart: UVChart, profile: Rendering) -> None:
    normals = chart.normals(profile, torch.zeros(3, 1, SIZE, SIZE))
    expected = normalize(chart.bake(profile.vertex_normals), dim=1)
    torch.testing.assert_close(normals, expected, atol=1e-6, rtol=0)
    raised = chart.normals(profile, torch.full((3, 1, SIZE, SIZE), 0.7))
    torch.testing.assert_close(raised, expected, atol=1e-6, rtol=0)
    length = chart.normals(profile, torch.randn(3, 1, SIZE, SIZE)).norm(dim=1, keepdim=True)
    torch.testing.assert_close(length, chart.mask.float().expand_as(length), atol=1e-5, rtol=0)


def test_normals_of_a_wavy_plane_are_those_of_the_closed_form() -> None:
    model = plane_model()
    rendering = draw_surface(model, model.mean_shape.double()[None], 8)
    tangents = torch.from_numpy(np.stack([PLANE_U, PLANE_V]))
    normal = normalize(torch.linalg.cross(tangents[0], tangents[1]), dim=0)
    worst = []
    for size in (32, 64, 128):
        u, v = texel_centres(size).double().unbind(1)
        wave = 0.05 * torch.sin(5 * u + 9 * v)[:, None]
        along = 0.05 * torch.cos(5 * u + 9 * v)[..., None]
        # The displaced plane's own tangents: x_u + d_u n and x_v + d_v n.
        expected = torch.linalg.cross(tangents[0] + 5 * along * normal, tangents[1] + 9 * along * normal)
        found = UVChart(model, size).normals(rendering, wave)
        error = (found - normalize(expected, dim=-1).permute(0, 3, 1, 2))[..., 1:-1, 1:-1].abs().max().item()
        worst.append(error)
    assert worst[1] < worst[0] / 3 and worst[2] < worst[1] / 3
    assert worst[2] < 2e-3


def test_normals_of_a_bumpy_sphere_are_those_of_the_closed_form() -> None:
    """r(n) = 1 + a sin(k . n) has normals along r n - grad_S r, the gradient taken on the unit sphere."""
    model = sphere_cap_model()
    size, amplitude, wave = 96, 0.004, torch.tensor([9.0, 5.0, 3.0])
    chart = UVChart(model, size)
    rendering = draw_surface(model, model.mean_shape[None], 8)
    x, y = (1.2 * (texel_centres(size) - 0.5)).unbind(1)
    points = torch.stack([x, y, (1 - x.square() - y.square()).sqrt()], dim=-1)
    radius = 1 + amplitude * torch.sin(points @ wave)[..., None]
    slope = amplitude * torch.cos(points @ wave)[..., None] * wave
    gradient = slope - (slope * points).sum(dim=-1, keepdim=True) * points
    expected = normalize(radius * points - gradient, dim=-1).permute(0, 3, 1, 2)
    smooth, found = points.permute(0, 3, 1, 2), chart.normals(rendering, radius.permute(0, 3, 1, 2) - 1)
    inner = (..., slice(4, -4), slice(4, -4))
    bent = (smooth - expected)[inner].norm(dim=1)
    missed = (found - expected)[inner].norm(dim=1)
    assert bent.max() > 0.03
    assert missed.max() < 0.05 * bent.max()
    assert missed.mean() < 0.03 * bent.mean()


def test_normals_have_the_right_gradient_in_displacement_and_vertices() -> None:
    model = plane_model(1)
    generator = torch.Generator().manual_seed(1)
    vertices = model.mean_shape.double()[None] + 0.1 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    heights = 0.1 * torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    chart = UVChart(model, 3)

    def normals(vertices: Tensor, heights: Tensor) -> Tensor:
        return chart.normals(draw_surface(model, vertices, 4), heights)

    assert torch.autograd.gradcheck(normals, (vertices.requires_grad_(), heights.requires_grad_()))


def test_a_mirrored_map_shows_the_other_side(chart: UVChart, face_model: MorphableModel) -> None:
    position = chart.bake(face_model.mean_shape[None])
    mirrored = chart.mirror(position)
    expected = position * torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    error = (mirrored - expected).norm(dim=1)[chart.mask[:, 0]]
    assert error.median() < 0.01
    assert error.quantile(0.99) < 0.1
    assert not mirrored[~chart.mask.expand_as(mirrored)].any()


def test_gradients_of_a_whole_face_are_finite(chart: UVChart, profile: Rendering) -> None:
    heights = (0.01 * torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))).requires_grad_()
    colors = profile.vertex_colors.detach().clone().requires_grad_()
    (chart.normals(profile, heights).sum() + chart.bake(colors).square().sum()).backward()
    assert heights.grad is not None and colors.grad is not None
    assert heights.grad.isfinite().all() and heights.grad.any()
    assert colors.grad.isfinite().all() and colors.grad.any()
    assert not heights.grad[~chart.mask.expand_as(heights)].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_finds_what_the_cpu_finds(face_model: MorphableModel, chart: UVChart, profile: Rendering) -> None:
    heights = 0.01 * torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    here = draw_surface(face_model, profile.vertices, 96)
    model = deepcopy(face_model).cuda()
    there, remote = draw_surface(model, profile.vertices.cuda(), 96), UVChart(model, SIZE)
    torch.testing.assert_close(remote.mask.cpu(), chart.mask)
    normals = remote.normals(there, heights.cuda()).cpu()
    torch.testing.assert_close(normals, chart.normals(here, heights), atol=1e-3, rtol=0)
    visibility = remote.unwrap(there.image, there)[1].cpu() - chart.unwrap(here.image, here)[1]
    assert visibility.abs().mean() < 1e-3
