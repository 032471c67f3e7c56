"""A thin ResNet whose last map keeps where things are, and the heads on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from lightning_modules.components.backbones import ImageEncoder
from renderers.io.errors import within

GRID = 4  # cells along each side of the last map that the heads see
CHANNELS = 48  # of it
PARSING_CHANNELS = 32


class ThinResNet(ImageEncoder):
    """ResNet-18 with fewer channels: (B, 3, H, W) sRGB in [0, 1] -> (B, 768).

    In place of the average over the last map its cells are kept, with fewer channels: a landmark's place is read off
    them, not off what an average has mixed.

    Args:
        width: channels of the first stage, 8 to 256; each of the three others has twice those of the one before. With
            fewer, oneDNN's backward pass writes where it must not (torch 2.9, CPU, channels last).

    Raises:
        UserError: another width.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = within("width", width, 8, 256)
        stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [width * 2**stage for stage in range(4)]
        stages = [
            _stage(before, after, 1 + (before != after))
            for before, after in zip([width, *widths], widths, strict=False)
        ]
        cells = nn.Sequential(
            nn.Conv2d(widths[-1], CHANNELS, 1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(GRID),
            nn.Flatten(),
        )
        self.features = CHANNELS * GRID * GRID
        network: Any = nn.Sequential(stem, *stages, cells)
        self.network = network.to(memory_format=torch.channels_last)

    def maps(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features (B, 768), and the maps of the first three stages: 1/4, 1/8 and 1/16 of the image's side."""
        found, x = [], self.normalized(image)
        for part in self.network.children():
            x = part(x)
            found.append(x)
        return found[-1], found[1:4]


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    shortcut = None
    if before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(BasicBlock(before, after, stride, shortcut), BasicBlock(after, after))


class ParsingHead(nn.Module):
    """The maps of three stages -> (B, K, h, w) scores of K classes, as large as the first of them.

    Args:
        width: of the `ThinResNet`.
        classes: K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(width * 2**stage, PARSING_CHANNELS, 1) for stage in range(3))
        self.mix = nn.Sequential(
            nn.Conv2d(PARSING_CHANNELS, PARSING_CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(PARSING_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(PARSING_CHANNELS, classes, 1),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        resized = [nn.functional.interpolate(part(x), size) for part, x in zip(self.inputs, maps, strict=True)]
        scores: Tensor = self.mix(torch.stack(resized).sum(dim=0))
        return scores
