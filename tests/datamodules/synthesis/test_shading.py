"""Light and shadow on spheres, planes and walls, where the answer is known."""

from __future__ import annotations

import math

import torch
import trimesh
from torch import Tensor

from datamodules.synthesis.shading import (
    Light,
    Scene,
    ambient_share,
    depth_behind,
    draw,
    light_frame,
    lit_share,
    polynomial,
    seen_from,
)
from datamodules.synthesis.shading_kernel import PLAIN
from renderers.color import encode
from renderers.illumination import AMBIENT, BAND_0, irradiance
from renderers.raster import rasterize


def plane(side: int = 60, half: float = 1.5) -> tuple[Tensor, Tensor]:
    """A square in z = 0 that faces +z."""
    axis = torch.linspace(-half, half, side)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    index = torch.arange(side * side).view(side, side)
    a, b, c, d = (part.flatten() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    return torch.stack([x, y, 0 * x], -1).view(-1, 3), torch.cat([torch.stack([a, b, c], 1), torch.stack([b, d, c], 1)])


def test_a_sphere_throws_its_shadow_where_rays_say() -> None:
    ground, faces = plane()
    ball = trimesh.creation.icosphere(4, 0.3)
    centre, light = torch.tensor([0.1, -0.2, 0.7]), torch.nn.functional.normalize(torch.tensor([0.5, 0.3, 1.0]), dim=0)
    vertices = torch.cat([ground, torch.tensor(ball.vertices).float() + centre])
    faces = torch.cat([faces, torch.tensor(ball.faces) + len(ground)])
    places, depth = seen_from(vertices[None], faces, light[None], torch.zeros(1, 3))
    share = lit_share(places, depth, 0.05)[0, : len(ground)]
    # A ray from the ground passes the sphere at this distance from its centre.
    along = (centre - ground) @ light
    passes = (centre - ground - along[:, None] * light).norm(dim=1)
    sure = (passes - 0.3).abs() > 0.04
    assert torch.equal(share[sure], (passes > 0.3).float()[sure])
    assert 50 < (share == 0).sum() < 1000


def test_half_of_the_sky_reaches_the_foot_of_a_wall() -> None:
    ground, faces = plane(41, 2.0)
    wall = torch.stack([torch.full((len(ground),), -0.001), ground[:, 1], ground[:, 0] + 2.0], dim=1)
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(len(ground), 3)
    both = torch.cat([ground, wall]), torch.cat([normals, normals])
    share = ambient_share(*both, torch.cat([faces, faces + len(ground)]), directions=128)
    foot = ((ground[:, 0] - 0.1).abs() < 0.01) & (ground[:, 1].abs() < 0.2)
    assert (share[: len(ground)][foot] - 0.52).abs().max() < 0.1
    # Of what comes in level with the ground, a texel's depth hides a little.
    assert ambient_share(ground, normals, faces).mean() > 0.93


def test_the_polynomial_is_the_harmonics() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 27, generator=generator)
    n = torch.nn.functional.normalize(torch.randn(2, 50, 3, generator=generator), dim=-1)
    terms = torch.cat([n, n * n.roll(-1, dims=-1), n.square(), torch.ones(2, 50, 1)], dim=-1)
    weights_with = weights.clone()
    weights_with.unflatten(1, (3, 9))[..., 0] += AMBIENT
    torch.testing.assert_close(terms @ polynomial(weights_with), irradiance(n, weights))


def test_depth_is_the_rasterizers() -> None:
    ball = trimesh.creation.icosphere(2, 6.0)
    points = torch.tensor(ball.vertices).float()[None] + torch.tensor([8.0, 8.0, 20.0])
    faces = torch.tensor(ball.faces)
    fragments = rasterize(points, faces, (16, 16))
    depth = depth_behind(points, faces, fragments.pix_to_face)
    torch.testing.assert_close(depth[fragments.mask], fragments.depth[fragments.mask])
    assert (depth[~fragments.mask] > 1e5).all()


def flat_scene(normal: Tensor, colors: Tensor) -> Scene:
    """One square that fills a picture of 8 pixels."""
    corners = torch.tensor([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]])
    points = torch.tensor([[-99.0, 99, 10], [99, 99, 10], [99, -99, 10], [-99, -99, 10]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    details = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(4, 4)
    materials = torch.full((2,), int(PLAIN), dtype=torch.int32)
    return Scene(
        corners[None], points[None], normal.expand(1, 4, 3), colors.expand(4, 3), details, faces, materials,
        torch.zeros(2, 2, 3), torch.zeros(2, 3),
    )  # fmt: skip


def test_a_dull_surface_shows_albedo_times_all_the_light() -> None:
    slant = torch.tensor([0.6, 0.0, 0.8])
    scene = flat_scene(slant, torch.tensor([0.5, 0.6, 0.7]))
    soft = torch.zeros(1, 3, 9)
    soft[..., 0] = 0.3 / BAND_0
    key, strength, flash = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.2, 0.3, 0.1]]), torch.tensor([[0.1] * 3])
    light = Light(soft.flatten(1), key, strength, flash, torch.ones(2, 4, 3), torch.eye(3)[None])
    picture = draw(scene, light, scene.seen(8), torch.zeros(1, 8, 8, 3))
    middle = picture[0, :, 4, 4]
    to_eye = math.cos(math.atan2(0.6, 0.8))
    arriving = 0.3 + strength[0] * 0.8 + 0.1 * to_eye
    expected = encode(torch.tensor([0.5, 0.6, 0.7]) ** 2.2 * arriving)
    torch.testing.assert_close(middle, expected, atol=0.02, rtol=0)
    behind = draw(scene, light, torch.full((1, 16, 16), -1), torch.full((1, 8, 8, 3), 0.25))
    torch.testing.assert_close(behind, torch.full_like(behind, 0.25 ** (1 / 2.2)), atol=1e-4, rtol=0)


def test_a_ball_does_not_shade_its_own_slopes() -> None:
    """Light from aside fades with the cosine, without stripes where the surface slopes away from the lamp."""
    ball, size, focal = trimesh.creation.icosphere(5, 1.2), 128, 400.0
    posed = torch.tensor(ball.vertices).float()[None]
    depth = 10 - posed[..., 2]
    middle = size / 2
    points = torch.stack([middle + focal * posed[..., 0] / depth, middle - focal * posed[..., 1] / depth, depth], -1)
    faces, count = torch.tensor(ball.faces), len(ball.vertices)
    details = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4)
    materials = torch.full((len(faces),), int(PLAIN), dtype=torch.int32)
    gray = torch.full((count, 3), 0.5)
    scene = Scene(posed, points, posed / 1.2, gray, details, faces, materials, torch.zeros(2, 2, 3), torch.zeros(2, 3))
    key = torch.nn.functional.normalize(torch.tensor([[0.9, 0.3, 0.3]]), dim=1)
    light = Light(torch.zeros(1, 27), key, torch.ones(1, 3), torch.zeros(1, 3), torch.ones(2, 4, 3), torch.eye(3)[None])
    picture = draw(scene, light, scene.seen(size), torch.zeros(1, size, size, 3))[0, 0]
    place = torch.arange(size) + 0.5 - middle
    ray = torch.stack([place.expand(size, -1), -place[:, None].expand(-1, size), torch.full((size, size), -focal)], -1)
    ray = torch.nn.functional.normalize(ray, dim=-1)
    along = 10 * -ray[..., 2]
    reach = 1.2**2 - 100 + along.square()
    met = torch.tensor([0.0, 0.0, 10.0]) + (along - reach.clamp_min(0).sqrt())[..., None] * ray
    cosine = (met / 1.2) @ key[0]
    sure = (reach > 0.1) & (cosine > 0.1)
    expected = encode(0.5**2.2 * cosine.clamp_min(0))
    assert sure.sum() > 1500 and (picture - expected)[sure].abs().max() < 0.03


def test_the_lights_frame_looks_away_from_it() -> None:
    direction = torch.nn.functional.normalize(torch.randn(9, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    frame = light_frame(direction)
    torch.testing.assert_close(frame @ frame.transpose(1, 2), torch.eye(3).expand(9, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(frame[:, 2], -direction)
