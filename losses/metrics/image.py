"""Similarity of pictures and of identities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

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
        # `where` and not a product: a NaN outside the mask must not enter the score.
        total = torch.where(weight > 0, squared * weight, 0.0).flatten(1).sum(dim=1)
        area = weight.flatten(1).sum(dim=1)
        error = (total / area).clamp_min(_LEAST_ERROR)
        self.add(-10 * error.log10(), ~(area <= 0))


class MaskedRMSE(MeanMetric):
    """Root mean squared difference of 8-bit colours inside a mask, in [0, 255]: the mean over the images.

    An image whose mask is empty does not count.
    """

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, C, H, W), clamped to [0, 1].
            true: (B, C, H, W), clamped to [0, 1].
            mask: (B, 1, H, W) bool.
        """
        squared = (predicted.clamp(0, 1) - true.clamp(0, 1)).square().mean(dim=1, keepdim=True)
        # `where` and not a product: a NaN outside the mask must not enter the error.
        total = torch.where(mask, squared, 0.0).flatten(1).sum(dim=1)
        area = mask.flatten(1).sum(dim=1)
        self.add(255 * (total / area).sqrt(), area > 0)


class MaskedSSIM(MeanMetric):
    """Structural similarity (Wang et al. 2004) averaged inside a mask, per image and then over images, in [-1, 1].

    The window is the usual Gaussian of 11 pixels and deviation 1.5. Outside the mask the true picture replaces the
    predicted one, so that windows across the mask's border judge the face alone. An image whose mask is empty is left
    out.
    """

    higher_is_better = True

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, C, H, W), clamped to [0, 1]; H and W at least 6.
            true: (B, C, H, W), clamped to [0, 1].
            mask: (B, 1, H, W) bool.
        """
        if len(predicted) == 0:
            return
        true = true.clamp(0, 1).float()
        shown = torch.where(mask, predicted.clamp(0, 1).float(), true)
        similarity = structural_similarity_index_measure(shown, true, data_range=1.0, return_full_image=True)[1]
        inside = torch.where(mask, similarity.mean(dim=1, keepdim=True), 0.0).flatten(1).sum(dim=1)
        area = mask.flatten(1).sum(dim=1)
        self.add(inside / area, area > 0)


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
