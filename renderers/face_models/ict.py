"""Reader of ICT-FaceKit's light face model: a folder of OBJ files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from renderers.face_models.linear import LinearModel
from renderers.face_models.mesh_edit import edges_of
from renderers.face_models.open_face import cylindrical_uv, height_fault, towards_viewer
from renderers.io.errors import UserError
from renderers.io.obj_file import ObjError, ObjMesh, read_obj, read_obj_vertices
from renderers.landmarks68 import LANDMARKS

NEUTRAL, INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"
LANDMARK_KEY, EXPRESSION_KEY = "idx_to_landmark_verts", "expressions"
FACE_VERTICES = 9409  # the first ones: the face area, without the back of the head, eyeballs, teeth and lashes
CENTIMETRES = 10.0  # in a decimetre
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")  # of an expression, which is also that of its file
MOST_NAMES = 500
LARGEST_INDICES = 2**24  # bytes; the published file has 184 KB
Content = TypeVar("Content")


def load_ict(folder: str | Path) -> LinearModel:
    """Read ICT-FaceKit's light model (Li et al. 2020), the folder `FaceXModel` of its repository.

    The folder holds `generic_neutral_mesh.obj` (26,719 vertices, quads, about centimetres), `identity000.obj` to
    `identity099.obj` and an OBJ for each of the 53 expressions, of the same vertices, and `vertex_indices.json` with
    the expressions' names and the 68 landmarks' vertices. The face area is kept: the first 9,409 vertices, and the
    triangles of their quads. A mode is the difference from the neutral mesh; identities are in standard deviations,
    expressions are blend weights from 0 to 1. Names follow ARKit, `_L` and `_R` written `Left` and `Right`.

    The model has no colours, regions or eyeballs. The embedded default's procedural albedo, specular map and regions
    are carried over (`transfer.transfer_from_default`, started from the landmarks). Its UVs are kept where the face
    area has one for each vertex within [0, 1]; a chart that is cut there gives way to a cylindrical unwrap.

    Args:
        folder: where the files lie.

    Returns:
        The model "ict-facekit", centred on its vertices' mean.

    Raises:
        UserError: a file is absent, malformed, not finite, of another mesh, or a surface that is not a face.
    """
    folder = Path(folder)
    names, landmarks = _read_indices(folder / INDICES)
    mesh = _read(folder / NEUTRAL, read_obj)
    vertices, faces, corners = _face_area(folder / NEUTRAL, mesh)
    uv = _chart(mesh.uv, faces, corners, vertices)
    faces = towards_viewer(vertices, faces)
    identities = [folder / f"{name}.obj" for name in _identity_names(folder)]
    expressions = [folder / f"{name}.obj" for name in names]
    identity, expression = _modes(identities, mesh.vertices), _modes(expressions, mesh.vertices)
    colors, regions = _carried_over(folder, vertices, faces, landmarks)
    return LinearModel(
        name="ict-facekit",
        mean_shape=vertices - vertices.mean(axis=0),
        identity_basis=identity,
        expression_basis=expression,
        expression_names=tuple(_arkit_name(name) for name in names),
        faces=faces,
        landmark_indices=landmarks,
        uv=uv,
        regions=regions,
        **colors,
    )


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not of ICT-FaceKit: {reason}")


def _read(path: Path, reader: Callable[[Path], Content]) -> Content:
    """What the reader makes of an OBJ file."""
    try:
        return reader(path)
    except ObjError as error:
        raise _error(path, str(error)) from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the folder FaceXModel of ICT-FaceKit") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_indices(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the expressions' files, and (68,) landmark vertices."""
    try:
        if path.stat().st_size > LARGEST_INDICES:
            raise _error(path, f"it has more than {LARGEST_INDICES} bytes")
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the folder FaceXModel of ICT-FaceKit") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _error(path, f"it is no JSON file ({type(error).__name__}); is it cut short?") from error
    content = content if isinstance(content, dict) else {}
    names, marks = content.get(EXPRESSION_KEY), content.get(LANDMARK_KEY)
    # A name is made part of a path: nothing that leads elsewhere may be in it.
    if not isinstance(names, list) or not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
        raise _error(path, f"{EXPRESSION_KEY} is no list of names made of letters, digits and _")
    if not 1 <= len(names) <= MOST_NAMES or len(set(names)) != len(names):
        raise _error(path, f"{EXPRESSION_KEY} has {len(names)} names, expected 1 to {MOST_NAMES}, each once")
    if (
        not isinstance(marks, list)
        or len(marks) != LANDMARKS
        or not all(type(mark) is int and 0 <= mark < FACE_VERTICES for mark in marks)
    ):
        wanted = f"{LANDMARKS} whole numbers from 0 to {FACE_VERTICES - 1}"
        raise _error(path, f"{LANDMARK_KEY} does not hold {wanted}, vertices of the face area")
    return tuple(names), np.array(marks, dtype=np.int64)


def _identity_names(folder: Path) -> list[str]:
    found = sorted(path.stem for path in folder.glob("identity[0-9][0-9][0-9].obj"))
    expected = [f"identity{number:03d}" for number in range(len(found))]
    missing = next((wanted for wanted, name in zip(expected, found, strict=True) if wanted != name), None)
    if missing or not found:
        raise UserError(f"{folder}: no {missing or 'identity000'}.obj in it; ICT-FaceKit's are numbered without a gap")
    return found


def _face_area(path: Path, mesh: ObjMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decimetres (V, 3), (F, 3) and the texture coordinates of each corner (F, 3)."""
    if len(mesh.vertices) < FACE_VERTICES:
        raise _error(path, f"it has {len(mesh.vertices)} vertices, expected {FACE_VERTICES} or more: the face area")
    vertices = mesh.vertices[:FACE_VERTICES] / CENTIMETRES
    fault = height_fault(vertices)
    if fault:
        raise _error(path, fault)
    inside = (mesh.triangles < FACE_VERTICES).all(axis=1)
    faces = mesh.triangles[inside]
    if not len(faces):
        raise _error(path, "its face area has no polygon")
    following = np.roll(faces, -1, axis=1)
    if (faces == following).any():
        raise _error(path, "a polygon of its face area names a vertex twice")
    edges, of_side = edges_of(faces)
    crowded = edges[np.bincount(of_side.ravel(), minlength=len(edges)) > 2]
    sides = faces.ravel() * FACE_VERTICES + following.ravel()
    if len(crowded):
        raise _error(path, f"more than two polygons meet along vertices {crowded[0][0]} and {crowded[0][1]}")
    if len(np.unique(sides)) != len(sides):
        raise _error(path, "neighbouring polygons of its face area do not turn the same way")
    return vertices, faces, mesh.corners[inside]


def _modes(paths: list[Path], neutral: np.ndarray) -> np.ndarray:
    """(V, 3, K) decimetres: how each file's face area differs from the neutral one."""
    modes = np.empty((FACE_VERTICES, 3, len(paths)), dtype=np.float32)
    for column, path in enumerate(paths):
        vertices, count = _read(path, lambda file: read_obj_vertices(file, FACE_VERTICES))
        if count != len(neutral):
            raise _error(path, f"it has {count} vertices, {NEUTRAL} has {len(neutral)}")
        modes[:, :, column] = (vertices - neutral[:FACE_VERTICES]) / CENTIMETRES
    return modes


def _arkit_name(name: str) -> str:
    return re.sub("_R$", "Right", re.sub("_L$", "Left", name))


def _chart(uv: np.ndarray, faces: np.ndarray, corners: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(V, 2) the file's UVs (T, 2), given by corner, where they are one chart; else a cylindrical unwrap."""
    cylindrical = cylindrical_uv(vertices)
    if (corners < 0).any():
        return cylindrical
    chart = cylindrical.copy()  # a vertex that no face of the area has keeps a place
    chart[faces] = uv[corners]
    one_each = np.array_equal(chart[faces], uv[corners])
    return chart if one_each and chart.min() >= 0 and chart.max() <= 1 else cylindrical


def _carried_over(
    folder: Path, vertices: np.ndarray, faces: np.ndarray, landmarks: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The model's colour fields and regions, from the embedded default."""
    from renderers.face_models.default.model import load_default
    from renderers.face_models.transfer import transfer_from_default

    default = load_default()
    found = transfer_from_default(str(folder), vertices, faces, default, landmarks)
    colors = {
        "mean_albedo": found.carry(default.mean_albedo.numpy()),
        "albedo_basis": found.carry(default.albedo_basis.numpy()),
        "mean_specular": found.carry(default.get_buffer("mean_specular").numpy()),
        "specular_basis": found.carry(default.get_buffer("flat_specular_basis").T.unflatten(0, (-1, 3)).numpy()),
    }
    return colors, found.regions
