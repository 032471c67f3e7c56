"""A moving face as binary glTF: one track of blend weights, and one of the head's pose, seen by the clip's camera."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from experiments.commands.reconstruct.gltf import FLOAT

UNIT = 0.1  # metres in a decimetre


@dataclass(frozen=True)
class Motion:
    """How a face moves, seen by a camera at (0, 0, 10) decimetres that looks along -z.

    Attributes:
        seconds: (T,) ascending from 0.
        weights: (T, K) of the mesh's morph targets.
        rotations: (T, 3, 3).
        translations: (T, 3) decimetres.
        focal_length: of the camera, pixels.
        size: (height, width) of its pictures, whose middle is the principal point.
    """

    seconds: np.ndarray
    weights: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    focal_length: float
    size: tuple[int, int]


def animate(buffers: MutableMapping[Any, bytes], tree: dict[str, Any], motion: Motion, distance: float) -> None:
    """Add the motion of the one mesh of a glTF, and the camera (glTF 2.0, sections 3.10 and 3.11).

    Args:
        buffers: the file's parts, each a buffer view.
        tree: its JSON.
        motion: of the mesh.
        distance: of the camera from the origin, decimetres.
    """
    (number, node), *_ = [(k, node) for k, node in enumerate(tree["nodes"]) if "mesh" in node]
    node.pop("matrix", None)
    quaternions = Rotation.from_matrix(motion.rotations).as_quat()
    # A quaternion and its negative turn alike, but between them lies a long way.
    flips = np.cumprod(np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1, 1))
    quaternions[1:] *= flips[:, None]
    tracks = {
        "rotation": (quaternions, "VEC4"),
        "translation": (UNIT * motion.translations, "VEC3"),
        "weights": (motion.weights.reshape(-1, 1), "SCALAR"),
    }
    times = _accessor(buffers, tree, "animation: seconds", motion.seconds.reshape(-1, 1), "SCALAR")
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    for path, (values, kind) in tracks.items():
        output = _accessor(buffers, tree, f"animation: {path}", values, kind)
        channels.append({"sampler": len(samplers), "target": {"node": number, "path": path}})
        samplers.append({"input": times, "interpolation": "LINEAR", "output": output})
    tree["animations"] = [{"name": "clip", "samplers": samplers, "channels": channels}]
    height, width = motion.size
    view = {"yfov": 2 * math.atan(height / 2 / motion.focal_length), "aspectRatio": width / height, "znear": 0.01}
    tree["cameras"] = [{"name": "clip", "type": "perspective", "perspective": view}]
    tree["nodes"].append({"name": "camera", "camera": 0, "translation": [0.0, 0.0, UNIT * distance]})
    tree["scenes"][0]["nodes"].append(len(tree["nodes"]) - 1)


def _accessor(
    buffers: MutableMapping[Any, bytes], tree: dict[str, Any], name: str, values: np.ndarray, kind: str
) -> int:
    """The index of a new accessor of (N, C) numbers."""
    numbers = np.ascontiguousarray(values, "<f4")
    buffers[name] = numbers.tobytes()
    tree["accessors"][name] = {
        "bufferView": len(buffers) - 1,
        "componentType": FLOAT,
        "count": len(numbers),
        "type": kind,
        "min": numbers.min(axis=0).tolist(),
        "max": numbers.max(axis=0).tolist(),
    }
    return len(tree["accessors"]) - 1
