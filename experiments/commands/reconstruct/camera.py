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
    "camera.opencv": "extrinsics takes (X, 1) to OpenCV's camera axes; projectPoints also takes camera.rotation, "
    "camera.translation and camera.intrinsics, whose pixels count from the corner as above",
    "camera.opengl": "view takes (X, 1) to OpenGL's camera axes: x right, y up, z backward; projection takes these to "
    "clip space, between near and far; both act on column vectors, and glUniformMatrix4fv reads rows with transpose",
    "camera.pytorch3d": "the arguments of PerspectiveCameras, without the batch; R acts on row vectors, axes x left, "
    "y up, z forward; image_size is (height, width)",
    "landmarks": "the 68 iBUG points in their order; landmark_vertices are the rows, from 0, of mesh.obj's vertices "
    "that landmarks_projected are the images of",
    "number": "of a face, from left to right; in frames with the same sequence it stays with the person",
    "coefficients": "of the face model, in standard deviations; angles in radians and translation in decimetres, with "
    "respect to the crop of 224 pixels, whose focal length is 1015 pixels: x = R X + translation, seen by a camera at "
    "(0, 0, 10) that looks along -z",
}
NEAR, FAR = 10.0, 100_000.0  # millimetres, of OpenGL's clip space


def camera_record(projection: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """What `reconstruction.json` says about the camera of a face.

    Args:
        projection: (3, 4) from model space in decimetres to the photograph's pixels, perspective or orthographic.
        size: (height, width) of the photograph.
    """
    matrix = projection @ np.diag([1 / MILLIMETRES] * 3 + [1.0])
    norm = float(np.linalg.norm(matrix[2, :3]))
    if norm * 1e9 < abs(matrix[2, 3]):
        return {"kind": "orthographic", "projection": (matrix / matrix[2, 3]).tolist()}
    matrix = matrix / norm
    intrinsics, rotation = rq(matrix[:, :3])
    signs = np.sign(np.diag(intrinsics))
    intrinsics, rotation = intrinsics * signs, rotation * signs[:, None]
    translation = np.linalg.solve(intrinsics, matrix[:, 3])
    extrinsics = np.vstack([np.column_stack([rotation, translation]), [0, 0, 0, 1]])
    return {
        "kind": "perspective",
        "focal_length": float(intrinsics[0, 0]),
        "intrinsics": intrinsics.tolist(),
        "rotation": rotation.tolist(),
        "translation": translation.tolist(),
        "projection": matrix.tolist(),
        "opencv": {"extrinsics": extrinsics.tolist()},
        "opengl": {
            "view": (np.diag([1.0, -1.0, -1.0, 1.0]) @ extrinsics).tolist(),
            "projection": _opengl_projection(intrinsics, size).tolist(),
            "near": NEAR,
            "far": FAR,
        },
        "pytorch3d": {
            "R": (np.diag([-1.0, -1.0, 1.0]) @ rotation).T.tolist(),
            "T": (translation * [-1.0, -1.0, 1.0]).tolist(),
            "focal_length": [float(intrinsics[0, 0]), float(intrinsics[1, 1])],
            "principal_point": intrinsics[:2, 2].tolist(),
            "image_size": list(size),
            "in_ndc": False,
        },
    }


def _opengl_projection(intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(4, 4) from OpenGL's camera axes to its clip space, whose corners are those of the photograph."""
    height, width = size
    (focal_x, skew, centre_x), (_, focal_y, centre_y), _ = intrinsics
    return np.array(
        [
            [2 * focal_x / width, -2 * skew / width, 1 - 2 * centre_x / width, 0],
            [0, 2 * focal_y / height, 2 * centre_y / height - 1, 0],
            [0, 0, (NEAR + FAR) / (NEAR - FAR), 2 * NEAR * FAR / (NEAR - FAR)],
            [0, 0, -1, 0],
        ]
    )
