"""Files in the layout of BFM 2017/2019 and of AlbedoMM, made of the embedded default; no licensed data is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from renderers.face_models.default.model import load_default

IDENTITY, EXPRESSION, COLOR, ALBEDO = 9, 6, 7, 5  # 199, 100, 199 and 145 in the licensed files
TURN = np.radians(4.0)


@dataclass(frozen=True)
class FakeFace:
    """What a file holds, and what is known of it besides.

    Attributes:
        arrays: the file's arrays by name.
        landmarks: (68,) the iBUG points' true vertices, or those nearest to them where the mesh is another one.
        places: (68, 3) millimetres, where they truly are.
        regions: the default's regions, on this face's vertices.
    """

    arrays: dict[str, np.ndarray]
    landmarks: np.ndarray
    places: np.ndarray
    regions: dict[str, np.ndarray]


# As the files name them, and the iBUG point (from 0) of each; right is the person's, and lies at negative x.
NAMED_POINTS = {
    "center.chin.tip": 8, "center.nose.tip": 30, "right.eye.corner_outer": 36, "right.eye.corner_inner": 39,
    "left.eye.corner_inner": 42, "left.eye.corner_outer": 45, "right.lips.corner": 48, "left.lips.corner": 54,
    "center.lips.upper.outer": 51, "center.lips.lower.outer": 57, "right.lips.philtrum_ridge": 50,
    "left.lips.philtrum_ridge": 52, "center.nose.attachement_to_philtrum": 33,
}  # fmt: skip


def fake_bfm_h5(
    seed: int = 0, subdivide: int = 0, identity: float = 0.5, warp: float = 0.0, other_mesh: bool = False
) -> FakeFace:
    """A person of the default in millimetres, moved, turned, bent and with the vertices in another order.

    Args:
        seed: of everything drawn.
        subdivide: of the default: 4K, 16K or 65K vertices.
        identity: how many standard deviations the person is from the mean.
        warp: millimetres of a smooth displacement that no identity of the default explains.
        other_mesh: every vertex slides along an edge, so that none is the default's.
    """
    rng = np.random.default_rng(seed)
    model = load_default(subdivide)
    points = model.mean_shape.double().numpy()
    points = points + model.identity_basis.double().numpy() @ (identity * rng.standard_normal(model.identity_size))
    points = 100 * points + warp * _waves(rng, points)
    cosine, sine = np.cos(TURN), np.sin(TURN)
    points = 1.04 * points @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) + [3.0, -20.0, 45.0]
    places, corners = points[model.landmark_indices.numpy()], model.faces.numpy()
    if other_mesh:
        neighbour = np.arange(len(points))
        for one, two in rng.permutation([(0, 1), (1, 2), (2, 0)]):
            neighbour[corners[:, one]] = corners[:, two]
        points = points + rng.uniform(0.1, 0.4, (len(points), 1)) * (points[neighbour] - points)
    nearest = np.linalg.norm(points - places[:, None], axis=2).argmin(axis=1)
    order = rng.permutation(len(points))  # of the file's vertices
    rank = np.argsort(order)
    points, flat = points[order], points[order].ravel()
    expression_mean = rng.normal(0, 0.05, len(flat))
    arrays = {
        "shape/representer/points": points.T.astype(np.float32),
        "shape/representer/cells": rank[corners].T.astype(np.int32),
        **_part(rng, "shape", flat - expression_mean, IDENTITY, 400.0),
        **_part(rng, "expression", expression_mean, EXPRESSION, 100.0),
        **_part(rng, "color", rng.uniform(0.2, 0.8, len(flat)), COLOR, 4.0),
    }
    regions = {name: np.sort(rank[members.numpy()]) for name, members in model.regions.items()}
    return FakeFace(arrays, rank[nearest], places, regions)


def named_landmarks(fake: FakeFace) -> str:
    """What a file has at metadata/landmarks/json: vertices of its reference mesh, and points of a wider cropping."""
    mesh = fake.arrays["shape/representer/points"].T
    points = {name: mesh[fake.landmarks[point]].tolist() for name, point in NAMED_POINTS.items()}
    entries: list[dict[str, object]] = [{"id": name, "coordinates": point} for name, point in points.items()]
    entries.append({"id": "left.ear.tragus.tip", "coordinates": [200.0, 0.0, -80.0], "description": "of the full head"})
    return json.dumps(entries)


def fake_albedo(vertices: int, seed: int = 0) -> dict[str, np.ndarray]:
    """AlbedoMM's arrays for a face of so many vertices."""
    rng = np.random.default_rng(seed)
    diffuse, specular = rng.uniform(0.05, 0.6, 3 * vertices), rng.uniform(0.02, 0.2, 3 * vertices)
    return {
        **_part(rng, "diffuseAlbedo", diffuse, ALBEDO, 2.0),
        **_part(rng, "specularAlbedo", specular, ALBEDO, 0.5),
    }


def _part(rng: np.random.Generator, name: str, mean: np.ndarray, modes: int, variance: float) -> dict[str, np.ndarray]:
    basis, _ = np.linalg.qr(rng.standard_normal((len(mean), modes)))
    return {
        f"{name}/model/mean": mean.astype(np.float32),
        f"{name}/model/pcaBasis": basis.astype(np.float32),
        f"{name}/model/pcaVariance": (variance / (1 + np.arange(modes))).astype(np.float32),
    }


def _waves(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """(V, 3) a smooth random displacement with a root mean square of about 1 in each direction."""
    phase = points @ rng.normal(0, 2.5, (3, 12)) + rng.uniform(0, 2 * np.pi, 12)
    return np.cos(phase) @ rng.standard_normal((12, 3)) / np.sqrt(6)
