"""The network that ships: a thin ResNet whose last map keeps where things are, and the heads on it.

It stands apart from its training (`module`), so that a photograph is reconstructed without importing Lightning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.components.backbones import CoefficientRegressor, ImageEncoder, finite, resized
from renderers.camera import default_intrinsics, project
from renderers.coefficients import Coefficients
from renderers.face_models.default.regions import load_dense_landmarks
from renderers.face_models.linear import LinearModel
from renderers.io.errors import within
from renderers.landmarks68 import LANDMARKS

GRID = 4  # cells along each side of the last map that the heads see
CHANNELS = 48  # of it
PARSING_CHANNELS = 32
POINT_UNIT = 0.1  # shares of the crop's side that one unit of the head's output moves a point
FIRST_DEVIATION = 0.05  # of an untrained network's points, shares of the crop's side
LOG_LIMITS = (math.log(1e-3), math.log(1.0))  # of the deviation, likewise
EXPRESSION_DEVIATION = 0.25  # of blend weights


@dataclass
class DenseAnswer:
    """What the network says of B crops of S x S pixels.

    Attributes:
        coefficients: seen by the default camera.
        points: (B, N, 2) pixels, of the vertices `load_dense_landmarks`.
        log_deviation: (B, N) logarithm of each coordinate's standard deviation, pixels.
        parsing: (B, K, S / 4, S / 4) scores of the classes.
    """

    coefficients: Coefficients
    points: Tensor
    log_deviation: Tensor
    parsing: Tensor


class ThinResNet(ImageEncoder):
    """ResNet-18 with fewer channels: (B, 3, H, W) sRGB in [0, 1] -> (B, 768).

    The cells of the last map are kept, with fewer channels, where ResNet averages them: an average would lose where a
    landmark is.

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
        """The features (B, 768), and the maps of the first three stages, 1/4, 1/8 and 1/16 as wide as the image."""
        found, x = [], self.normalized(image)
        for part in self.network.children():
            x = part(x)
            found.append(x)
        return found[-1], found[1:4]


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    shortcut = None
    if before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(ResidualBlock(before, after, stride, shortcut), ResidualBlock(after, after))


class ResidualBlock(nn.Module):
    """ResNet's basic block (He et al. 2016, figure 2): two 3 x 3 convolutions beside a shortcut.

    torchvision's does the same, and its weights have the same names; importing it takes as long as importing torch.
    """

    def __init__(self, before: int, after: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        bent: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        found: Tensor = self.relu(bent + shortcut)
        return found


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


class DenseNetwork(CoefficientRegressor):
    """Coefficients, dense landmarks with their uncertainty, and a parsing map, from one aligned crop.

    Args:
        face_model: the embedded default.
        backbone: the network up to its heads.
        image_size: side of the crops that it was trained at, pixels.
        parsing_classes: of the parsing map.

    Attributes:
        answer_deviation: (I + E,) standard deviation of the errors of identity and expression on the validation heads;
            before a validation that of the coefficients themselves.
    """

    backbone: ThinResNet
    mean_points: Tensor
    answer_deviation: Tensor

    def __init__(self, face_model: LinearModel, backbone: ThinResNet, image_size: int, parsing_classes: int) -> None:
        super().__init__(backbone, face_model.layout())
        self.image_size, self.parsing_classes = within("image_size", image_size, 8, 2048), parsing_classes
        vertices = torch.from_numpy(load_dense_landmarks())
        self.points = nn.Linear(backbone.features, 3 * len(vertices))
        self.parser = ParsingHead(backbone.width, parsing_classes)
        nn.init.zeros_(self.points.weight)
        nn.init.zeros_(self.points.bias)
        self.register_buffer("mean_points", _seen(face_model.mean_shape[vertices], image_size), persistent=False)
        identity = torch.ones(face_model.identity_size)
        expression = torch.full((face_model.expression_size,), EXPRESSION_DEVIATION)
        self.register_buffer("answer_deviation", torch.cat([identity, expression]))

    def predict(self, image: Tensor) -> DenseAnswer:
        """(B, 3, S, S) sRGB in [0, 1] -> all that the network says of it."""
        features, maps = self.backbone.maps(image)
        coefficients = self.layout.split(self.head(features) * self.scale)
        offset, spread = self.points(features).unflatten(-1, (-1, 3)).split([2, 1], dim=-1)
        size = image.shape[-1]
        points = (self.mean_points + POINT_UNIT * offset) * size
        log_deviation = (math.log(FIRST_DEVIATION) + spread[..., 0]).clamp(*LOG_LIMITS) + math.log(size)
        return DenseAnswer(coefficients, points, log_deviation, self.parser(maps))

    @torch.no_grad()
    def answer(self, image: Tensor) -> Coefficients:
        """Coefficients of aligned crops (B, 3, H, W) of any size.

        Raises:
            UserError: they are not finite.
        """
        return finite(self.eval()(resized(image, self.image_size)))

    @torch.no_grad()
    def landmarks(self, image: Tensor) -> Tensor:
        """(B, 68, 2) pixels of aligned crops of any size: the iBUG points, the same of the head in every pose."""
        return self.marked(image)[0]

    @torch.no_grad()
    def marked(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`landmarks`, and the standard deviation (B, 68) of each of their coordinates, pixels."""
        answer, scale = self.eval().predict(resized(image, self.image_size)), image.shape[-1] / self.image_size
        return answer.points[:, :LANDMARKS] * scale, answer.log_deviation[:, :LANDMARKS].exp() * scale


def _seen(points: Tensor, size: int) -> Tensor:
    """(N, 2) shares of the side of a picture: where the default camera sees points (N, 3), decimetres."""
    return project(points[None], default_intrinsics(size)[None])[0, :, :2] / size
