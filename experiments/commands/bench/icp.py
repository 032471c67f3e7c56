"""Registration of a face to a scan: nearest points against a search of every face, the whole against a plain loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_mesh
from losses.metrics.registration import register
from losses.metrics.similarity import Similarity
from losses.metrics.surface import TriangleMesh

FACES = 70_789
QUERIES = 8  # of which every face is asked
TURN = 0.05  # radians
SHIFT = 0.03  # decimetres


def moved_points(vertices: np.ndarray) -> np.ndarray:
    """(V, 3) a little turned and shifted."""
    return vertices @ Rotation.from_rotvec([TURN, -TURN, TURN]).as_matrix().T + SHIFT


def search_every_face(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N, 3) places on (F, 3, 3) triangles that are nearest to (N, 3) points, by trimesh's formula for one triangle."""
    places = []
    for point in points:
        found = trimesh.triangles.closest_point(triangles, np.broadcast_to(point, (len(triangles), 3)))
        places.append(found[np.square(found - point).sum(axis=1).argmin()])
    return np.array(places)


def plain_icp(points: np.ndarray, scan: np.ndarray, normals: np.ndarray, iterations: int = 50) -> np.ndarray:
    """(N, 3) points registered to a scan's vertices (M, 3): every point in every step, linear least squares of turn,
    shift and scale, until the error stands still.
    """
    tree, before = cKDTree(scan), np.inf
    for _ in range(iterations):
        rows = tree.query(points)[1]
        direction = normals[rows]
        distance = ((points - scan[rows]) * direction).sum(axis=1)
        error = float(np.mean(distance**2))
        if error > before * (1 - 1e-6):
            break
        before = error
        growth = (points * direction).sum(axis=1, keepdims=True)
        design = np.hstack([np.cross(points, direction), direction, growth])
        change = np.linalg.lstsq(design, -distance, rcond=None)[0]
        points = (1 + change[6]) * points @ Rotation.from_rotvec(change[:3]).as_matrix().T + change[3:6]
    return points


def run(device: torch.device) -> Iterator[Row]:
    """Two rows; the registration itself steps on the CPU whatever the device, which then answers the queries."""
    vertices, faces, _ = face_like_mesh(FACES)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    normals = np.asarray(mesh.vertex_normals)
    points = moved_points(vertices)
    scan = TriangleMesh(vertices, faces, str(device) if device.type == "cpu" else None)

    def ours() -> object:
        return scan.nearest(points)

    few = points[:: len(points) // QUERIES]
    share = len(points) / len(few)
    case = f"nearest points: {len(points):,} points, {len(faces):,} faces"
    yield race(
        "icp", case, device, ours, "every face, by trimesh", lambda: search_every_face(few, vertices[faces]),
        share=share,
    )  # fmt: skip
    start = Similarity(1.0, np.eye(3), np.zeros(3))
    case = f"registration: {len(points):,} points to {len(faces):,} faces"
    yield race(
        "icp", case, device, lambda: register(points, scan, start),
        "SciPy, every point in every step", lambda: plain_icp(points, vertices, normals), budget_s=6.0,
    )  # fmt: skip
