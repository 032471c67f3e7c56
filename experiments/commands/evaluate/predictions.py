"""A checkpoint's predictions from photographs: aligned crops, coefficients, pictures, and shapes in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.alignment import Alignment, align, model_template
from datamodules.preparation.landmarks import LandmarkDetector, best_detector
from datamodules.preparation.photo_file import read_photo
from experiments.commands.reconstruct.face import CROP_SIZE
from lightning_modules.base import FaceModule
from losses.metrics.scan import PredictedFace
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering
from renderers.io.errors import UserError
from renderers.units import MILLIMETRES

HIDDEN = ("inner_mouth", "eyes")  # regions that scanners do not see, or see badly
NONE = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Crop:
    """A photograph's face as the network sees it.

    Attributes:
        image: (3, S, S) in [0, 1], where S is the size at which the network was trained.
        alignment: photograph <-> crop.
    """

    image: Tensor
    alignment: Alignment


class Predictor:
    """Reconstructs photographs with a trained network.

    Args:
        module: in eval mode, on the device it is to run on.
    """

    def __init__(self, module: FaceModule) -> None:
        self.module = module
        self.template = model_template(module.face_model, CROP_SIZE)

    @cached_property
    def detector(self) -> LandmarkDetector:
        """Finds faces in photographs without landmarks."""
        return best_detector()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.module.face_model.mean_shape.device

    def crop(self, photo: np.ndarray, landmarks: np.ndarray) -> Crop:
        """The face at (68, 2) landmarks of an (H, W, 3) uint8 photograph.

        Raises:
            UserError: landmarks that place no face.
        """
        try:
            alignment = align(landmarks, self.template, CROP_SIZE)
        except ValueError as error:
            raise UserError(str(error)) from None
        size = self.module.image_size
        alignment = Alignment(alignment.matrix * (size / CROP_SIZE), size)
        pixels = torch.from_numpy(np.ascontiguousarray(alignment.crop(photo)))
        return Crop(pixels.permute(2, 0, 1).float() / 255, alignment)

    def find(self, path: Path) -> Crop:
        """The largest face of a photograph whose landmarks are sure; if there is none, the largest face.

        Raises:
            UserError: a file that is no photograph, or one without a face.
        """
        photo = read_photo(path)
        found = self.detector.detect(photo)
        if not found:
            raise UserError(f"{path}: no face found")
        return self.crop(photo, max(found, key=lambda face: (face.doubt is None, face.area)).landmarks)

    def draw(self, images: Tensor) -> Rendering:
        """(B, 3, S, S) crops -> their faces, drawn into these crops.

        Raises:
            UserError: the network answers with values that are not finite.
        """
        return self.module.reconstruct(images.to(self.device)).rendering

    @torch.no_grad()
    def mean_face(self, images: Tensor, neutral: bool, batch_size: int) -> PredictedFace:
        """The mean of the shapes of (B, 3, S, S) crops, in model space and millimetres.

        Args:
            images: of one person.
            neutral: whether the expression is left out, for a scan of a neutral face.
            batch_size: crops at a time.
        """
        model = self.module.face_model
        total = torch.zeros_like(model.mean_shape, dtype=torch.float64)
        for part in images.split(batch_size):
            answer = self.module.answer(part.to(self.device))
            expression = torch.zeros_like(answer.expression) if neutral else answer.expression
            total += model.shape(answer.identity, expression).double().sum(dim=0)
        return predicted_face(model, total / len(images))


def predicted_face(face_model: MorphableModel, shape: Tensor) -> PredictedFace:
    """A shape in the form that the benchmarks' measures take.

    Args:
        face_model: the model of the shape.
        shape: (V, 3) or (1, V, 3) decimetres.
    """
    hidden = [region.cpu() for name, region in face_model.regions.items() if name in HIDDEN]
    return PredictedFace(
        vertices=(shape.reshape(-1, 3).double() * MILLIMETRES).cpu().numpy(),
        faces=face_model.faces.cpu().numpy(),
        landmark_indices=face_model.landmark_indices.cpu().numpy(),
        hidden=torch.cat([NONE, *hidden]).numpy(),
    )


def ready(module: FaceModule) -> FaceModule:
    """The module in eval mode, on the GPU if there is one."""
    return module.eval().to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
