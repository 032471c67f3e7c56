"""Error of colours in pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.metrics.mean_metric import MeanMetric, StandardDeviation


def image_color_error(predicted: Tensor, true: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean RGB distance inside a mask, and its square, each averaged over an image's pixels.

    Args:
        predicted: (B, 3, H, W), clamped to [0, 1].
        true: (B, 3, H, W), clamped to [0, 1].
        mask: (B, 1, H, W) bool.

    Returns:
        (B,) mean distance and (B,) mean squared distance, in [0, sqrt(3)] and [0, 3]; NaN where the mask is empty.
    """
    squared = (predicted.clamp(0, 1) - true.clamp(0, 1)).square().sum(dim=1, keepdim=True)
    # With a product, a NaN outside the mask would enter the error.
    inside = torch.where(mask, squared, 0.0).flatten(1)
    area = mask.flatten(1).sum(dim=1)
    return inside.sqrt().sum(dim=1) / area, inside.sum(dim=1) / area


class ImageColorError(MeanMetric):
    """Mean Euclidean RGB distance inside a mask, per image and then averaged (specular paper, table 1).

    An image whose mask is empty is left out.
    """

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces; the arguments of `image_color_error`."""
        self.add(image_color_error(predicted, true, mask)[0], mask.flatten(1).any(dim=1))


class ImageColorSpread(StandardDeviation):
    """Standard deviation of that distance over the pixels of all images. Each image counts alike.

    The paper does not say whether its table's deviations are over pixels or over images. They are larger than the
    means, which only a deviation over pixels is likely to be.
    """

    def update(self, predicted: Tensor, true: Tensor, mask: Tensor) -> None:
        """Take in B faces; the arguments of `image_color_error`."""
        mean, squared = image_color_error(predicted, true, mask)
        self.add(mean, mask.flatten(1).any(dim=1), squared)
