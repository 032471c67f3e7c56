"""The dlib face recognition ResNet in torch: the identity encoder of the embedded default."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders.dlib_weights import BLOCKS, CHIP_SIZE, FEATURES, DlibWeights, parse_weights
from losses.encoders.encoder import FaceEncoder
from renderers.io.errors import UserError, within
from renderers.io.packaged_files import packaged_file

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
SMALLEST_CHIP = 103  # below it the last strided convolution has less than its 3 x 3 window left
_INPUT_SCALE = 256.0


class DlibResNet(nn.Module):
    """dlib's ResNet-34 with half the filters, affine layers folded into the convolutions.

    Args:
        weights: of every layer.
    """

    def __init__(self, weights: DlibWeights) -> None:
        super().__init__()
        strides = [2, *(stride for _, strided in BLOCKS for stride in (2 if strided else 1, 1))]
        self.convolutions = nn.ModuleList(
            _convolution(weight, bias, stride)
            for (weight, bias), stride in zip(weights.convolutions, strides, strict=True)
        )
        self.linear = nn.Linear(weights.linear.shape[0], weights.linear.shape[1], bias=False)
        self.linear.weight.data = weights.linear.T.contiguous()

    def forward(self, chips: Tensor) -> Tensor:
        """(B, 3, S, S) normalized chips, S >= 103 -> (B, 128)"""
        return self.embedding(self.maps(chips)[-1])

    def maps(self, chips: Tensor) -> list[Tensor]:
        """(B, 3, S, S) normalized chips -> the fourteen residual blocks' answers, (B, C, h, w) each."""
        stem, *convolutions = self.convolutions
        features = F.max_pool2d(F.relu(stem(chips)), kernel_size=3, stride=2)
        answers = []
        for first, second, (_, strided) in zip(convolutions[::2], convolutions[1::2], BLOCKS, strict=True):
            branch = second(F.relu(first(features)))
            shortcut = F.avg_pool2d(features, 2) if strided else features
            features = F.relu(_padded_sum(branch, shortcut) if strided else branch + shortcut)
            answers.append(features)
        return answers

    def embedding(self, features: Tensor) -> Tensor:
        """(B, 256, h, w) the last block's answer -> (B, 128)"""
        return self.linear(features.mean(dim=(-2, -1)))


def _convolution(weight: Tensor, bias: Tensor, stride: int) -> nn.Conv2d:
    outputs, inputs, size, _ = weight.shape
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)
    # Channels last makes the whole network a fifth faster on CPUs.
    layer.weight.data, layer.bias = weight.contiguous(memory_format=torch.channels_last), nn.Parameter(bias)
    return layer


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """dlib's add_prev: the sum of two maps, each padded with zeros to the larger number of channels, rows, columns."""
    shape = [max(sizes) for sizes in zip(a.shape[1:], b.shape[1:], strict=True)]

    def padded(x: Tensor) -> Tensor:
        missing = [wanted - size for wanted, size in zip(shape, x.shape[1:], strict=True)]
        return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))

    return padded(a) + padded(b)


class DlibEncoder(FaceEncoder):
    """128-D features of dlib's face recognition network (CC0), read from the package `face_recognition_models`.

    At 150 px the features equal `dlib.face_recognition_model_v1.compute_face_descriptor` on the same chip. dlib
    compares them by distance (below 0.6: the same person); their cosine is high between any two faces.

    Args:
        chip_size: pixels, at least 103; the network is fully convolutional up to its global mean. 135 px give nearly
            the features of 150 px (cosine 0.97) in four fifths of the time. Below 135 px the last map shrinks from
            2 x 2 to 1 x 1, and the features become others (cosine 0.6): never compare them with those of another size.
            112 px take half the time and still tell people apart: the area under the ROC curve is 0.998 (0.9995 at
            150 px), on jittered views of the 100 faces of scikit-image's `lfw_subset`.
        weights: another file of the same network.

    Attributes:
        features: 128.

    Raises:
        UserError: the file is absent, truncated or of another network; the chip is too small.
    """

    def __init__(self, chip_size: int = CHIP_SIZE, weights: str | Path | None = None) -> None:
        within("chip_size", chip_size, SMALLEST_CHIP, 1024)
        path = packaged_file(WEIGHTS) if weights is None else Path(weights)
        try:
            parsed = parse_weights(path.read_bytes())
        except OSError as error:
            raise UserError(f"cannot read the identity network {path}: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{path} is not dlib's face recognition network: {error}; fetch it again") from error
        super().__init__(
            DlibResNet(parsed),
            chip_size,
            template="dlib",
            mean=[channel / 255 for channel in parsed.mean],
            std=_INPUT_SCALE / 255,
        )
        self.features = FEATURES
