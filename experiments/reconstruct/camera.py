"""A reconstructed face's camera as other programs know it: from the mesh's millimetres to the photograph's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.alignment import Alignment
from experiments.reconstruct.export import MILLIMETRES
from renderers.camera import CAMERA_DISTANCE, euler_to_rotation
from renderers.coefficients import Coefficients

# What every `reconstruction.json` says about its numbers.
CONVENTIONS = {
    "lengths": "millimetres, in mesh.obj and in the cameras",
    "mesh_axes": "x right, y up, z towards the viewer",
    "pixels": "of the photograph as it is seen upright; the top-left corner is (0, 0), x right, y down, and the first "
    "pixel's centre (0.5, 0.5)",
    "rotation": "pose_degrees are turns about x (pitch), y (yaw) and z (roll) of the mesh's axes; they act on column "
    "vectors as R = Rz(roll) Ry(yaw) Rx(pitch)",
    "camera": "axes x right, y down, z forward, as OpenCV's; camera.rotation = diag(1, -1, -1) R; a vertex X of "
    "mesh.obj is seen at (u / w, v / w) of (u, v, w) = camera.projection (X, 1), where camera.projection = "
    "camera.intrinsics [camera.rotation | camera.translation], and w is its depth in millimetres",
    "landmarks": "the 68 iBUG points in their order; landmark_vertices are the rows, from 0, of mesh.obj's vertices "
    "that landmarks_projected are the images of",
    "number": "of a face, from left to right; in frames with the same sequence it stays with the person",
    "coefficients": "of the face model, in standard deviations; angles in radians and translation in decimetres, with "
    "respect to the crop of 224 pixels, whose focal length is 1015 pixels: x = R X + translation, seen by a camera at "
    "(0, 0, 10) that looks along -z",
}


@dataclass(frozen=True, eq=False)
class PhotoCamera:
    """A pinhole camera, OpenCV's axes, for vertices in millimetres and a photograph's continuous pixels.

    Attributes:
        intrinsics: (3, 3) pixels.
        rotation: (3, 3).
        translation: (3,) millimetres.
    """

    intrinsics: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    @property
    def projection(self) -> np.ndarray:
        """(3, 4)"""
        return self.intrinsics @ np.column_stack([self.rotation, self.translation])

    def record(self) -> dict[str, Any]:
        """What `reconstruction.json` says about it."""
        return {
            "focal_length": float(self.intrinsics[0, 0]),
            "intrinsics": self.intrinsics.tolist(),
            "rotation": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "projection": self.projection.tolist(),
        }


def photo_camera(coefficients: Coefficients, intrinsics: Tensor, alignment: Alignment) -> PhotoCamera:
    """The camera that sees a face where `renderers.camera.project` and the alignment put it.

    A turn of the crop in its plane is a turn of the camera about its axis, so that what remains is a plain pinhole.

    Args:
        coefficients: B = 1.
        intrinsics: (1, 3, 3) of the crop, with equal focal lengths.
        alignment: photograph <-> crop.
    """
    crop = intrinsics[0].double().cpu().numpy()
    to_photo = alignment.inverse
    focal = crop[0, 0] / alignment.scale
    principal = to_photo[:, :2] @ crop[:2, 2] + to_photo[:, 2]
    turn = np.eye(3)
    turn[:2, :2] = to_photo[:, :2] * alignment.scale
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = euler_to_rotation(coefficients.angles[:1].double().cpu())[0].numpy()
    translation = coefficients.translation[0].double().cpu().numpy() - [0.0, 0.0, CAMERA_DISTANCE]
    return PhotoCamera(
        np.array([[focal, 0.0, principal[0]], [0.0, focal, principal[1]], [0.0, 0.0, 1.0]]),
        turn @ flip @ rotation,
        turn @ flip @ translation * MILLIMETRES,
    )
