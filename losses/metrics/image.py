"""Likeness of pictures and of identities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.identity import identity_loss
from losses.metrics.mean_metric import MeanMetric

_LEAST_ERROR = 1e-10  # equal pictures score 100 dB, not infinity


class MaskedPSNR(MeanMetric):
    """Peak signal-to-noise ratio in dB inside a mask, per image and then averaged; at most 100 dB.

    An image whose mask is empty is left out.
    """

    higher_is_better = True

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, C, H, W), clamped to [0, 1].
            true: (B, C, H, W), clamped to [0, 1].
            mask: (B, 1, H, W) bool, or weights in [0, 1].
        """
        weight = mask.float()
        squared = (predicted.clamp(0, 1) - true.clamp(0, 1)).square().mean(dim=1, keepdim=True)
        # Where, not a product: whatever stands outside the mask, be it NaN, is no part of the score.
        total = torch.where(weight > 0, squared * weight, 0.0).flatten(1).sum(dim=1)
        area = weight.flatten(1).sum(dim=1)
        error = (total / area).clamp_min(_LEAST_ERROR)
        self.add(-10 * error.log10(), ~(area <= 0))


class IdentitySimilarity(MeanMetric):
    """Mean cosine of two sets of identity features (`losses.encoders`), in [-1, 1]."""

    higher_is_better = True

    def update(self, features_a: Tensor, features_b: Tensor) -> None:
        """Take in B faces.

        Args:
            features_a: (B, D).
            features_b: (B, D).
        """
        self.add(F.cosine_similarity(features_a, features_b, dim=-1))


class CosineDistance(MeanMetric):
    """Mean of 1 - cosine of two sets of features (ROGUE, table 4), in [0, 2]."""

    def update(self, features_a: Tensor, features_b: Tensor) -> None:
        """Take in B faces.

        Args:
            features_a: (B, D).
            features_b: (B, D).
        """
        self.add(identity_loss(features_a, features_b))
