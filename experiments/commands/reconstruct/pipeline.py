"""Photograph -> faces: detect, align, regress with a checkpoint, refine by optimization, unwrap the texture."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.alignment import Alignment, align, mean_landmarks, model_template
from datamodules.preparation.landmarks import DetectedFace, DlibDetector, LandmarkDetector, best_detector
from datamodules.preparation.skin import skin_probability
from datamodules.synthesis.landmark_noise import measured_noise, upright
from experiments.commands.reconstruct.detail import DEFAULT_SIZE, face_detail
from experiments.commands.reconstruct.export import face_mesh
from experiments.commands.reconstruct.face import CROP_SIZE, AlignedFace, ReconstructedFace, photo_pose
from experiments.commands.reconstruct.gaze import with_gaze
from experiments.commands.reconstruct.head_parts import head_parts
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.texture import TEXTURE_SIZE, PhotoView, bake_texture
from experiments.fitting.landmark_fitting import SecondOpinion
from experiments.fitting.landmark_noise import MAX_YAW
from experiments.fitting.photometric_fitting import FitResult, FitSettings, fit, project_landmarks
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.dense_face.network import DenseNetwork
from losses.metrics import landmark_nme
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer
from renderers.io.errors import UserError
from renderers.jaw_contour import contour_table
from renderers.landmarks68 import JAW, LEFT_EYE, MOUTH, RIGHT_EYE

if TYPE_CHECKING:
    from lightning_modules.base import FaceModule

MEASURED_MODEL = "default"  # the face model that `experiments.fitting.landmark_noise` was measured against
FAR_APART = 10.0  # percent of the face: detectors that found it differ from the network by less
# Percent of the face. On faces that it sees rightly the network's own deviation is 0.9 to 2.3, on others 4 and more.
UNSURE = 2.7
YAWS = (-60.0, 0.0, 60.0)  # degrees, of the mean faces that the network looks at where a detector may have missed
FURTHER_LOOKS = 2  # each crop is placed by what was found in the one before
DOUBTFUL_TRUST = 0.25  # weight among several photographs of one whose landmarks are doubtful
NETWORK_NOISE = 0.03  # of the shipped network's landmarks, as `FitSettings.landmark_noise`

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PlacedFace:
    """A face of a photograph before it is solved.

    Attributes:
        photo: the photograph.
        detected: the face's box and landmarks in it.
        aligned: the face as the fitter sees it.
        seconds: wall time by stage.
    """

    photo: Photo
    detected: DetectedFace
    aligned: AlignedFace
    seconds: dict[str, float]


@dataclass(frozen=True)
class _DrawnFace:
    """A solved face in its large crop."""

    alignment: Alignment
    answer: Reconstruction
    view: PhotoView
    seconds: float


class ReconstructionPipeline:
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
        device: where faces are fitted, which takes nearly all the time; all else is done on the CPU.

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
        shipped: DenseNetwork | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shipped = shipped
        self.regressor: FaceModule | DenseNetwork | None = module or shipped
        if self.regressor is None and not refine:
            raise UserError("--no-fit leaves nothing but the mean face: give --checkpoint FILE with it")
        self.face_model, self.module, self.refine, self.checkpoint = face_model, module, refine, checkpoint
        self.detail_size = detail_size
        self.detector: LandmarkDetector = best_detector(detector)
        self.settings = settings or fit_settings(face_model, self.detector.contour)
        self.template = model_template(face_model, CROP_SIZE)
        self.renderer = FaceRenderer(face_model, TEXTURE_SIZE) if module is None else module.renderer
        self.device = torch.device(device)
        self.fitted = self.renderer if self.device.type == "cpu" else deepcopy(self.renderer).to(self.device)

    def reconstruct(self, photo: Photo, tell: Progress = lambda stage: None) -> list[ReconstructedFace]:
        """Every face of a photograph, numbered from left to right.

        Args:
            photo: any size.
            tell: called with the name of each stage as it begins.

        Raises:
            UserError: there is no face in it.
        """
        tell("detecting")
        found, seconds = self.detect(photo)
        return self.solved(photo, found, seconds, tell)

    def solved(
        self, photo: Photo, found: Sequence[DetectedFace], seconds: float, tell: Progress = lambda stage: None
    ) -> list[ReconstructedFace]:
        """The detected faces of a photograph, numbered in their order; see `detect` and `reconstruct`."""
        faces = []
        for number, face in enumerate(found, start=1):
            tell(f"fitting face {number} of {len(found)}")
            placed = self.placed(photo, face, seconds)
            faces.append(replace(self.finished([placed], self.solve(placed.aligned))[0], number=number))
        return faces

    def detect(self, photo: Photo) -> tuple[list[DetectedFace], float]:
        """The faces of a photograph from left to right, and the seconds that each of them took.

        Raises:
            UserError: there is none.
        """
        clock = time.perf_counter()
        found = self.detector.detect(photo.pixels)
        if not found:
            size = f"{self.smallest_face(photo):.0f} px"
            raise UserError(
                f"{photo.source}: no face found (none smaller than {size} is looked for); try a sharper, more frontal "
                "or larger picture"
            )
        found.sort(key=_from_left)
        return found, (time.perf_counter() - clock) / len(found)

    def smallest_face(self, photo: Photo) -> float:
        """Side in pixels of the smallest face box that is looked for in a photograph."""
        return self.detector.smallest_face(*photo.pixels.shape[:2])

    def aligned(self, photo: Photo, face: DetectedFace) -> AlignedFace:
        """A detected face as the network and the fitter see it.

        Raises:
            UserError: landmarks that place no face.
        """
        alignment = self._placed(photo, face.landmarks)
        found = alignment.to_crop(face.landmarks)
        if self.shipped is None:
            return _aligned_face(photo, alignment, found, detected=True)
        own, deviation = _seen_by(self.shipped, photo, alignment)
        far = float(landmark_nme(torch.from_numpy(found).float()[None], own)) > FAR_APART
        if far or deviation > UNSURE:
            starts = [face.landmarks, *(self._in_box(face, yaw) for yaw in YAWS)]
            nearer, points, deviation = min((self._closer(photo, start) for start in starts), key=itemgetter(2))
            if far or deviation <= UNSURE:
                return _aligned_face(photo, nearer, points, detected=False)
        return _aligned_face(photo, alignment, found, detected=True)

    def _in_box(self, face: DetectedFace, yaw: float) -> np.ndarray:
        """(68, 2) the mean face turned by a yaw, degrees, in a detected box; upright to the nearest quarter turn."""
        across = face.landmarks[LEFT_EYE].mean(axis=0) - face.landmarks[RIGHT_EYE].mean(axis=0)
        quarters = round(2 * np.arctan2(across[1], across[0]) / np.pi)
        return mean_landmarks(self.face_model, face.box, np.radians(yaw), quarters * np.pi / 2)

    def _closer(self, photo: Photo, landmarks: np.ndarray) -> tuple[Alignment, np.ndarray, float]:
        """The crop after further looks of the shipped network, its landmarks (68, 2) there, and how unsure it is."""
        assert self.shipped is not None
        alignment = self._placed(photo, landmarks)
        for _ in range(FURTHER_LOOKS):
            own, _ = _seen_by(self.shipped, photo, alignment)
            alignment = self._placed(photo, alignment.to_photo(own[0].double().numpy()))
        own, deviation = _seen_by(self.shipped, photo, alignment)
        return alignment, own[0].numpy(), deviation

    def _placed(self, photo: Photo, landmarks: np.ndarray) -> Alignment:
        """The crop that belongs to (68, 2) landmarks, photograph pixels."""
        try:
            return align(landmarks, self.template, CROP_SIZE)
        except ValueError as error:
            raise UserError(f"{photo.source}: {error}") from error

    def solve(self, face: AlignedFace) -> FitResult:
        """The face's coefficients and landmarks, pixels of the crop: the regressor's answer, refined or as it is.

        Raises:
            UserError: the network answers with values that are not finite.
        """
        return self._solved([face])

    def solve_together(self, faces: Sequence[AlignedFace]) -> FitResult:
        """Several photographs of one person as one problem: one identity and one albedo, all else their own.

        Raises:
            UserError: there is nothing to refine with, or the network answers with values that are not finite.
        """
        if not self.refine:
            raise UserError("several photographs are solved together by the fit: leave out --no-fit")
        return self._solved(faces, views=len(faces))

    def _solved(self, faces: Sequence[AlignedFace], views: int = 1) -> FitResult:
        clock, initial, regressed = time.perf_counter(), None, {}
        image, landmarks, skin, intrinsics = (
            torch.cat(parts)
            for parts in zip(*((face.image, face.landmarks, face.skin, face.intrinsics) for face in faces), strict=True)
        )
        if self.regressor is not None:
            try:
                initial = self.regressor.answer(image)
            except UserError as error:
                raise UserError(f"{', '.join(face.source for face in faces)}: {error}") from error
            regressed = {"regress": time.perf_counter() - clock}
        settings = self._settings_for(faces)
        if self.refine:
            to = partial(torch.Tensor.to, device=self.device)
            picture = to(image), to(landmarks), to(skin), to(intrinsics)
            start = None if initial is None else initial.to(self.device)
            result = fit(
                self.fitted.face_model, *picture, start, settings, self.fitted, views, self._deviation,
                self._second_opinion(faces, picture[0]),
            ).cpu()  # fmt: skip
            return replace(result, seconds=regressed | result.seconds)
        assert initial is not None
        contour = contour_table(self.face_model) if settings.moving_contour else None
        projected, rows = project_landmarks(self.renderer, initial, intrinsics, contour)
        return FitResult(initial, projected, rows, seconds=regressed)

    @property
    def _deviation(self) -> Tensor | None:
        """Of the errors in the regressor's identity and expression, where they were measured."""
        return self.shipped.answer_deviation if self.shipped is not None and self.module is None else None

    def _second_opinion(self, faces: Sequence[AlignedFace], image: Tensor) -> SecondOpinion | None:
        """Where the shipped network sees the landmarks, beside the detector that found them."""
        if self.shipped is None or not all(face.detected for face in faces):
            return None
        points, deviation = (part.to(image.device) for part in self.shipped.marked(image.cpu()))
        deviation[:, JAW] = torch.inf  # A detector marks the visible contour there, the network fixed points.
        deviation[:, MOUTH] = torch.inf  # Drawn mouths are no smiles that show teeth: the detector has seen people's.
        return SecondOpinion(points, deviation)

    def _settings_for(self, faces: Sequence[AlignedFace]) -> FitSettings:
        """The fitter's settings for landmarks of the detector alone, or of the network too."""
        if all(face.detected for face in faces):
            return self.settings
        return replace(self.settings, moving_contour=False, landmark_noise=NETWORK_NOISE)

    def reconstruct_batch(self, photos: Sequence[Photo]) -> list[list[ReconstructedFace]]:
        """Every face of each photograph, as `reconstruct`, with all faces solved at once; none where there is none."""
        placed: list[tuple[int, int, PlacedFace]] = []
        for row, photo in enumerate(photos):
            found = sorted(self.detector.detect(photo.pixels), key=_from_left)
            placed += [(row, number, self.placed(photo, face)) for number, face in enumerate(found, start=1)]
        answer: list[list[ReconstructedFace]] = [[] for _ in photos]
        # The fitter weighs the landmarks of the detector and those of the network by different errors.
        for detected in (True, False):
            chosen = [one for one in placed if one[2].aligned.detected is detected]
            if not chosen:
                continue
            result = self._solved([face.aligned for _, _, face in chosen])
            for index, (row, number, face) in enumerate(chosen):
                (finished,) = self.finished([face], result.index(slice(index, index + 1)))
                answer[row].append(replace(finished, number=number))
        return [sorted(faces, key=lambda face: face.number) for faces in answer]

    def placed(self, photo: Photo, face: DetectedFace, seconds: float = 0.0) -> PlacedFace:
        """A face that was detected in so many seconds, with the crop in which it is solved and drawn.

        Raises:
            UserError: landmarks that place no face.
        """
        clock = time.perf_counter()
        aligned = self.aligned(photo, face)
        if not aligned.detected:
            face = replace(face, landmarks=aligned.alignment.to_photo(aligned.landmarks[0].double().numpy()))
        return PlacedFace(photo, face, aligned, {"detect": seconds, "align": time.perf_counter() - clock})

    def finished(self, views: Sequence[PlacedFace], result: FitResult) -> list[ReconstructedFace]:
        """One person's faces as they are written, with a texture that all their photographs make.

        Args:
            views: the person in each photograph.
            result: their solution, in the same order.
        """
        drawn = [
            self._drawn(view, result.coefficients.index(slice(k, k + 1)), result.landmarks[k])
            for k, view in enumerate(views)
        ]
        clock = time.perf_counter()
        texture = bake_texture(self.face_model, [one.view for one in drawn])
        shared = {stage: value / len(views) for stage, value in result.seconds.items()}
        shared["texture"] = (time.perf_counter() - clock) / len(views)
        faces = []
        for row, (placed, one) in enumerate(zip(views, drawn, strict=True)):
            clock = time.perf_counter()
            detail = face_detail(self.face_model, one.view.photo[None], one.answer, self.detail_size)
            seconds = placed.seconds | shared | {"draw": one.seconds}
            if detail is not None:
                seconds["detail"] = time.perf_counter() - clock
            aligned, coefficients, rendering = placed.aligned, one.answer.coefficients, one.answer.rendering
            matrix = self.renderer.projection(coefficients, aligned.intrinsics)[0].numpy()
            pose = photo_pose(coefficients, aligned.alignment)
            faces.append(
                ReconstructedFace(
                    detected=placed.detected,
                    alignment=one.alignment,
                    coefficients=coefficients,
                    photo_size=placed.photo.pixels.shape[:2],
                    projection=np.vstack([aligned.alignment.inverse, [0, 0, 1]]) @ matrix,
                    rendering=rendering,
                    landmarks=self._landmarks(placed, one, result, row),
                    landmark_vertices=result.landmark_vertices[row].numpy(),
                    pose_degrees=pose,
                    mesh=face_mesh(self.face_model, rendering, coefficients, texture),
                    seconds=seconds,
                    history=result.history,
                    detail=detail,
                    usual_error=self._usual_error(placed, pose),
                )
            )
        return faces

    def _usual_error(self, placed: PlacedFace, pose: dict[str, float]) -> np.ndarray | None:
        """See `ReconstructedFace`. It was measured of dlib on the default model's heads, up to a yaw of `MAX_YAW`."""
        measured = self.detector.name == DlibDetector.name and self.face_model.name == MEASURED_MODEL
        if not measured or not placed.aligned.detected or abs(pose["yaw"]) > MAX_YAW:
            return None
        yaw, roll = (torch.tensor([math.radians(pose[angle])]) for angle in ("yaw", "roll"))
        box = float(np.prod(np.ptp(placed.detected.landmarks, axis=0))) ** 0.5
        return box * upright(measured_noise().mean(yaw), -roll)[0].double().numpy()

    def _landmarks(self, placed: PlacedFace, drawn: _DrawnFace, result: FitResult, row: int) -> np.ndarray:
        """(68, 2) photograph pixels; the lids move a little with eyes that were turned after the fit."""
        if head_parts(self.face_model) is None:
            return placed.aligned.alignment.to_photo(result.landmarks[row].double().numpy())
        places = drawn.answer.rendering.vertices_image[0, result.landmark_vertices[row].long(), :2]
        return drawn.alignment.to_photo(places.double().numpy())

    @torch.no_grad()
    def _drawn(self, placed: PlacedFace, coefficients: Coefficients, landmarks: Tensor) -> _DrawnFace:
        """A face in a crop of `TEXTURE_SIZE` pixels, its eyes as they look; `landmarks` are those of the small crop."""
        clock = time.perf_counter()
        aligned, pixels = placed.aligned, placed.photo.pixels
        large = Alignment(aligned.alignment.matrix * (TEXTURE_SIZE / CROP_SIZE), TEXTURE_SIZE)
        crop, scale = large.crop(pixels), TEXTURE_SIZE / CROP_SIZE
        photo = _tensor(crop)
        projection = self.renderer.projection(coefficients, default_intrinsics(TEXTURE_SIZE)[None])[0]
        marks = scale * landmarks.double().numpy()
        coefficients = with_gaze(self.face_model, coefficients, projection, crop, marks)
        if self.module is None:
            answer = Reconstruction(coefficients, self.renderer(coefficients))
        else:
            answer = self.module.reconstruct(photo[None], aligned.skin, coefficients=coefficients)
        coverage = torch.from_numpy(large.coverage(*pixels.shape[:2]))
        trust = 1.0 if placed.detected.doubt is None else DOUBTFUL_TRUST
        view = PhotoView(answer.rendering, photo, coverage, aligned.skin[0, 0], trust)
        return _DrawnFace(large, answer, view, time.perf_counter() - clock)


def _aligned_face(photo: Photo, alignment: Alignment, points: np.ndarray, detected: bool) -> AlignedFace:
    """The face in a crop, on which (68, 2) landmarks lie, pixels of the crop."""
    crop = alignment.crop(photo.pixels)
    skin = skin_probability(crop, points) * alignment.coverage(*photo.pixels.shape[:2])
    return AlignedFace(
        source=photo.source,
        alignment=alignment,
        image=_tensor(crop)[None],
        landmarks=torch.from_numpy(points).float()[None],
        skin=torch.from_numpy(skin).float()[None, None],
        intrinsics=default_intrinsics(CROP_SIZE)[None],
        detected=detected,
    )


def _seen_by(network: DenseNetwork, photo: Photo, alignment: Alignment) -> tuple[Tensor, float]:
    """The network's landmarks (1, 68, 2) in a crop, its pixels, and their mean deviation, percent of the face."""
    points, deviation = network.marked(_tensor(alignment.crop(photo.pixels))[None])
    extent = (points.amax(dim=1) - points.amin(dim=1)).prod(dim=1).sqrt()
    return points, float(100 * deviation.mean() / extent)


def _from_left(face: DetectedFace) -> tuple[float, float]:
    return float(face.box[0] + face.box[2]), float(face.box[1])


def fit_settings(face_model: MorphableModel, contour: bool) -> FitSettings:
    """The fitter's settings for a face model and for landmarks whose jaw marks the visible contour, or does not."""
    settings = FitSettings(moving_contour=contour)
    if face_model.expression_names:  # blend weights
        settings = replace(settings, expression_deviation=0.35, expression_bounds=(0.0, 1.0))
    if contour and face_model.name == MEASURED_MODEL:
        # Chosen on development heads: 0.0002, 0.0001 and 0.00005 leave mean shape errors of 2.72, 2.63 and 2.58 mm.
        settings = replace(settings, landmark_noise=None, photometric_noise=0.00005, learning_rate=0.06)
    return settings


def _tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) in [0, 1]"""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
