"""A folder in the layout of FLAME's own files, made of the embedded default and random numbers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from renderers.face_models.default.model import load_default

SHAPE, EXPRESSION = 300, 60  # columns of `shapedirs`; 300 and 100 in the true file
PARENTS = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32)  # as the true file writes them
TURNS, JAW = 79, 17


@dataclass(frozen=True)
class FakeFlame:
    """What the files hold.

    Attributes:
        arrays: of the model's pickle, metres.
        triangles: (68,) the triangles of the landmarks.
        weights: (68, 3) barycentric coordinates in them.
        contour: (79, 17) triangles of the jaw line.
        contour_weights: (79, 17, 3)
    """

    arrays: dict[str, np.ndarray]
    triangles: np.ndarray
    weights: np.ndarray
    contour: np.ndarray
    contour_weights: np.ndarray


def fake_flame(seed: int = 0) -> FakeFlame:
    """The default's mean face in metres with random modes, and joints that turn its lower part."""
    generator = np.random.default_rng(seed)
    model = load_default()
    points = model.mean_shape.double().numpy() / 10 + [0.0, 0.02, 0.03]
    count = len(points)
    shapedirs = 1e-4 * generator.standard_normal((count, 3, SHAPE + EXPRESSION))
    height = (points[:, 1] - points[:, 1].min()) / np.ptp(points[:, 1])
    weights = np.zeros((count, 5))
    weights[:, 2] = np.clip(0.4 - height, 0, None) / 0.4
    weights[:, 1] = 1 - weights[:, 2]
    regressor, rear = np.zeros((5, count)), np.argsort(points[:, 2])[:60]  # joints lie far back in the head
    for joint in range(5):
        regressor[joint, generator.choice(rear, 6, replace=False)] = 1 / 6
    faces = model.faces.numpy()
    holding = {int(vertex): number for number, face in enumerate(faces) for vertex in face}
    triangles = np.array([holding[int(mark)] for mark in model.landmark_indices])
    corner = (faces[triangles] == model.landmark_indices.numpy()[:, None]).astype(float)
    barycentric = 0.8 * corner + 0.2 / 3
    turned = np.tile(triangles[:JAW], (TURNS, 1))
    # At a positive yaw the points of the +x side lie further in front: on the mouth's corner here.
    turned[TURNS // 2, JAW // 2 + 1 :] = triangles[54]
    turned[-1, : JAW // 2] = triangles[48]
    return FakeFlame(
        arrays={
            "v_template": points,
            "shapedirs": shapedirs.astype(np.float32),
            "posedirs": 1e-4 * generator.standard_normal((count, 3, 36)),
            "J_regressor": regressor,
            "kintree_table": PARENTS,
            "weights": weights,
            "f": faces.astype(np.uint32),
        },
        triangles=triangles,
        weights=barycentric,
        contour=turned,
        contour_weights=np.tile(barycentric[:JAW], (TURNS, 1, 1)),
    )


def write_fake_flame(folder: Path, fake: FakeFlame, embedding: str = "whole") -> Path:
    """Writes `generic_model.pkl` and the landmarks: "whole", "static", "static and dynamic" or "none"."""
    folder.mkdir(parents=True, exist_ok=True)
    held = {**fake.arrays, "J_regressor": sparse.csc_matrix(fake.arrays["J_regressor"]), "bs_style": "lbs"}
    (folder / "generic_model.pkl").write_bytes(pickle.dumps(held, 2))
    if embedding == "whole":
        content = {
            "full_lmk_faces_idx": fake.triangles[None],
            "full_lmk_bary_coords": fake.weights[None],
            "dynamic_lmk_faces_idx": fake.contour,
            "dynamic_lmk_bary_coords": fake.contour_weights,
        }
        np.save(folder / "landmark_embedding.npy", content, allow_pickle=True)  # type: ignore[arg-type]
    if embedding.startswith("static"):
        inner = {"lmk_face_idx": fake.triangles[JAW:].astype(np.uint32), "lmk_b_coords": fake.weights[JAW:]}
        (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(inner, 2))
    if embedding.endswith("dynamic"):
        jaw = {"lmk_face_idx": fake.contour, "lmk_b_coords": fake.contour_weights}
        np.save(folder / "flame_dynamic_embedding.npy", jaw, allow_pickle=True)  # type: ignore[arg-type]
    return folder
