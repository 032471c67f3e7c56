"""Detail drawn pixel by pixel against the plain rendering and closed forms; detailed meshes against trimesh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor
from torch.nn.functional import normalize

from renderers.camera import default_intrinsics
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.illumination import irradiance
from renderers.uv.chart import UVChart
from renderers.uv.detail import detailed_mesh, draw_detail
from tests.conf.surfaces import PLANE_U, PLANE_V, draw_surface, plane_model, surface_model


@pytest.fixture(scope="module")
def face_model() -> MorphableModel:
    return load_default()


@pytest.fixture(scope="module")
def chart(face_model: MorphableModel) -> UVChart:
    return UVChart(face_model, 256)


@pytest.fixture(scope="module")
def scene(face_model: MorphableModel) -> tuple[Rendering, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coefficients = mean_coefficients(face_model, 2)
    coefficients.angles.copy_(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.6, 0.1]]))
    coefficients.albedo.copy_(0.5 * torch.randn(coefficients.albedo.shape, generator=generator))
    coefficients.illumination.copy_(0.1 * torch.randn(2, 27, generator=generator))
    return FaceRenderer(face_model, 96)(coefficients), coefficients.illumination


def test_no_detail_is_the_plain_rendering(chart: UVChart, scene: tuple[Rendering, Tensor]) -> None:
    rendering, illumination = scene
    albedo_map = chart.bake(rendering.vertex_albedo)
    flat = draw_detail(chart, rendering, illumination, albedo_map)
    mask = rendering.mask.float()
    torch.testing.assert_close(flat.normals, normalize(rendering.normals, dim=1), atol=1e-6, rtol=0)
    for ours, plain in ((flat.albedo, rendering.albedo), (flat.image, rendering.image)):
        error = (ours - plain).abs()
        assert error.mean() / mask.mean() < 3e-3
        assert error.quantile(0.99) < 0.04
        assert not error[(mask == 0).expand_as(error)].any()
    torch.testing.assert_close(flat.image, flat.albedo * flat.shading)
    level = draw_detail(chart, rendering, illumination, albedo_map, torch.full_like(albedo_map[:, :1], 0.3))
    torch.testing.assert_close(level.normals, flat.normals, atol=1e-4, rtol=0)
    torch.testing.assert_close(level.image, flat.image, atol=1e-4, rtol=0)


def wavy(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A displacement and its derivatives along u and v."""
    angle = 6 * u + 4 * v
    return 0.03 * torch.sin(angle), 0.18 * torch.cos(angle), 0.12 * torch.cos(angle)


def test_a_wavy_plane_is_shaded_as_its_closed_form() -> None:
    """Each pixel's ray meets the plane at a (u, v) that no rasterizer is asked for."""
    model, size = plane_model(), 48
    chart = UVChart(model, 256)
    illumination = 0.2 * torch.randn(1, 27, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rendering = draw_surface(model, model.mean_shape.double()[None], size)
    steps = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
    v, u = torch.meshgrid(1 - steps, steps, indexing="ij")
    albedo = torch.stack([u, v, u * v])[None]
    drawn = draw_detail(chart, rendering, illumination, albedo, wavy(u, v)[0][None, None])

    tangents = torch.from_numpy(np.stack([PLANE_U, PLANE_V]))
    focal, centre = default_intrinsics(size).double()[0, (0, 2)]
    pixels = torch.arange(size, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid((centre - pixels) / focal, (pixels - centre) / focal, indexing="ij")
    # (0, 0, 10) + t (x, y, -1) = PLANE_U (u - 1/2) + PLANE_V (v - 1/2), solved for u, v, t.
    rays = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    system = torch.cat([tangents.T.expand(size, size, 3, 2), -rays[..., None]], dim=-1)
    u, v, _ = torch.linalg.solve(system, torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64)).unbind(-1)
    u, v = u + 0.5, v + 0.5
    hit = (u > 0.01) & (u < 0.99) & (v > 0.01) & (v < 0.99)
    assert hit.float().mean() > 0.05
    _, along_u, along_v = wavy(u, v)
    normal = normalize(torch.linalg.cross(tangents[0], tangents[1]), dim=0)
    expected = normalize(
        torch.linalg.cross(tangents[0] + along_u[..., None] * normal, tangents[1] + along_v[..., None] * normal), dim=-1
    )[hit]
    light = irradiance(expected[None], illumination)[0]
    shown = [picture[0].permute(1, 2, 0)[hit] for picture in (drawn.normals, drawn.shading, drawn.albedo, drawn.image)]
    color = torch.stack([u, v, u * v], dim=-1)[hit]
    assert (expected - normal).norm(dim=-1).max() > 0.1
    torch.testing.assert_close(shown[0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[1], light, atol=2e-3, rtol=0)
    torch.testing.assert_close(shown[2], color, atol=1e-4, rtol=0)
    torch.testing.assert_close(shown[3], color * light, atol=2e-3, rtol=0)
    assert not drawn.image[~rendering.mask.expand_as(drawn.image)].any()


def test_drawn_detail_has_the_right_gradients() -> None:
    model = plane_model(2)
    generator = torch.Generator().manual_seed(0)
    rendering = draw_surface(model, 0.4 * model.mean_shape.double()[None], 5)
    chart = UVChart(model, 4)
    illumination = 0.2 * torch.randn(1, 27, generator=generator, dtype=torch.float64)
    albedo = torch.rand(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    heights = 0.05 * torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)

    def image(illumination: Tensor, albedo: Tensor, heights: Tensor) -> Tensor:
        return draw_detail(chart, rendering, illumination, albedo, heights).image

    assert torch.autograd.gradcheck(image, tuple(t.requires_grad_() for t in (illumination, albedo, heights)))


def octahedron() -> MorphableModel:
    points = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    around = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    top, bottom = np.insert(around, 2, 4, axis=1), np.insert(around[:, ::-1], 2, 5, axis=1)
    return surface_model(points, np.concatenate([top, bottom]), 0.5 + 0.4 * points[:, :2])


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_a_closed_mesh_stays_closed_and_moves_along_its_normals(levels: int) -> None:
    model = octahedron()
    chart = UVChart(model, 32)
    flat = torch.zeros(1, 1, 32, 32)
    still, faces, uv = detailed_mesh(chart, model, model.mean_shape, flat, levels)
    moved, same, _ = detailed_mesh(chart, model, model.mean_shape, flat + 0.25, levels)
    assert len(faces) == 8 * 4**levels
    assert len(still) == len(uv) == 4 * 4**levels + 2  # Euler: V - E + F = 2 with E = 3 F / 2
    np.testing.assert_array_equal(faces, same)
    before, after = (trimesh.Trimesh(points, faces, process=False) for points in (still, moved))
    assert before.is_watertight and after.is_watertight
    assert before.is_winding_consistent
    assert before.volume == pytest.approx(4 / 3)  # splitting a flat triangle leaves the solid
    assert after.volume > before.volume
    # An octahedron's normals are its corners' directions; between them they interpolate like the places do.
    np.testing.assert_allclose(moved - still, 0.25 * still / np.linalg.norm(still, axis=1, keepdims=True), atol=1e-6)


def test_a_detailed_face_carries_its_displacement(face_model: MorphableModel, chart: UVChart) -> None:
    heights = chart.bake((0.02 * torch.sin(6 * face_model.uv[:, :1]))[None])
    still, faces, uv = detailed_mesh(chart, face_model, face_model.mean_shape, torch.zeros_like(heights), 2)
    moved, _, _ = detailed_mesh(chart, face_model, face_model.mean_shape, heights, 2)
    np.testing.assert_allclose(still[: face_model.vertex_count], face_model.mean_shape.numpy(), atol=1e-6)
    assert len(faces) == 16 * len(face_model.faces)
    assert trimesh.Trimesh(still, faces, process=False).euler_number == (
        trimesh.Trimesh(face_model.mean_shape.numpy(), face_model.faces.numpy(), process=False).euler_number
    )
    distance = np.linalg.norm(moved - still, axis=1)
    assert np.abs(distance - 0.02 * np.abs(np.sin(6 * uv[:, 0]))).max() < 2e-3
    # Fine enough to show it: the mesh's own normals agree with those that the map predicts.
    rendering = draw_surface(face_model, face_model.mean_shape[None], 8)
    predicted = chart.sample(chart.normals(rendering, heights), torch.from_numpy(uv).float()[None])[0].numpy()
    flat = chart.sample(chart.bake(rendering.vertex_normals), torch.from_numpy(uv).float()[None])[0].numpy()
    area = trimesh.Trimesh(moved, faces, process=False).vertex_normals
    skin = np.zeros(len(uv), dtype=bool)
    skin[face_model.regions["forehead"].numpy()] = True
    skin[face_model.regions["cheeks"].numpy()] = True
    missed, ignored = (
        np.linalg.norm(one / np.linalg.norm(one, axis=1, keepdims=True) - area, axis=1)[skin]
        for one in (predicted, flat)
    )
    assert np.median(missed) < 0.3 * np.median(ignored)
