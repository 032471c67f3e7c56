"""A folder in the layout of ICT-FaceKit's light model, made of the embedded default."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel

FACE = 9409  # vertices of the face area, as in the true files
EXPRESSIONS = ("browDown_L", "jawOpen", "mouthSmile_R")
IDENTITIES = 2


@dataclass(frozen=True)
class FakeICT:
    """What the folder holds, and what is known of it besides.

    Attributes:
        vertices: (W, 3) centimetres of the neutral mesh: the face area first, then what lies around it.
        modes: by file name without suffix, (W, 3) centimetres added to the neutral mesh.
        faces: (F, 3) triangles of all, counter-clockwise seen from outside.
        landmarks: (68,) vertices.
        uv: (W, 2)
        default: the model it was made of, at the finer level.
        order: (W,) which of the default's vertices each one is.
    """

    vertices: np.ndarray
    modes: dict[str, np.ndarray]
    faces: np.ndarray
    landmarks: np.ndarray
    uv: np.ndarray
    default: LinearModel
    order: np.ndarray


def fake_ict(seed: int = 0) -> FakeICT:
    """The default of 16K vertices as a person, those nearest to the face's middle first."""
    rng = np.random.default_rng(seed)
    model = load_default(1)
    points = model.mean_shape.double().numpy()
    points = points + model.identity_basis.double().numpy() @ (0.4 * rng.standard_normal(model.identity_size))
    marks = model.landmark_indices.numpy()
    far = np.linalg.norm((points - points[marks].mean(axis=0)) * [1.0, 0.8, 0.5], axis=1)
    far[np.union1d(model.regions["eyes"].numpy(), model.regions["inner_mouth"].numpy())] += 10  # parts of their own
    far[marks] = 0  # all of them lie in the face area
    order = np.argsort(far, kind="stable")
    rank = np.argsort(order)
    basis = np.concatenate([model.identity_basis.numpy(), model.expression_basis.numpy()], axis=-1)
    names = [f"identity{number:03d}" for number in range(IDENTITIES)] + list(EXPRESSIONS)
    columns = [*range(IDENTITIES), *(model.identity_size + 5 * k for k in range(len(EXPRESSIONS)))]
    return FakeICT(
        vertices=10 * points[order] + [0.0, 2.0, 5.0],
        modes={name: 10.0 * basis[order, :, column] for name, column in zip(names, columns, strict=True)},
        faces=rank[model.faces.numpy()],
        landmarks=rank[marks],
        uv=model.uv.numpy()[order],
        default=model,
        order=order,
    )


def write_fake_ict(folder: Path, fake: FakeICT) -> Path:
    """Writes the folder as published: OBJ files with quads and a UV for each corner, and `vertex_indices.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    polygons = "".join(
        "f " + " ".join(f"{vertex + 1}/{vertex + 1}" for vertex in polygon) + "\n" for polygon in quads(fake.faces)
    )
    tail = rows("vt", fake.uv) + "usemtl skin\n" + polygons
    shapes = {"generic_neutral_mesh": 0.0, **fake.modes}
    for name, mode in shapes.items():
        (folder / f"{name}.obj").write_text("mtllib skin.mtl\n" + rows("v", fake.vertices + mode) + tail)
    indices = {
        "expressions": list(EXPRESSIONS),
        "idx_to_landmark_verts": fake.landmarks.tolist(),
        "idx_to_rigid_landmark_idx": [0, 36, 39],
    }
    (folder / "vertex_indices.json").write_text(json.dumps(indices))
    return folder


def rows(kind: str, values: np.ndarray) -> str:
    """Lines of an OBJ file."""
    return "".join(f"{kind} " + " ".join(f"{value:.9f}" for value in row) + "\n" for row in values)


def quads(faces: np.ndarray) -> list[tuple[int, ...]]:
    """Triangles, joined in pairs where they share an edge; the fan about a quad's first corner gives them back."""
    side_of = {(face[k], face[k - 2]): number for number, face in enumerate(faces.tolist()) for k in range(3)}
    joined: list[tuple[int, ...]] = []
    taken = np.zeros(len(faces), dtype=bool)
    for number, (a, b, c) in enumerate(faces.tolist()):
        if taken[number]:
            continue
        taken[number] = True
        other = side_of.get((a, c))  # across the edge from c back to a
        if other is None or taken[other]:
            joined.append((a, b, c))
            continue
        taken[other] = True
        (fourth,) = set(faces[other].tolist()) - {a, c}
        joined.append((a, b, c, fourth))
    return joined
