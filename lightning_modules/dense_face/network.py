"""The network that ships: a thin ResNet whose last map keeps where things are, and the heads on it.

It stands apart from its training (`module`), so that a photograph is reconstructed without importing Lightning.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lightning_modules.components.backbones import CoefficientRegressor, ImageEncoder, finite, resized
from renderers.camera import default_intrinsics, project
from renderers.coefficients import Coefficients
from renderers.face_models.default.regions import load_dense_landmarks
from renderers.face_models.linear import LinearModel
from renderers.io.errors import within
from renderers.landmarks68 import LANDMARKS, LEFT_EYE, MIRROR, RIGHT_EYE

GRID = 4  # cells along each side of the last map that the heads see
CHANNELS = 48  # of it
PARSING_CHANNELS = 32
POINT_UNIT = 0.1  # shares of the crop's side that one unit of the head's output moves a point
FIRST_DEVIATION = 0.05  # of an untrained network's points, shares of the crop's side
LOG_LIMITS = (math.log(1e-3), math.log(1.0))  # of the deviation, likewise
EXPRESSION_DEVIATION = 0.25  # of blend weights
COARSE = 2  # pixels of the crop along each side of one that the backbone sees
EYE_PATCH = (48, 64)  # height and width of what is seen of an eye once more, pixels of a crop of `EYE_CROP`
EYE_CROP = 224
EYE_LAYERS = ((24, 2), (48, 2), (64, 1), (64, 2))  # channels and strides
EYE_FEATURES = 96
EYE_UNITS = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")


@dataclass
class DenseAnswer:
    """What the network says of B crops of S x S pixels.

    Attributes:
        coefficients: seen by the default camera.
        first: the same before the eyes were seen once more, see `EyeHead`.
        points: (B, N, 2) pixels, of the vertices `load_dense_landmarks`.
        log_deviation: (B, N) logarithm of each coordinate's standard deviation, pixels.
        parsing: (B, K, S / 8, S / 8) scores of the classes.
    """

    coefficients: Coefficients
    first: Coefficients
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


class EyeHead(nn.Module):
    """Sees each eye once more, pixel by pixel, and corrects what the network said of it.

    Open lids are some 12 pixels of 224 apart, and the maps of the backbone have cells of 8 pixels and more. The left
    eye is mirrored, so that one network sees both. Each also knows what was seen of the other: in a head that is
    turned, one eye is seen from the side or not at all.

    Args:
        features: of the backbone, which tell pose and light.
        expressions: names of the face model's expressions.
    """

    offsets: Tensor
    order: Tensor
    across: Tensor
    units: Tensor

    def __init__(self, features: int, expressions: Sequence[str]) -> None:
        super().__init__()
        widths, shrunk = [3, *(width for width, _ in EYE_LAYERS)], math.prod(stride for _, stride in EYE_LAYERS)
        layers = [
            _convolution(before, after, stride) for before, (after, stride) in zip(widths, EYE_LAYERS, strict=False)
        ]
        self.look = nn.Sequential(*layers, nn.Flatten())
        cells = math.prod(side // shrunk for side in EYE_PATCH)
        # Without the norm all units ended below 0 within some thousand steps, where they learn nothing more.
        self.seen = nn.Sequential(nn.Linear(widths[-1] * cells, EYE_FEATURES), nn.LayerNorm(EYE_FEATURES))
        self.other = nn.Linear(EYE_FEATURES, EYE_FEATURES, bias=False)
        self.known = nn.Linear(features, EYE_FEATURES)
        self.corners = RIGHT_EYE.stop - RIGHT_EYE.start
        self.correction = nn.Linear(EYE_FEATURES, len(EYE_UNITS) + 3 * self.corners)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        height, width = EYE_PATCH
        y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
        offsets = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        self.register_buffer("offsets", offsets, persistent=False)
        # The k-th landmark of the right eye is in the mirror another one of the left eye.
        order = torch.from_numpy(MIRROR[LEFT_EYE] - RIGHT_EYE.start)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("across", torch.tensor([-1.0, 1.0, 1.0]), persistent=False)
        self.register_buffer("units", eye_units(expressions), persistent=False)
        self.register_load_state_dict_pre_hook(_knowing_nothing_of_the_other)

    def forward(self, image: Tensor, features: Tensor, expression: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to expressions and points.

        Args:
            image: (B, 3, S, S), normalized.
            features: (B, F) of the backbone.
            expression: (B, E) weights, for their shape.
            points: (B, N, 2) pixels, the 68 landmarks first.

        Returns:
            (B, E) for the weights; (B, N, 3) for the points' places and their spread in units of the network's head.
        """
        eyes = torch.cat([self._patch(image, points[:, RIGHT_EYE]), self._patch(image, points[:, LEFT_EYE]).flip(-1)])
        known, seen = self.known(features), self.seen(self.look(eyes))
        right, left = seen.chunk(2)
        found = self.correction((seen + self.other(torch.cat([left, right])) + torch.cat([known, known])).relu())
        weights, marks = found.split([len(EYE_UNITS), 3 * self.corners], dim=-1)
        right, left = marks.unflatten(-1, (self.corners, 3)).chunk(2)
        left = left[:, self.order] * self.across
        change = torch.zeros_like(expression)
        change[:, self.units[0]], change[:, self.units[1]] = weights.chunk(2)
        moved = points.new_zeros(*points.shape[:2], 3)
        moved[:, RIGHT_EYE], moved[:, LEFT_EYE] = right, left
        return EXPRESSION_DEVIATION * change, moved

    def _patch(self, image: Tensor, eye: Tensor) -> Tensor:
        """(B, 3, h, w) the pixels round the landmarks (B, 6, 2) of an eye, without a gradient for the landmarks."""
        size = image.shape[-1]
        places = eye.detach().mean(dim=1)[:, None, None] + self.offsets * (size / EYE_CROP)
        grid = 2 * places / size - 1
        return nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _knowing_nothing_of_the_other(eyes: nn.Module, weights: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Weights of before version 0.2 lack those of the other eye; without any it has no say, as then."""
    assert isinstance(eyes, EyeHead)
    weights.setdefault(f"{prefix}other.weight", torch.zeros_like(eyes.other.weight))


def eye_units(expressions: Sequence[str]) -> Tensor:
    """(2, 7) where the right and the left eye's `EYE_UNITS` are among the names of a face model's expressions."""
    return torch.tensor([[expressions.index(unit + side) for unit in EYE_UNITS] for side in ("Right", "Left")])


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class DenseNetwork(CoefficientRegressor):
    """Coefficients, dense landmarks with their uncertainty, and a parsing map, from one aligned crop.

    Args:
        face_model: the embedded default.
        backbone: the network up to its heads.
        image_size: side of the crops that it was trained at, pixels. The backbone sees them half as large.
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
        self.eyes = EyeHead(backbone.features, face_model.expression_names)
        nn.init.zeros_(self.points.weight)
        nn.init.zeros_(self.points.bias)
        self.register_buffer("mean_points", _seen(face_model.mean_shape[vertices], image_size), persistent=False)
        identity = torch.ones(face_model.identity_size)
        expression = torch.full((face_model.expression_size,), EXPRESSION_DEVIATION)
        self.register_buffer("answer_deviation", torch.cat([identity, expression]))

    @cached_property
    def digest(self) -> str:
        """Twelve digits that change with the weights, which must not change any more."""
        content = b"".join(value.cpu().numpy().tobytes() for value in self.state_dict().values())
        return hashlib.sha256(content).hexdigest()[:12]

    def predict(self, image: Tensor) -> DenseAnswer:
        """(B, 3, S, S) sRGB in [0, 1] -> all that the network says of it."""
        features, maps = self.backbone.maps(avg_pool2d(image, COARSE))
        first = self.layout.split(self.head(features) * self.scale)
        raw, size = self.points(features).unflatten(-1, (-1, 3)), image.shape[-1]
        change, moved = self.eyes(self.backbone.normalized(image), features, first.expression, self._placed(raw, size))
        raw = raw + moved
        log_deviation = (math.log(FIRST_DEVIATION) + raw[..., 2]).clamp(*LOG_LIMITS) + math.log(size)
        coefficients = replace(first, expression=first.expression + change)
        return DenseAnswer(coefficients, first, self._placed(raw, size), log_deviation, self.parser(maps))

    def forward(self, image: Tensor) -> Coefficients:
        return self.predict(image).coefficients

    def _placed(self, raw: Tensor, size: int) -> Tensor:
        """(B, N, 2) pixels of a picture with sides of `size`, of the head's outputs (B, N, 3)."""
        return (self.mean_points + POINT_UNIT * raw[..., :2]) * size

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
