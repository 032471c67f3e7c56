"""A face as binary glTF 2.0, with its expressions as named morph targets."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.commands.reconstruct.export import FaceMesh, MorphTargets
from renderers.units import MILLIMETRES_PER_METRE  # glTF's unit is the metre (glTF 2.0, section 3.4)

FLOAT, UNSIGNED_INT = 5126, 5125  # glTF's names of the kinds of number
WET = {"eyes": 0.15, "teeth": 0.35, "tongue": 0.5, "mouth": 0.6}  # roughness
STILL = 1e-6  # metres, and of a unit normal: what moves less is not stored


Change = Callable[[MutableMapping[Any, bytes], dict[str, Any]], None]


def glb(mesh: FaceMesh, change: Change | None = None) -> bytes:
    """A binary glTF with the texture inside; metres.

    Every part of the mesh is a primitive of its own, whose material has the part's name. A mesh with `morph` is stored
    as its neutral face, whose morph targets at the stored weights make the mesh.

    Args:
        mesh: the face.
        change: what is to be changed in the file's buffers and JSON before they are written.
    """
    import trimesh

    morph, scene, rows = mesh.morph, trimesh.Scene(), {}
    vertices, normals = (mesh.vertices, mesh.normals) if morph is None else (morph.neutral, morph.neutral_normals)
    picture = Image.fromarray(mesh.texture)
    for name, faces in mesh.parts.items():
        rows[name], compact = np.unique(faces, return_inverse=True)
        material = trimesh.visual.material.PBRMaterial(
            name=name, baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=_roughness(name, mesh.shininess)
        )
        body = trimesh.Trimesh(
            vertices[rows[name]] / MILLIMETRES_PER_METRE,
            compact.reshape(faces.shape),
            vertex_normals=normals[rows[name]],
            visual=trimesh.visual.TextureVisuals(uv=mesh.uv[rows[name]], material=material),
            process=False,
        )
        scene.add_geometry(body, node_name=name, geom_name=name)

    def finish(buffers: MutableMapping[Any, bytes], tree: dict[str, Any]) -> None:
        _join(tree)
        if morph is not None:
            _add_targets(buffers, tree, morph, list(rows.values()))
        if change is not None:
            change(buffers, tree)

    content: bytes = scene.export(file_type="glb", buffer_postprocessor=finish)
    return content


def _roughness(part: str, shininess: float | None) -> float:
    if part in WET:
        return WET[part]
    # The roughness whose lobe is as wide as the exponent's (Walter et al. 2007, section 5.2), its root by glTF's use.
    return 1.0 if shininess is None else (2 / (shininess + 2)) ** 0.25


def _join(tree: dict[str, Any]) -> None:
    """Makes all meshes primitives of the first one: a mesh has one list of weights for all its primitives."""
    first, *others = tree["meshes"]
    first["primitives"] += [primitive for mesh in others for primitive in mesh["primitives"]]
    tree["meshes"] = [first]
    # All parts show the same picture.
    tree["images"], tree["textures"] = tree["images"][:1], tree["textures"][:1]
    for material in tree["materials"]:
        material["pbrMetallicRoughness"]["baseColorTexture"]["index"] = 0
    kept = [number for number, node in enumerate(tree["nodes"]) if node.get("mesh", 0) == 0]
    tree["nodes"] = [tree["nodes"][number] for number in kept]
    for holder, name in (
        *((node, "children") for node in tree["nodes"]),
        *((scene, "nodes") for scene in tree["scenes"]),
    ):
        if name in holder:
            holder[name] = [kept.index(child) for child in holder[name] if child in kept]


def _add_targets(
    buffers: MutableMapping[Any, bytes], tree: dict[str, Any], morph: MorphTargets, rows: Sequence[np.ndarray]
) -> None:
    """The expressions of each primitive, which shows so many rows of the morphed vertices."""
    (shape,) = tree["meshes"]
    for part, (primitive, chosen) in enumerate(zip(shape["primitives"], rows, strict=True)):
        primitive["targets"] = [
            {
                "POSITION": _sparse(buffers, tree, f"positions of target {number}, part {part}", positions[chosen]),
                "NORMAL": _sparse(buffers, tree, f"normals of target {number}, part {part}", turned[chosen]),
            }
            for number, (positions, turned) in enumerate(
                zip(morph.offsets / MILLIMETRES_PER_METRE, morph.normal_offsets, strict=True)
            )
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
