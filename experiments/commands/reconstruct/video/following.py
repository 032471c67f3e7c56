"""One person through the frames of a clip: found once, followed from frame to frame, found again where lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.alignment import align
from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.reconstruct.face import CROP_SIZE
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.pipeline import FAR_APART, PlacedFace, ReconstructionPipeline
from experiments.commands.reconstruct.same_person import most_alike
from experiments.commands.reconstruct.tracking import same_scene, scene_of
from experiments.commands.reconstruct.video.clip_file import Clip, Frame
from lightning_modules.components.backbones import resized
from losses.encoders import DlibEncoder
from renderers.io.errors import UserError
from renderers.landmarks68 import JAW, LANDMARKS

SEARCHED = 8  # of a lost face: every which frame is searched as a whole, which takes long
STRANGER = 0.6  # distance of dlib's features from which two faces are two people's (dlib's own limit)


@dataclass(frozen=True)
class Found:
    """The person in one frame.

    Attributes:
        landmarks: (68, 2) frame pixels.
        expected: (E,) the expression by the network; zeros without one.
    """

    landmarks: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Cast:
    """Who is in a clip.

    Attributes:
        placed: the person who is followed, in some frames.
        feature: (128,) the mean of dlib's identity features.
        most: people in one of these frames, at most.
    """

    placed: list[PlacedFace]
    feature: Tensor
    most: int


def find_person(clip: Clip, pipeline: ReconstructionPipeline) -> Cast:
    """The person who is followed: the largest face of the frame with the fewest faces, and in others the most alike.

    Raises:
        UserError: nobody is in these frames.
    """
    found = []
    for frame in clip.spread:
        photo = _photo(clip, frame)
        faces = pipeline.detector.detect(photo.pixels)
        placed = [pipeline.placed(photo, face) for face in faces]
        if placed:
            found.append(placed)
    if not found:
        raise UserError(
            f"{clip.path}: no face found in {len(clip.spread)} of its frames, from the first to the last; try a "
            "sharper, more frontal or larger picture"
        )
    placed, features = most_alike(found)
    lead = features.median(dim=0).values
    near = [k for k in range(len(placed)) if float((features[k] - lead).norm()) < STRANGER] or [0]
    sure = [k for k in near if placed[k].detected.doubt is None]
    chosen = sure if len(sure) >= 2 else near
    return Cast([placed[k] for k in chosen], features[near].mean(dim=0), max(len(faces) for faces in found))


def _photo(clip: Clip, frame: Frame) -> Photo:
    return Photo(f"frame_{frame.number}", f"{clip.path}, frame {frame.number}", frame.pixels)


class Follower:
    """Follows a person through frames that come in their order.

    Args:
        clip: of the frames.
        pipeline: what finds faces and their points.
        cast: who is followed.

    Attributes:
        scene: number of the stretch of frames without a cut.
    """

    def __init__(self, clip: Clip, pipeline: ReconstructionPipeline, cast: Cast) -> None:
        self._clip, self._pipeline, self._cast = clip, pipeline, cast
        self._encoder = DlibEncoder()
        self._before: np.ndarray | None = None
        self.scene = 0
        self._picture: np.ndarray | None = None
        self._lost = 0

    def resume(self, last: Frame, found: np.ndarray | None, scene: int, lost: int) -> None:
        """Go on after a frame that an earlier run has followed the person to.

        Args:
            last: that frame.
            found: (68, 2) the last landmarks that are known of the scene.
            scene: its number.
            lost: frames since then.
        """
        self._picture, self._before, self.scene, self._lost = scene_of(last.pixels), found, scene, lost

    def follow(self, frame: Frame) -> Found | None:
        """The person in the next frame; None where nobody is seen, or somebody else."""
        picture = scene_of(frame.pixels)
        if self._picture is not None and not same_scene(self._picture, picture):
            self._before, self._lost, self.scene = None, 0, self.scene + 1
        self._picture = picture
        face = None if self._before is None else self._pipeline.detector.follow(frame.pixels, self._before)
        if face is None and self._lost % SEARCHED == 0:
            face = self._search(frame)
        self._lost = 0 if face is not None else self._lost + 1
        if face is None:
            return None
        near = face.landmarks if self._before is None else self._before
        try:
            found = seen_face(self._pipeline, frame.pixels, face.landmarks, near)
        except ValueError as error:
            raise UserError(f"{self._clip.path}, frame {frame.number}: {error}") from error
        self._before = found.landmarks
        return found

    def _search(self, frame: Frame) -> DetectedFace | None:
        photo = _photo(self._clip, frame)
        placed = [self._pipeline.placed(photo, face) for face in self._pipeline.detector.detect(frame.pixels)]
        if not placed:
            return None
        images = torch.cat([one.aligned.image for one in placed])
        with torch.no_grad():
            features = self._encoder(images, torch.cat([one.aligned.landmarks for one in placed]))
        distances = (features - self._cast.feature).norm(dim=1)
        if float(distances.min()) > STRANGER:
            return None
        return placed[int(distances.argmin())].detected


def seen_face(pipeline: ReconstructionPipeline, pixels: np.ndarray, landmarks: np.ndarray, near: np.ndarray) -> Found:
    """What detector and network say together.

    Their errors have little in common, so that the mean of their points has less of both; of the jaw the network alone
    marks fixed points. Where they lie far apart the detector is wrong.

    Args:
        pipeline: whose network is asked.
        pixels: (H, W, 3) uint8.
        landmarks: (68, 2) by the detector.
        near: (68, 2) by which the network's crop is placed.

    Raises:
        ValueError: landmarks that place no face.
    """
    network = pipeline.shipped
    if network is None:
        return Found(landmarks, np.zeros(pipeline.face_model.layout().sizes["expression"], np.float32))
    alignment = align(near, pipeline.template, CROP_SIZE)
    crop = torch.from_numpy(alignment.crop(pixels)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        answer = network.predict(resized(crop, network.image_size))
    points = alignment.to_photo(answer.points[0, :LANDMARKS].double().numpy() * (CROP_SIZE / network.image_size))
    box = float(np.sqrt(np.prod(np.ptp(points, axis=0))))
    apart = 100 * float(np.linalg.norm(points - landmarks, axis=1).mean()) / box
    if apart < FAR_APART:
        points[JAW.stop :] = (points[JAW.stop :] + landmarks[JAW.stop :]) / 2
    return Found(points, answer.coefficients.expression[0].numpy())
