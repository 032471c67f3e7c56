"""Encoders and decoders of small U-Nets. They are separate classes, so that two encoders can feed one decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.io.errors import within

SLOPE = 0.1  # of the leaky rectifiers


class ConvolutionBlock(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by a leaky rectifier: (B, inputs, h, w) -> (B, outputs, h, w).

    It has no normalisation layers, because these would remove the strength of a detail.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        for convolution in (first, second):
            nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
        super().__init__(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE))


class Encoder(nn.Module):
    """Picture -> features at its own scale and at coarser ones.

    Args:
        inputs: channels of the picture that enters at each scale, the finest first; 0 where none enters.
        widths: channels of the features at each scale.
    """

    def __init__(self, inputs: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        within("scales of channels", len(widths), 1, 8)
        for width in widths:
            within("channels", width, 1, 1024)
        before = [0, *widths[:-1]]
        pairs = zip(inputs, before, widths, strict=True)
        self.blocks = nn.ModuleList(ConvolutionBlock(joins + above, width) for joins, above, width in pairs)
        self.inputs = tuple(inputs)

    def forward(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Encodes pictures.

        Args:
            pictures: one for each scale where one enters, the finest first. Each is (B, inputs, h, w); from scale to
                scale the sides are halved, rounding up.

        Returns:
            Features, one a scale, each (B, width, h, w).
        """
        entering = iter(pictures)
        features: list[Tensor] = []
        for block, joins in zip(self.blocks, self.inputs, strict=True):
            parts = [next(entering)] if joins else []
            if features:
                parts.append(F.avg_pool2d(features[-1], 2, ceil_mode=True, count_include_pad=False))
            features.append(block(torch.cat(parts, dim=1)))
        return features


class Decoder(nn.Module):
    """From features at several scales back to the finest one.

    Args:
        inputs: channels of the features at each scale, the finest first.
        widths: channels of each scale's output; the first is that of the result.
    """

    def __init__(self, inputs: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        below = [*widths[1:], 0]
        pairs = zip(inputs, below, widths, strict=True)
        self.blocks = nn.ModuleList(ConvolutionBlock(given + deeper, width) for given, deeper, width in pairs)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Decodes features.

        Args:
            features: at each scale, the finest first, each (B, channels, h, w).

        Returns:
            (B, widths[0], H, W)
        """
        result: Tensor | None = None
        for block, given in zip(reversed(self.blocks), reversed(features), strict=True):
            parts = [given]
            if result is not None:
                parts.append(F.interpolate(result, size=given.shape[-2:], mode="bilinear", align_corners=False))
            result = block(torch.cat(parts, dim=1))
        assert result is not None
        return result


def quiet_head(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1 x 1 convolution that starts at zero, so that an untrained network changes nothing."""
    head = nn.Conv2d(inputs, outputs, 1)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head
