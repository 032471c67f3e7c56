"""The nearest points of meshes against trimesh, brute force and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from losses.metrics.surface import PointCloud, TriangleMesh
from tests.losses.test_registration import relief, relief_mesh


def soup(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(3N, 3) and (N, 3): triangles that know nothing of each other, some of them needles."""
    generator = np.random.default_rng(seed)
    corners = generator.normal(size=(count, 1, 3)) + 0.3 * generator.normal(size=(count, 3, 3))
    corners[::5, 2] = corners[::5, 1] + 1e-3 * generator.normal(size=(len(corners[::5]), 3))
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def of_every_face(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest places (N, 3) and distances (N,) by trying each face for each point, with trimesh's own formula."""
    triangles = vertices[faces]
    places = np.empty_like(points)
    for row, point in enumerate(points):
        every = trimesh.triangles.closest_point(triangles, np.repeat(point[None], len(triangles), axis=0))
        places[row] = every[((every - point) ** 2).sum(axis=1).argmin()]
    return places, np.linalg.norm(places - points, axis=1)


@pytest.mark.parametrize("case", ["relief", "soup", "sphere"])
def test_nearest_points_are_those_of_every_face_tried(case: str) -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces = {"relief": relief_mesh, "soup": soup, "sphere": lambda: (sphere.vertices, sphere.faces)}[case]()
    points = np.random.default_rng(1).normal(size=(150, 3))
    found = TriangleMesh(vertices, faces).nearest(points)
    places, distance = of_every_face(np.asarray(vertices), faces, points)
    np.testing.assert_allclose(np.linalg.norm(points - found.places, axis=1), distance, atol=1e-6)
    # Places agree wherever the nearest one is not a tie.
    assert (np.linalg.norm(found.places - places, axis=1) > 1e-5).mean() < 0.02


def test_points_of_a_surface_are_their_own_nearest_to_the_last_digits() -> None:
    """A scan in millimetres far from the origin, where single precision alone would be off by hundredths."""
    vertices, faces = relief_mesh()
    vertices = 100 * vertices + np.array([0.0, 1000.0, -3000.0])
    weights = np.random.default_rng(0).dirichlet(np.ones(3), len(faces))
    points = np.concatenate([vertices, np.einsum("fk,fkc->fc", weights, vertices[faces])])
    found = TriangleMesh(vertices, faces).nearest(points)
    np.testing.assert_allclose(found.places, points, atol=1e-9)


def test_nearest_points_move_with_the_mesh_and_know_no_order() -> None:
    vertices, faces = relief_mesh()
    points = vertices[::5] + np.random.default_rng(0).normal(0, 0.1, vertices[::5].shape)
    expected = TriangleMesh(vertices, faces).nearest(points)
    rotation = Rotation.from_euler("xyz", (1.0, 0.4, -2.0)).as_matrix()
    turned = TriangleMesh(3 * vertices @ rotation.T + 5, faces).nearest(3 * points @ rotation.T + 5)
    np.testing.assert_allclose(turned.places, 3 * expected.places @ rotation.T + 5, atol=1e-5)
    np.testing.assert_array_equal(turned.border, expected.border)
    order = np.random.default_rng(1).permutation(len(vertices))
    rank = np.argsort(order)
    shuffled = TriangleMesh(vertices[order], rank[faces][::-1]).nearest(points)
    np.testing.assert_allclose(shuffled.places, expected.places, atol=1e-6)


def test_the_border_is_the_open_rim_and_no_seam() -> None:
    vertices, faces = relief_mesh(12)
    # Every face with corners of its own, as an OBJ with a texture may have them.
    vertices, faces = vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)
    mesh = TriangleMesh(vertices, faces)
    inside = relief(11)[0] * [0.9, 0.9, 1]
    beyond = np.array([[1.5, 0.1, 0.0], [-1.2, 1.3, 0.0], [0.0, -1.1, -0.1], [1.4, -1.5, 0.2]])
    assert not mesh.nearest(inside).border.any()
    assert mesh.nearest(beyond).border.all()
    assert mesh.nearest(vertices).border.sum() == (np.abs(vertices[:, :2]).max(axis=1) > 1 - 1e-9).sum()
    sphere = trimesh.creation.icosphere(subdivisions=1)
    closed = TriangleMesh(sphere.vertices, sphere.faces)
    assert not closed.nearest(2 * sphere.vertices).border.any()


def test_faces_without_area_are_passed_over() -> None:
    vertices, faces = relief_mesh(8)
    dirty = np.concatenate([[[0, 0, 5], [3, 3, 3]], faces])
    points = np.random.default_rng(0).normal(size=(40, 3))
    expected = TriangleMesh(vertices, faces).nearest(points)
    np.testing.assert_allclose(TriangleMesh(vertices, dirty).nearest(points).places, expected.places)


def test_what_is_no_surface_is_refused() -> None:
    vertices, faces = relief_mesh(4)
    broken = vertices.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        TriangleMesh(broken, faces)
    with pytest.raises(ValueError, match="name no vertex"):
        TriangleMesh(vertices, faces + 1)
    for none in (np.zeros((0, 3), dtype=int), np.array([[0, 1, 1]])):
        with pytest.raises(ValueError, match="no face with an area"):
            TriangleMesh(vertices, none)
    with pytest.raises(ValueError, match="no nearest"):
        TriangleMesh(vertices, faces).nearest(broken)


def test_normals_are_unit_and_of_the_face_or_of_the_nearest_vertex() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    points = 1.3 * np.random.default_rng(0).normal(size=(100, 3))
    outwards = points / np.linalg.norm(points, axis=1, keepdims=True)
    for surface in (TriangleMesh(sphere.vertices, sphere.faces), PointCloud(sphere.vertices, sphere.vertices)):
        normals = surface.nearest(points).normals
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
        assert (normals * outwards).sum(axis=1).min() > 0.98
        assert surface.extent == pytest.approx(2, abs=1e-3)
