"""One face of a photograph: as the fitter sees it, and as it was reconstructed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.preparation.alignment import Alignment
from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.reconstruct.camera import camera_record
from experiments.commands.reconstruct.detail import FaceDetail
from experiments.commands.reconstruct.export import FaceMesh
from renderers.coefficients import Coefficients
from renderers.face_renderer import Rendering

CROP_SIZE = 224


@dataclass(frozen=True)
class AlignedFace:
    """One face as the network and the fitter see it: a crop of `CROP_SIZE` pixels. B = 1.

    Attributes:
        source: where the photograph came from.
        alignment: photograph <-> that crop.
        image: (B, 3, S, S) in [0, 1].
        landmarks: (B, 68, 2) detected, pixels of the crop.
        skin: (B, 1, S, S) in [0, 1].
        intrinsics: (B, 3, 3) of the crop's camera.
        detected: whether the landmarks are the detector's; else they are the shipped network's, which mark the same
            points of the jaw however the head is turned.
    """

    source: str
    alignment: Alignment
    image: Tensor
    landmarks: Tensor
    skin: Tensor
    intrinsics: Tensor
    detected: bool = True


@dataclass(frozen=True)
class ReconstructedFace:
    """One face of a photograph.

    Attributes:
        detected: box and landmarks, photograph pixels.
        alignment: photograph <-> the crop that `rendering` is drawn into (`TEXTURE_SIZE` pixels).
        coefficients: B = 1, with respect to the camera of `projection`.
        photo_size: (height, width) of the photograph.
        projection: (3, 4) P of that camera, perspective or orthographic: (x w, y w, w) = P (X, 1) takes a point X in
            model space, decimetres, to photograph pixels x, y.
        rendering: B = 1, in that crop.
        landmarks: (68, 2) projected, photograph pixels.
        landmark_vertices: (68,) the vertices that these are the images of.
        pose_degrees: pitch, yaw and roll in the photograph.
        mesh: textured, millimetres.
        seconds: wall time by stage; of the detection, which all faces share, an equal part.
        history: energy and its parts by iteration; empty without refinement.
        detail: where the checkpoint's paper finds it.
        number: of the face in its photograph, from 1.
        usual_error: (68, 2) photograph pixels, by which the detector misses the landmarks of drawn heads in this pose,
            in the mean; None if nobody has measured it.
    """

    detected: DetectedFace
    alignment: Alignment
    coefficients: Coefficients
    photo_size: tuple[int, int]
    projection: np.ndarray
    rendering: Rendering
    landmarks: np.ndarray
    landmark_vertices: np.ndarray
    pose_degrees: dict[str, float]
    mesh: FaceMesh
    seconds: dict[str, float]
    history: dict[str, list[float]]
    detail: FaceDetail | None = None
    number: int = 1
    usual_error: np.ndarray | None = None

    @property
    def vertices(self) -> np.ndarray:
        """(V, 3) millimetres; x right, y up, z towards the viewer."""
        return self.mesh.vertices

    @property
    def faces(self) -> np.ndarray:
        """(F, 3) rows of `vertices`, one triangle each."""
        return self.mesh.faces

    @property
    def uv(self) -> np.ndarray:
        """(V, 2) places of the vertices in `texture`, from its lower left corner, in [0, 1]."""
        return self.mesh.uv

    @property
    def texture(self) -> np.ndarray:
        """(S, S, 3) uint8 sRGB."""
        return self.mesh.texture

    @property
    def camera(self) -> dict[str, Any]:
        """Intrinsics, extrinsics and the (3, 4) projection from `vertices` to the photograph's pixels, as plain lists.

        `experiments.commands.reconstruct.camera.CONVENTIONS` says what each entry is.
        """
        return camera_record(self.projection, self.photo_size)

    @property
    def landmark_nme(self) -> float:
        """Mean distance of projected and detected points in percent of sqrt(w * h) of the detected points' box."""
        return self._nme(self.detected.landmarks)

    @property
    def adapted_landmark_nme(self) -> float | None:
        """`landmark_nme` without the detector's `usual_error`; None where nobody has measured that.

        A detector marks other points than the face model does. From the front dlib's marks of the jaw's sides lie
        lower, and those of chin and brows higher. Wood et al. (2021, section 3.2) adapt labels to its definition with a
        network; the mean difference does here.
        """
        return None if self.usual_error is None else self._nme(self.detected.landmarks - self.usual_error)

    def _nme(self, target: np.ndarray) -> float:
        box = math.sqrt(float(np.prod(np.ptp(self.detected.landmarks, axis=0))))
        return 100 * float(np.linalg.norm(self.landmarks - target, axis=1).mean()) / box

    def record(self) -> dict[str, Any]:
        """What `reconstruction.json` says about this face."""
        adapted = self.adapted_landmark_nme
        return {
            "number": self.number,
            "box": _rounded(self.detected.box, 2),
            "detector_score": round(self.detected.score, 4),
            "confidence": self.detected.confidence,
            "landmark_spread": _rounded_or_none(self.detected.spread),
            "landmark_disagreement": _rounded_or_none(self.detected.disagreement),
            "landmarks_detected": _rounded(self.detected.landmarks, 3),
            "landmarks_projected": _rounded(self.landmarks, 3),
            "landmark_vertices": self.landmark_vertices.tolist(),
            "landmark_nme": round(self.landmark_nme, 4),
            "adapted_landmark_nme": None if adapted is None else round(adapted, 4),
            "pose_degrees": {name: round(value, 3) for name, value in self.pose_degrees.items()},
            "camera": self.camera,
            "coefficients": {name: _rounded(value[0], 6) for name, value in self.coefficients.named().items()},
            "crop_from_photo": _rounded(self.alignment.matrix * (CROP_SIZE / self.alignment.size), 6),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            **({} if self.detail is None else {"detail": self.detail.record()}),
        }


def _rounded(values: np.ndarray | Tensor, digits: int) -> list[Any]:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()


def photo_pose(coefficients: Coefficients, alignment: Alignment) -> dict[str, float]:
    """Pitch, yaw and roll in degrees; the crop is the photograph turned in its plane, which changes the roll alone."""
    pitch, yaw, roll = (math.degrees(angle) for angle in coefficients.angles[0].tolist())
    # Image y points down, so that a turn from photograph to crop by +a in pixels is a roll by -a.
    turned = math.degrees(math.atan2(alignment.matrix[1, 0], alignment.matrix[0, 0]))
    return {"pitch": pitch, "yaw": yaw, "roll": (roll + turned + 180) % 360 - 180}


def _rounded_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
