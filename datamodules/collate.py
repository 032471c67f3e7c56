"""Samples of photographs -> batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batch import FaceBatch, MultiViewBatch

NO_VIEWS = torch.zeros(0, 3, dtype=torch.long)


def collate_faces(samples: Sequence[FaceBatch]) -> MultiViewBatch:
    """Join samples with different numbers of images; `views` is renumbered.

    Args:
        samples: groups of three views, and single views, whose `views` are absent or empty.
    """
    views, epipolar, start = [NO_VIEWS], [torch.zeros(0, dtype=torch.bool)], 0
    for sample in samples:
        if isinstance(sample, MultiViewBatch) and sample.views is not None:
            views.append(sample.views + start)
            counts = sample.epipolar
            epipolar.append(torch.ones(len(sample.views), dtype=torch.bool) if counts is None else counts)
        start += len(sample)
    return MultiViewBatch(
        image=torch.cat([sample.image for sample in samples]),
        landmarks=torch.cat([sample.landmarks for sample in samples]),
        skin=torch.cat([sample.skin for sample in samples]),
        intrinsics=torch.cat([sample.intrinsics for sample in samples]),
        contour=_joined_contour(samples),
        views=torch.cat(views),
        epipolar=torch.cat(epipolar),
    )


def group_sample(views: Sequence[FaceBatch]) -> MultiViewBatch:
    """Join views of one face, the target in the middle, into one group."""
    return replace(collate_faces(views), views=torch.arange(len(views))[None], epipolar=None)


def _joined_contour(samples: Sequence[FaceBatch]) -> Tensor | None:
    """`FaceBatch.contour` of the joined samples; None if it is false for all images, which saves work later."""
    parts = [torch.zeros(len(s), dtype=torch.bool) if s.contour is None else s.contour for s in samples]
    joined = torch.cat(parts)
    return joined if joined.any() else None
