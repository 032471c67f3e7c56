"""The parsing map: a number for every pixel that names what it shows."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.batch import MultiViewBatch, Truth

PARSING = (
    "background", "skin", "brows", "eyes", "lips", "inner_mouth", "nose", "ears", "hair", "neck", "cloth", "glasses",
    "other",
)  # fmt: skip
"""Names by number; `other` is anything else that hides a face: masks, hands, hats, microphones."""
LABEL = {name: number for number, name in enumerate(PARSING)}
FACE_MODEL = 128
"""Added where the visible surface is the face model's own, so that the true depth and coefficients hold there."""
SKIN_LABELS = tuple(LABEL[name] + FACE_MODEL for name in ("skin", "nose", "lips", "brows"))


def batch_of(image: Tensor, parsing: Tensor, depth: Tensor, rows: dict[str, Tensor], views: int) -> MultiViewBatch:
    """A batch of B drawn pictures.

    Args:
        image: (B, 3, H, W).
        parsing: (B, 1, H, W) uint8, with `FACE_MODEL` added.
        depth: (B, 1, H, W).
        rows: (B, ...) by the names of `head_cache.NUMBERS`.
        views: of each person.
    """
    skin = torch.zeros_like(depth)
    for label in SKIN_LABELS:
        skin += parsing == label
    truth = Truth(
        coefficients=rows["coefficients"],
        depth=depth,
        parsing=parsing % FACE_MODEL,
        landmarks_visible=rows["landmarks_visible"],
    )
    table = torch.arange(len(image)).view(-1, views)
    return MultiViewBatch(image, rows["landmarks"], skin, rows["intrinsics"], truth, views=table)
