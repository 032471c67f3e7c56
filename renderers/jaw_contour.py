"""The visible jaw line: on a turned head its landmarks slide along the cheek."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from renderers.face_models.base import MorphableModel
from renderers.landmarks68 import JAW_SIDES


class ContourTable(NamedTuple):
    """For each landmark of `JAW_SIDES` the vertices between it and the middle of the face, at its height.

    Attributes:
        candidates: (12, K) vertex indices, padded with the landmark's own.
        side: (12,) -1 where the landmark lies at negative x, +1 at positive x.
    """

    candidates: Tensor
    side: Tensor


def contour_table(face_model: MorphableModel) -> ContourTable:
    """The horizontal lines of the mean face that jaw landmarks slide along (Zhu et al. 2015, "High-fidelity pose and
    expression normalization", section 3.1, landmark marching)."""
    mean = face_model.mean_shape
    own = face_model.landmark_indices[list(JAW_SIDES)]
    band = 0.012 * (mean[:, 1].max() - mean[:, 1].min())
    rows = []
    for vertex in own.tolist():
        x, y, z = mean[vertex]
        inward = mean[:, 0] / x
        line = ((mean[:, 1] - y).abs() < band) & (inward > 0.35) & (inward <= 1) & (mean[:, 2] >= z - band)
        rows.append(torch.nonzero(line).flatten())
    longest = max(1, *(len(row) for row in rows))
    padded = [torch.cat([row, vertex.expand(longest - len(row) + 1)]) for row, vertex in zip(rows, own, strict=True)]
    return ContourTable(torch.stack(padded), torch.sign(mean[own, 0]))


def visible_landmarks(
    table: ContourTable | None, landmark_indices: Tensor, vertices_image: Tensor, angles: Tensor
) -> Tensor:
    """The vertices that a detector would mark: on the side that turns away, the outermost of each horizontal line.

    Args:
        table: of the face model; without it, landmarks are fixed vertices.
        landmark_indices: (68,).
        vertices_image: (B, V, 3) pixels.
        angles: (B, 3) radians.

    Returns:
        (B, 68) vertex indices.
    """
    rows = landmark_indices.expand(len(vertices_image), -1).clone()
    if table is None:
        return rows
    # The sideways direction of the face in the image, so that a rolled head's contour is found as well.
    roll = angles[:, 2].detach()
    sideways = vertices_image[..., 0] * roll.cos()[:, None] - vertices_image[..., 1] * roll.sin()[:, None]
    outward = sideways[:, table.candidates] * table.side[:, None]
    outermost = table.candidates.expand(len(rows), -1, -1).gather(2, outward.argmax(dim=2, keepdim=True)).squeeze(2)
    turned_away = angles[:, 1:2].detach() * table.side > 0
    jaw = torch.tensor(JAW_SIDES, device=rows.device)
    rows[:, jaw] = torch.where(turned_away, outermost, rows[:, jaw])
    return rows


def gather_vertices(vertices_image: Tensor, rows: Tensor) -> Tensor:
    """(B, V, C) and (B, N) vertex indices -> (B, N, C)"""
    return vertices_image.gather(1, rows.unsqueeze(-1).expand(-1, -1, vertices_image.shape[-1]))
