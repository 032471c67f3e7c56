"""Photograph -> faces: detect, align, regress with a checkpoint, refine by optimization, unwrap the texture."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.alignment import Alignment, align, model_template
from datamodules.preparation.landmarks import DetectedFace, LandmarkDetector, best_detector
from datamodules.preparation.skin import skin_probability
from experiments.commands.reconstruct.camera import camera_record
from experiments.commands.reconstruct.detail import DEFAULT_SIZE, FaceDetail, face_detail
from experiments.commands.reconstruct.export import FaceMesh, face_mesh
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.texture import TEXTURE_SIZE, bake_texture
from experiments.fitting.photometric_fitting import FitResult, FitSettings, fit, project_landmarks
from lightning_modules.base import FaceModule
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.dense_face import DenseFace
from losses.metrics import landmark_nme
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.io.errors import UserError
from renderers.jaw_contour import contour_table

CROP_SIZE = 224
MEASURED_MODEL = "default"  # the face model that `experiments.fitting.landmark_noise` was measured against
FAR_APART = 10.0  # percent of the face: detectors that found it differ from the network by less
FURTHER_LOOKS = 2  # each crop is placed by what was found in the one before
NETWORK_NOISE = 0.03  # of the shipped network's landmarks, as `FitSettings.landmark_noise`

Progress = Callable[[str], None]


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
    """

    detected: DetectedFace
    alignment: Alignment
    coefficients: Coefficients
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

    @property
    def landmark_nme(self) -> float:
        """Mean distance of projected and detected points in percent of sqrt(w * h) of the detected points' box."""
        target = self.detected.landmarks
        box = math.sqrt(float(np.prod(np.ptp(target, axis=0))))
        return 100 * float(np.linalg.norm(self.landmarks - target, axis=1).mean()) / box

    def record(self) -> dict[str, Any]:
        """What `reconstruction.json` says about this face."""
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
            "pose_degrees": {name: round(value, 3) for name, value in self.pose_degrees.items()},
            "camera": camera_record(self.projection),
            "coefficients": {name: _rounded(value[0], 6) for name, value in self.coefficients.named().items()},
            "crop_from_photo": _rounded(self.alignment.matrix * (CROP_SIZE / self.alignment.size), 6),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            **({} if self.detail is None else {"detail": self.detail.record()}),
        }


def _rounded(values: np.ndarray | Tensor, digits: int) -> list[Any]:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()


class Reconstructor:
    """Everything that is loaded once for all photographs.

    Args:
        face_model: the decoder.
        module: a checkpoint's; its answer is where the optimization starts, its renderer and camera draw the faces.
            Without one that is what `shipped` answers, and a `FaceRenderer`.
        detector: name of the landmark detector, see `datamodules.preparation.landmarks.best_detector`.
        refine: False takes the regressor's answer as it is.
        checkpoint: where the module came from, for the record.
        settings: of the fitter; chosen for the face model and the detector where absent.
        detail_size: texels along a side of the detail's maps, of a module that finds detail.
        shipped: the shipped network, whose answer is where the optimization starts without a `module`; the mean face
            where there is neither. Where a detector's landmarks lie far from the network's, the network's are taken.

    Raises:
        UserError: no such detector, or nothing left to reconstruct with.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        module: FaceModule | None = None,
        detector: str = "auto",
        refine: bool = True,
        checkpoint: str | None = None,
        settings: FitSettings | None = None,
        detail_size: int = DEFAULT_SIZE,
        shipped: DenseFace | None = None,
    ) -> None:
        self.shipped = shipped
        self.regressor: FaceModule | None = module or shipped
        if self.regressor is None and not refine:
            raise UserError("--no-fit leaves nothing but the mean face: give --checkpoint FILE with it")
        self.face_model, self.module, self.refine, self.checkpoint = face_model, module, refine, checkpoint
        self.detail_size = detail_size
        self.detector: LandmarkDetector = best_detector(detector)
        self.settings = settings or fit_settings(face_model, self.detector.contour)
        self.template = model_template(face_model, CROP_SIZE)
        self.renderer = FaceRenderer(face_model, TEXTURE_SIZE) if module is None else module.renderer

    def reconstruct(self, photo: Photo, tell: Progress = lambda stage: None) -> list[ReconstructedFace]:
        """Every face of a photograph, numbered from left to right.

        Args:
            photo: any size.
            tell: called with the name of each stage as it begins.

        Raises:
            UserError: there is no face in it.
        """
        tell("detecting")
        clock = time.perf_counter()
        found = self.detector.detect(photo.pixels)
        if not found:
            size = f"{self.smallest_face(photo):.0f} px"
            raise UserError(
                f"{photo.source}: no face found (none smaller than {size} is looked for); try a sharper, more frontal "
                "or larger picture"
            )
        found.sort(key=lambda face: (face.box[0] + face.box[2], face.box[1]))
        seconds = (time.perf_counter() - clock) / len(found)
        faces = []
        for number, face in enumerate(found, start=1):
            tell(f"fitting face {number} of {len(found)}")
            faces.append(replace(self._face(photo, face, {"detect": seconds}), number=number))
        return faces

    def smallest_face(self, photo: Photo) -> float:
        """Side in pixels of the smallest face box that is looked for in a photograph."""
        return self.detector.smallest_face(*photo.pixels.shape[:2])

    def aligned(self, photo: Photo, face: DetectedFace) -> AlignedFace:
        """A detected face as the network and the fitter see it.

        Raises:
            UserError: landmarks that place no face.
        """
        aligned = self._cropped(photo, face.landmarks)
        if self.shipped is None:
            return aligned
        own = self.shipped.landmarks(aligned.image)
        if float(landmark_nme(aligned.landmarks, own)) <= FAR_APART:
            return aligned
        for _ in range(FURTHER_LOOKS):
            aligned = self._cropped(photo, aligned.alignment.to_photo(own[0].double().numpy()))
            own = self.shipped.landmarks(aligned.image)
        return replace(aligned, landmarks=own, detected=False)

    def _cropped(self, photo: Photo, landmarks: np.ndarray) -> AlignedFace:
        """The face on which (68, 2) landmarks lie, photograph pixels."""
        try:
            alignment = align(landmarks, self.template, CROP_SIZE)
        except ValueError as error:
            raise UserError(f"{photo.source}: {error}") from error
        crop = alignment.crop(photo.pixels)
        points = alignment.to_crop(landmarks)
        skin = skin_probability(crop, points) * alignment.coverage(*photo.pixels.shape[:2])
        return AlignedFace(
            source=photo.source,
            alignment=alignment,
            image=_tensor(crop)[None],
            landmarks=torch.from_numpy(points).float()[None],
            skin=torch.from_numpy(skin).float()[None, None],
            intrinsics=default_intrinsics(CROP_SIZE)[None],
        )

    def solve(self, face: AlignedFace) -> FitResult:
        """The face's coefficients and landmarks, pixels of the crop: the regressor's answer, refined or as it is.

        Raises:
            UserError: the network answers with values that are not finite.
        """
        clock, initial, regressed = time.perf_counter(), None, {}
        if self.regressor is not None:
            try:
                initial = self.regressor.answer(face.image)
            except UserError as error:
                raise UserError(f"{face.source}: {error}") from error
            regressed = {"regress": time.perf_counter() - clock}
        if self.refine:
            picture = face.image, face.landmarks, face.skin, face.intrinsics
            result = fit(self.face_model, *picture, initial, self._settings_for([face]), self.renderer)
            return replace(result, seconds=regressed | result.seconds)
        assert initial is not None
        contour = contour_table(self.face_model) if self._settings_for([face]).moving_contour else None
        projected, rows = project_landmarks(self.renderer, initial, face.intrinsics, contour)
        return FitResult(initial, projected, rows, seconds=regressed)

    def _settings_for(self, faces: Sequence[AlignedFace]) -> FitSettings:
        """The fitter's settings for landmarks of the detector alone, or of the network too."""
        if all(face.detected for face in faces):
            return self.settings
        return replace(self.settings, moving_contour=False, landmark_noise=NETWORK_NOISE)

    def solve_together(self, faces: Sequence[AlignedFace]) -> FitResult:
        """Several photographs of one person as one problem: one identity and one albedo, all else their own.

        Raises:
            UserError: there is nothing to refine with, or the network answers with values that are not finite.
        """
        if not self.refine:
            raise UserError("several photographs are solved together by the fit: leave out --no-fit")
        image, landmarks, skin, intrinsics = (
            torch.cat(parts)
            for parts in zip(*((face.image, face.landmarks, face.skin, face.intrinsics) for face in faces), strict=True)
        )
        initial = None if self.regressor is None else self.regressor.answer(image)
        settings, views = self._settings_for(faces), len(faces)
        return fit(self.face_model, image, landmarks, skin, intrinsics, initial, settings, self.renderer, views)

    def _face(self, photo: Photo, face: DetectedFace, seconds: dict[str, float]) -> ReconstructedFace:
        clock = time.perf_counter()
        aligned = self.aligned(photo, face)
        alignment = aligned.alignment
        if not aligned.detected:
            face = replace(face, landmarks=alignment.to_photo(aligned.landmarks[0].double().numpy()))
        seconds["align"] = time.perf_counter() - clock
        result = self.solve(aligned)
        seconds |= result.seconds

        clock = time.perf_counter()
        large = Alignment(alignment.matrix * (TEXTURE_SIZE / CROP_SIZE), TEXTURE_SIZE)
        coverage = torch.from_numpy(large.coverage(*photo.pixels.shape[:2]))
        view = _tensor(large.crop(photo.pixels))
        answer = self._drawn(view[None], aligned.skin, result.coefficients)
        coefficients, rendering = answer.coefficients, answer.rendering
        seconds["draw"], clock = time.perf_counter() - clock, time.perf_counter()
        texture = bake_texture(self.face_model, rendering, view, coverage, aligned.skin[0, 0])
        seconds["texture"], clock = time.perf_counter() - clock, time.perf_counter()
        detail = face_detail(self.face_model, view[None], answer, self.detail_size)
        if detail is not None:
            seconds["detail"] = time.perf_counter() - clock
        matrix = self.renderer.projection(coefficients, aligned.intrinsics)[0].numpy()
        return ReconstructedFace(
            detected=face,
            alignment=large,
            coefficients=coefficients,
            projection=np.vstack([alignment.inverse, [0, 0, 1]]) @ matrix,
            rendering=rendering,
            landmarks=alignment.to_photo(result.landmarks[0].double().numpy()),
            landmark_vertices=result.landmark_vertices[0].numpy(),
            pose_degrees=photo_pose(coefficients, alignment),
            mesh=face_mesh(self.face_model, rendering, coefficients.expression, texture),
            seconds=seconds,
            history=result.history,
            detail=detail,
        )

    @torch.no_grad()
    def _drawn(self, view: Tensor, skin: Tensor, coefficients: Coefficients) -> Reconstruction:
        """The faces of coefficients, drawn into their crops."""
        if self.module is None:
            return Reconstruction(coefficients, self.renderer(coefficients))
        return self.module.reconstruct(view, skin, coefficients=coefficients)


def fit_settings(face_model: MorphableModel, contour: bool) -> FitSettings:
    """The fitter's settings for a face model and for landmarks whose jaw marks the visible contour, or does not."""
    settings = FitSettings(moving_contour=contour)
    if face_model.expression_names:  # blend weights
        settings = replace(settings, expression_deviation=0.35, expression_bounds=(0.0, 1.0))
    if contour and face_model.name == MEASURED_MODEL:
        # Chosen on the development heads of `landmark_noise`, plain ones and ones with freckles, wrinkles and shadows.
        settings = replace(settings, landmark_noise=None, photometric_noise=0.0002, learning_rate=0.06)
    return settings


def photo_pose(coefficients: Coefficients, alignment: Alignment) -> dict[str, float]:
    """Pitch, yaw and roll in degrees; the crop is the photograph turned in its plane, which changes the roll alone."""
    pitch, yaw, roll = (math.degrees(angle) for angle in coefficients.angles[0].tolist())
    # Image y points down, so that a turn from photograph to crop by +a in pixels is a roll by -a.
    turned = math.degrees(math.atan2(alignment.matrix[1, 0], alignment.matrix[0, 0]))
    return {"pitch": pitch, "yaw": yaw, "roll": (roll + turned + 180) % 360 - 180}


def _rounded_or_none(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) in [0, 1]"""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
