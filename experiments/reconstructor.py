"""Photographs to faces in Python: `from experiments import Reconstructor`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.loading import load_pipeline
from experiments.commands.reconstruct.photo import Photo, open_photo
from renderers.io.errors import UserError

Picture = str | Path | np.ndarray | Image.Image


class Reconstructor:
    """Finds the faces of photographs; loads everything once.

        face = Reconstructor()("me.jpg")
        face.vertices, face.faces, face.uv, face.texture, face.landmarks, face.camera

    A photograph is a file's path, a PIL image, or an (H, W, 3) uint8 sRGB array. Answers are NumPy arrays and plain
    numbers; see `ReconstructedFace`.

    Args:
        checkpoint: a trained network, where the fit starts; the shipped network where absent.
        face_model: `default` or a file's path; the checkpoint's, or the embedded one, where absent.
        detector: of landmarks: auto, dlib or face-alignment.
        refine: False takes the network's answer as it is, without the fit.
        device: where faces are fitted; a GPU where there is one, if absent.

    Raises:
        UserError: a checkpoint or a detector that cannot be had.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        face_model: str | None = None,
        detector: str = "auto",
        refine: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        path = None if checkpoint is None else Path(checkpoint)
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.pipeline = load_pipeline(path, face_model, detector, refine, device=chosen)

    def __call__(self, photo: Picture) -> ReconstructedFace:
        """The largest face of a photograph.

        Raises:
            UserError: not a picture, or no face in it.
        """
        return max(self.faces(photo), key=lambda face: face.detected.area)

    def faces(self, photo: Picture) -> list[ReconstructedFace]:
        """Every face of a photograph, from left to right.

        Raises:
            UserError: not a picture, or no face in it.
        """
        return self.pipeline.reconstruct(_photo(photo))

    def batches(self, photos: Iterable[Picture], size: int = 16) -> Iterator[list[ReconstructedFace]]:
        """The faces of each photograph, from left to right; an empty list for one without a face.

        Args:
            photos: any number; no more than `size` of them are held at a time.
            size: photographs whose faces are fitted at once. A GPU gains by more, a CPU hardly.

        Raises:
            UserError: not a picture.
        """
        waiting = iter(photos)
        while some := [_photo(photo) for photo in islice(waiting, size)]:
            yield from self.pipeline.reconstruct_batch(some)


def _photo(picture: Picture) -> Photo:
    if isinstance(picture, str | Path):
        return open_photo(Path(picture))
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(f"a picture must be (H, W, 3) uint8 sRGB, and this is {pixels.shape} {pixels.dtype}")
    return Photo("picture", "an array", np.ascontiguousarray(pixels))
