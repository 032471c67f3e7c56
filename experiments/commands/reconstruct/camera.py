"""A reconstructed face's camera as other programs know it: from the mesh's millimetres to the photograph's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import rq

from renderers.units import MILLIMETRES

# What every `reconstruction.json` says about its numbers.
CONVENTIONS = {
    "lengths": "millimetres, in mesh.obj and in the cameras",
    "mesh_axes": "x right, y up, z towards the viewer",
    "pixels": "of the photograph as it is seen upright; the top-left corner is (0, 0), x right, y down, and the first "
    "pixel's centre (0.5, 0.5)",
    "rotation": "pose_degrees are turns about x (pitch), y (yaw) and z (roll) of the mesh's axes; they act on column "
    "vectors as R = Rz(roll) Ry(yaw) Rx(pitch)",
    "camera": "axes x right, y down, z forward, as OpenCV's; a vertex X of mesh.obj is seen at (u / w, v / w) of "
    "(u, v, w) = camera.projection (X, 1); of a perspective camera w is the depth, camera.projection = "
    "camera.intrinsics [camera.rotation | camera.translation], and camera.rotation = diag(1, -1, -1) R",
    "landmarks": "the 68 iBUG points in their order; landmark_vertices are the rows, from 0, of mesh.obj's vertices "
    "that landmarks_projected are the images of",
    "number": "of a face, from left to right; in frames with the same sequence it stays with the person",
    "coefficients": "of the face model, in standard deviations; angles in radians and translation in decimetres, with "
    "respect to the crop of 224 pixels, whose focal length is 1015 pixels: x = R X + translation, seen by a camera at "
    "(0, 0, 10) that looks along -z",
}


def camera_record(projection: np.ndarray) -> dict[str, Any]:
    """What `reconstruction.json` says about the camera of a face.

    Args:
        projection: (3, 4) from model space in decimetres to the photograph's pixels, perspective or orthographic.
    """
    matrix = projection @ np.diag([1 / MILLIMETRES] * 3 + [1.0])
    norm = float(np.linalg.norm(matrix[2, :3]))
    if norm * 1e9 < abs(matrix[2, 3]):
        return {"kind": "orthographic", "projection": (matrix / matrix[2, 3]).tolist()}
    matrix = matrix / norm
    intrinsics, rotation = rq(matrix[:, :3])
    signs = np.sign(np.diag(intrinsics))
    intrinsics, rotation = intrinsics * signs, rotation * signs[:, None]
    return {
        "kind": "perspective",
        "focal_length": float(intrinsics[0, 0]),
        "intrinsics": intrinsics.tolist(),
        "rotation": rotation.tolist(),
        "translation": np.linalg.solve(intrinsics, matrix[:, 3]).tolist(),
        "projection": matrix.tolist(),
    }
