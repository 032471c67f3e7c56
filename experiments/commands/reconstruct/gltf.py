"""A face as binary glTF 2.0, with its expressions as named morph targets."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np
from PIL import Image

from experiments.commands.reconstruct.export import FaceMesh, MorphTargets
from renderers.units import MILLIMETRES_PER_METRE  # glTF's unit is the metre (glTF 2.0, section 3.4)

FLOAT, UNSIGNED_INT = 5126, 5125  # glTF's names of the kinds of number
STILL = 1e-6  # metres, and of a unit normal: what moves less is not stored


Change = Callable[[MutableMapping[Any, bytes], dict[str, Any]], None]


def glb(mesh: FaceMesh, change: Change | None = None) -> bytes:
    """A binary glTF with the texture inside; metres.

    A mesh with `morph` is stored as its neutral face, whose morph targets at the stored weights make the mesh.

    Args:
        mesh: the face.
        change: what is to be changed in the file's buffers and JSON before they are written.
    """
    import trimesh

    # The roughness whose lobe is as wide as the exponent's (Walter et al. 2007, section 5.2), its root by glTF's use.
    roughness = 1.0 if mesh.shininess is None else (2 / (mesh.shininess + 2)) ** 0.25
    material = trimesh.visual.material.PBRMaterial(
        name="face", baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=roughness
    )
    visual = trimesh.visual.TextureVisuals(uv=mesh.uv, material=material)
    morph = mesh.morph
    vertices, normals = (mesh.vertices, mesh.normals) if morph is None else (morph.neutral, morph.neutral_normals)
    body = trimesh.Trimesh(
        vertices / MILLIMETRES_PER_METRE, mesh.faces, vertex_normals=normals, visual=visual, process=False
    )

    def add_targets(buffers: MutableMapping[Any, bytes], tree: dict[str, Any]) -> None:
        if morph is not None:
            _add_targets(buffers, tree, morph)
        if change is not None:
            change(buffers, tree)

    content: bytes = trimesh.Scene({"face": body}).export(file_type="glb", buffer_postprocessor=add_targets)
    return content


def _add_targets(buffers: MutableMapping[Any, bytes], tree: dict[str, Any], morph: MorphTargets) -> None:
    (shape,) = tree["meshes"]
    moves = zip(morph.offsets / MILLIMETRES_PER_METRE, morph.normal_offsets, strict=True)
    shape["primitives"][0]["targets"] = [
        {
            "POSITION": _sparse(buffers, tree, f"positions of target {number}", positions),
            "NORMAL": _sparse(buffers, tree, f"normals of target {number}", normals),
        }
        for number, (positions, normals) in enumerate(moves)
    ]
    shape["weights"] = morph.weights.tolist()
    shape.setdefault("extras", {})["targetNames"] = list(morph.names)


def _sparse(buffers: MutableMapping[Any, bytes], tree: dict[str, Any], name: str, offsets: np.ndarray) -> int:
    """The index of a new accessor that stores the rows of (V, 3) that are not zero (glTF 2.0, section 3.6.2.3)."""
    moved = np.flatnonzero(np.abs(offsets).max(axis=1) > STILL)
    if moved.size == 0:
        moved = np.zeros(1, dtype=np.int64)  # an accessor holds one row at least
    values = offsets[moved].astype("<f4")
    views = []
    for part, content in (("rows", moved.astype("<u4")), ("values", values)):
        buffers[f"{name}: {part}"] = content.tobytes()
        views.append(len(buffers) - 1)
    all_values = np.concatenate([values, np.zeros((1, 3), "<f4")]) if len(moved) < len(offsets) else values
    accessor = {
        "componentType": FLOAT,
        "count": len(offsets),
        "type": "VEC3",
        "min": all_values.min(axis=0).tolist(),
        "max": all_values.max(axis=0).tolist(),
        "sparse": {
            "count": len(moved),
            "indices": {"bufferView": views[0], "componentType": UNSIGNED_INT},
            "values": {"bufferView": views[1]},
        },
    }
    tree["accessors"][name] = accessor
    return len(tree["accessors"]) - 1
