"""Registration against libraries and general optimizers, and the errors measured after it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from losses.metrics import InnerMouthError, PointToPlaneError, inner_mouth_error, point_to_plane_error
from losses.metrics.registration import Residual, Ruler, icp, register, residuals
from losses.metrics.similarity import Similarity, umeyama
from losses.metrics.surface import PointCloud, Surface, TriangleMesh

RULERS: tuple[Ruler, Ruler] = ("surface", "points")
STAY = Similarity(1.0, np.eye(3), np.zeros(3))


def relief(side: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) points and unit normals of a bumpy height field without symmetry, about two units wide."""
    across = np.linspace(-1, 1, side)
    x, y = np.meshgrid(across, across)
    phase = np.random.default_rng(seed).uniform(0, 0.4, 3)
    z = 0.6 - 0.5 * x**2 - 0.3 * y**2 + 0.12 * np.sin(4 * x + phase[0]) + 0.1 * np.cos(3 * y + x + phase[1])
    dx = -x + 0.48 * np.cos(4 * x + phase[0]) - 0.1 * np.sin(3 * y + x + phase[1])
    dy = -0.6 * y - 0.3 * np.sin(3 * y + x + phase[1])
    normals = np.stack([-dx, -dy, np.ones_like(x)], axis=-1).reshape(-1, 3)
    return np.stack([x, y, z], axis=-1).reshape(-1, 3), normals / np.linalg.norm(normals, axis=1, keepdims=True)


def relief_mesh(side: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The relief's (N, 3) points and its (F, 3) triangles."""
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    right, up, both = corner + 1, corner + side, corner + side + 1
    return relief(side, seed)[0], np.concatenate([np.stack([corner, right, both], 1), np.stack([corner, both, up], 1)])


def plane_distances(points: np.ndarray, surface: Surface) -> np.ndarray:
    """(N,) signed."""
    return residuals(points, surface.nearest(points))[0]


def moved(angles: tuple[float, float, float], scale: float, shift: tuple[float, float, float]) -> Similarity:
    return Similarity(scale, Rotation.from_euler("xyz", angles).as_matrix(), np.array(shift))


def test_umeyama_equals_trimeshs_procrustes_and_a_general_optimizers_least_squares() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(30, 3))
    targets = moved((2.0, -0.4, 1.0), 1.7, (3.0, 0.0, -1.0)).apply(points) + generator.normal(0, 0.3, (30, 3))
    rigid = trimesh.registration.procrustes(points, targets, reflection=False, scale=False)[1]
    np.testing.assert_allclose(umeyama(points, targets, scale=False).apply(points), rigid, atol=1e-9)

    def errors(v: np.ndarray) -> np.ndarray:
        placed = Similarity(v[6], Rotation.from_rotvec(v[:3]).as_matrix(), v[3:6]).apply(points)
        return (placed - targets).ravel()

    found = umeyama(points, targets)
    start = np.array([*Rotation.from_matrix(found.rotation).as_rotvec() + 0.1, *found.translation - 0.1, 1.0])
    best = least_squares(errors, start, xtol=1e-12, ftol=1e-12).x
    np.testing.assert_allclose((found.apply(points) - targets).ravel(), errors(best), atol=1e-5)


def test_umeyama_never_mirrors() -> None:
    points = np.random.default_rng(1).normal(size=(20, 3))
    found = umeyama(points, points * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1) and found.scale > 0


def test_similarities_follow_each_other() -> None:
    points = np.random.default_rng(2).normal(size=(5, 3))
    first, second = moved((0.1, 0.2, 0.3), 2.0, (1, 2, 3)), moved((-1.0, 0.5, 0.0), 0.4, (0, -1, 0))
    np.testing.assert_allclose(second.after(first).apply(points), second.apply(first.apply(points)))


def test_icp_undoes_a_similarity() -> None:
    points, normals = relief()
    away = moved((0.08, -0.1, 0.06), 1.06, (0.05, -0.03, 0.04)).apply(points)
    found = icp(away, PointCloud(points, normals), STAY)
    np.testing.assert_allclose(found.apply(away), points, atol=1e-6)
    stiff = icp(away, PointCloud(points, normals), STAY, scale=False)
    assert stiff.scale == 1.0
    assert np.abs(stiff.apply(away) - points).max() > 0.01


@pytest.mark.parametrize("scale", [True, False])
def test_icp_finds_the_optimum_that_a_general_optimizer_finds(scale: bool) -> None:
    """Of the mean squared point-to-plane distance over angles, shift and (log) size."""
    points, normals = relief()
    other = relief(seed=3)[0][::3] + np.random.default_rng(4).normal(0, 0.01, (192, 3))
    cloud = PointCloud(points, normals)

    def errors(v: np.ndarray) -> np.ndarray:
        size = float(np.exp(v[6])) if scale else 1.0
        return plane_distances(Similarity(size, Rotation.from_rotvec(v[:3]).as_matrix(), v[3:6]).apply(other), cloud)

    # Neighbours jump, so that the general optimizer starts anew where it stopped.
    best = np.zeros(7)
    for _ in range(5):
        best = least_squares(errors, best, x_scale="jac").x
    mine = plane_distances(icp(other, cloud, STAY, scale).apply(other), cloud)
    assert (mine**2).mean() <= (errors(best) ** 2).mean() * 1.02


def test_icp_is_as_close_as_trimeshs() -> None:
    points, normals = relief()
    away = moved((0.05, 0.08, -0.04), 1.04, (0.03, 0.02, -0.02)).apply(points[::2])
    theirs = trimesh.registration.icp(away, points, max_iterations=100, reflection=False)[1]
    mine = icp(away, PointCloud(points, normals), STAY).apply(away)
    assert away_by(points, mine) <= away_by(points, theirs) + 1e-9


def away_by(points: np.ndarray, others: np.ndarray) -> float:
    """Mean distance of `others` to the nearest of `points`."""
    return float(np.sqrt(((others[:, None] - points) ** 2).sum(-1)).min(axis=1).mean())


@pytest.mark.parametrize("ruler", RULERS)
@pytest.mark.parametrize("kind", ["plane", "point"])
def test_registration_to_triangles_undoes_a_similarity(kind: Residual, ruler: Ruler) -> None:
    points, faces = relief_mesh()
    away = moved((0.08, -0.1, 0.06), 1.06, (0.05, -0.03, 0.04)).apply(points)
    found = icp(away, TriangleMesh(points, faces), STAY, kind=kind, ruler=ruler)
    np.testing.assert_allclose(found.apply(away), points, atol=1e-8)


@pytest.mark.parametrize("ruler", RULERS)
def test_icp_measures_by_the_ruler_that_a_general_optimizer_is_told(ruler: Ruler) -> None:
    points, faces = relief_mesh()
    other = relief(seed=3)[0][::7] + np.random.default_rng(4).normal(0, 0.05, (83, 3))
    mesh = TriangleMesh(points, faces)

    def errors(v: np.ndarray) -> np.ndarray:
        size = float(np.exp(v[6]))
        placed = Similarity(size, Rotation.from_rotvec(v[:3]).as_matrix(), v[3:6]).apply(other)
        distance = np.sqrt(((placed - mesh.nearest(placed).places) ** 2).sum(-1))
        return distance / size if ruler == "points" else distance

    best = np.zeros(7)
    for _ in range(4):
        best = least_squares(errors, best, x_scale="jac").x
    found = icp(other, mesh, STAY, kind="point", ruler=ruler)
    placed = found.apply(other)
    mine = residuals(placed, mesh.nearest(placed), "point")[0] / (found.scale if ruler == "points" else 1)
    assert (mine**2).mean() <= (errors(best) ** 2).mean() * 1.02


def test_points_that_are_the_ruler_do_not_shrink_to_lie_closer() -> None:
    points, faces = relief_mesh()
    rough = points[::7] + np.random.default_rng(4).normal(0, 0.05, (83, 3))
    mesh = TriangleMesh(points, faces)
    by_surface, by_points = (icp(rough, mesh, STAY, kind="point", ruler=ruler).scale for ruler in RULERS)
    assert by_surface < by_points


def test_many_points_are_registered_as_well_in_two_rounds_as_in_one() -> None:
    points, faces = relief_mesh(60)
    mesh = TriangleMesh(points, faces)
    other = relief(100, seed=3)[0]
    away = moved((0.05, 0.08, -0.04), 1.04, (0.03, 0.02, -0.02)).apply(other)
    quick, plain = (function(away, mesh, STAY) for function in (register, icp))
    errors = [(plane_distances(found.apply(away), mesh) ** 2).mean() for found in (quick, plain)]
    assert 1e-6 < errors[0] <= errors[1] * 1.0001


def test_a_registration_never_ends_worse_than_it_began() -> None:
    points, normals = relief()
    cloud = PointCloud(points, normals)
    scattered = np.random.default_rng(5).normal(size=(100, 3))
    found = icp(scattered, cloud, STAY, iterations=3)
    before, after = (plane_distances(x, cloud) for x in (scattered, found.apply(scattered)))
    assert (after**2).mean() <= (before**2).mean()


def test_one_millimetre_along_the_normals_is_one_millimetre() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    normals = np.array(sphere.vertices)
    cloud = PointCloud(sphere.vertices, normals)
    grown, shrunk = sphere.vertices + 0.01 * normals, sphere.vertices - 0.01 * normals
    np.testing.assert_allclose(plane_distances(grown, cloud), 0.01, atol=1e-12)
    np.testing.assert_allclose(plane_distances(shrunk, cloud), -0.01, atol=1e-12)
    # Without scale nothing can take it away, with scale all of it goes: a larger sphere is a sphere.
    stiff = icp(grown, cloud, STAY, scale=False).apply(grown)
    assert np.abs(plane_distances(stiff, cloud)).mean() == pytest.approx(0.01, rel=1e-3)
    loose = icp(grown, cloud, STAY).apply(grown)
    assert np.abs(plane_distances(loose, cloud)).max() < 1e-6


def test_point_to_plane_error_is_blind_to_similarities_and_tells_bumps_in_millimetres() -> None:
    points, normals = relief()
    true, true_normals = (torch.as_tensor(np.stack([a, a])) for a in (points, normals))
    turned = moved((1.0, 0.5, -2.0), 1.5, (4.0, 0.0, 1.0)).apply(points)
    bumps = np.where(np.arange(len(points)) % 2, 0.01, -0.01)[:, None] * normals
    predicted = torch.as_tensor(np.stack([turned, points + bumps]))
    errors = point_to_plane_error(predicted, true, true_normals)
    assert float(errors[0]) == pytest.approx(0, abs=1e-6)
    assert float(errors[1]) == pytest.approx(1.0, rel=0.02)


def test_point_to_plane_metric_averages_and_a_nan_shows() -> None:
    points, normals = relief()
    true, true_normals = torch.as_tensor(points)[None].float(), torch.as_tensor(normals)[None].float()
    rough = true + 0.02 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    metric = PointToPlaneError()
    metric.update(true, true, true_normals)
    metric.update(rough, true, true_normals)
    expected = float(point_to_plane_error(rough, true, true_normals)) / 2
    assert expected > 0.1 and float(metric.compute()) == pytest.approx(expected, abs=1e-4)
    metric.update(torch.full_like(true, math.nan), true, true_normals)
    assert metric.compute().isnan()


def test_inner_mouth_error_is_of_eight_landmarks_after_the_mean_shift() -> None:
    indices = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:68]
    true = torch.rand(2, 200, 3, dtype=torch.float64)
    predicted = true.clone()
    predicted[0, indices[60:68]] += torch.tensor([0.03, 0.0, 0.04], dtype=torch.float64)
    predicted[1, indices[:60]] += 1.0  # nothing of the mouth, but for the mean
    errors = inner_mouth_error(predicted, true, indices)
    # 8 of 200 vertices move by 5 mm, and 60 by 100 mm along each axis.
    assert errors.tolist() == pytest.approx([5 * (1 - 8 / 200), 100 * math.sqrt(3) * 60 / 200])
    torch.testing.assert_close(inner_mouth_error(predicted + 7, true, indices), errors)
    metric = InnerMouthError(indices)
    metric.update(predicted, true)
    assert float(metric.compute()) == pytest.approx(float(errors.mean()))
