"""The rendered face's landmarks, in the convention of the photograph's annotation."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from datamodules.batch import FaceBatch
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import Rendering
from renderers.jaw_contour import ContourTable, contour_table, gather_vertices, visible_landmarks
from renderers.landmarks68 import JAW_SIDES

R = TypeVar("R", bound=Rendering)


class MarkedLandmarks(nn.Module):
    """Moves the jaw's landmarks to the visible contour in the images that are marked so (`FaceBatch.contour`).

    A fixed vertex of the jaw goes out of sight when the head turns. An annotation of the outline then lies centimetres
    away from it, and a loss between the two would turn the head back. A weight of 0 would avoid that too, but the
    outline also shows how wide the cheek is. A face model that tells its own visible jaw line is
    asked for it.

    Args:
        face_model: the decoder.
    """

    candidates: Tensor
    side: Tensor

    def __init__(self, face_model: MorphableModel) -> None:
        super().__init__()
        self.face_model = face_model
        table = contour_table(face_model)
        self.register_buffer("candidates", table.candidates, persistent=False)
        self.register_buffer("side", table.side, persistent=False)

    def forward(self, rendering: R, coefficients: Coefficients, batch: FaceBatch) -> R:
        """The same rendering, with landmarks in the convention of the batch."""
        if batch.contour is None:
            return rendering
        places, own = rendering.vertices_image, self.face_model.landmark_indices
        if self.face_model.has_contour:
            moved = self.face_model.visible_landmarks(places[..., :2], coefficients.angles[:, 1])
        else:
            table = ContourTable(self.candidates, self.side)
            rows = visible_landmarks(table, own, places.detach(), coefficients.angles)
            slid = (rows != own)[..., None]  # the others may lie between vertices
            moved = torch.where(slid, gather_vertices(places, rows)[..., :2], rendering.landmarks)
        return replace(rendering, landmarks=torch.where(batch.contour[:, None, None], moved, rendering.landmarks))


def fixed_points(batch: FaceBatch) -> Tensor:
    """(B, 68) bool: the landmarks of a batch that mark the same point of the head however it is turned."""
    fixed = torch.ones(batch.landmarks.shape[:2], dtype=torch.bool, device=batch.landmarks.device)
    if batch.contour is not None:
        fixed[:, list(JAW_SIDES)] = ~batch.contour[:, None]
    return fixed
