"""Metrics of highlights, and of the direction of the light that causes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from losses.metrics.mean_metric import MeanMetric


def masked_correlation(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Pearson's correlation of two pictures' mean channel inside a mask.

    Args:
        predicted: (B, 3, H, W).
        true: (B, 3, H, W).
        mask: (B, 1, H, W) bool.

    Returns:
        (B,) in [-1, 1]; 0 where either picture has one value everywhere.
    """
    inside = mask.flatten(1).to(predicted.dtype)
    count = inside.sum(dim=1, keepdim=True).clamp_min(1)

    def centred(picture: Tensor) -> Tensor:
        gray = torch.where(mask, picture.mean(dim=1, keepdim=True), 0.0).flatten(1)
        return inside * (gray - gray.sum(dim=1, keepdim=True) / count)

    return cosine_similarity(centred(predicted), centred(true), dim=1)


class SpecularCorrelation(MeanMetric):
    """`masked_correlation` of specular pictures, averaged over images; an image whose mask is empty is left out."""

    higher_is_better = True

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces; the arguments of `masked_correlation`."""
        self.add(masked_correlation(predicted, true, mask), mask.flatten(1).any(dim=1))


class LightDirectionError(Metric):
    """Median angle in degrees between the directions in which two lights are seen from the face."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    angles: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("angles", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, true: Tensor, predicted_origin: Tensor, true_origin: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 3) position of the light, in any unit.
            true: (B, 3) likewise.
            predicted_origin: (B, 3) where the predicted face is.
            true_origin: (B, 3) where the true face is.
        """
        cosine = cosine_similarity(predicted - predicted_origin, true - true_origin, dim=-1)
        self.angles.append(torch.rad2deg(cosine.clamp(-1, 1).acos()))

    def compute(self) -> Tensor:
        """Scalar, degrees."""
        return torch.quantile(dim_zero_cat(self.angles).float(), 0.5)
