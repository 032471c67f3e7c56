"""Reads the weights of dlib's face recognition ResNet from dlib's own file.

The file is a nested dlib::dnn object. It holds one version number per layer, outermost first; then the input layer;
then every layer's own data, input side first. An integer is a length byte (bit 7 is the sign) and that many
little-endian bytes. A float is an integer mantissa and a binary exponent. Tensors are raw float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHIP_SIZE = 150
FEATURES = 128
# (channels, strided) of the residual blocks, input side first.
BLOCKS = (
    *[(32, False)] * 3,
    (64, True), *[(64, False)] * 3,
    (128, True), *[(128, False)] * 2,
    (256, True), *[(256, False)] * 2,
    (256, True),
)  # fmt: skip


class _FormatError(ValueError):
    """The bytes are not what dlib writes for this network."""


@dataclass
class DlibWeights:
    """What the file holds.

    Attributes:
        mean: RGB mean of the input layer, in [0, 255].
        convolutions: per convolution (weight (O, I, k, k), bias (O,)), its affine layer folded in.
        linear: (256, 128).
    """

    mean: tuple[float, ...]
    convolutions: list[tuple[Tensor, Tensor]]
    linear: Tensor


class _Reader:
    """Walks through dlib-serialized bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        chunk = self.data[self.position : self.position + count]
        if len(chunk) != count:
            raise _FormatError("it ends too early")
        self.position += count
        return chunk

    def integer(self) -> int:
        control = self.take(1)[0]
        magnitude = int.from_bytes(self.take(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def integers(self, count: int) -> list[int]:
        return [self.integer() for _ in range(count)]

    def number(self) -> float:
        mantissa, exponent = self.integers(2)
        if abs(exponent) > 200:
            raise _FormatError(f"a number with exponent {exponent}")
        return mantissa * 2.0**exponent

    def text(self) -> str:
        length = self.integer()
        if not 0 <= length <= 64:
            raise _FormatError(f"a name of {length} characters")
        return self.take(length).decode("latin-1")

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise _FormatError(f"{what} is {found!r} where {wanted!r} belongs, before byte {self.position}")

    def tensor(self) -> np.ndarray:
        """The values, flat; a tensor of no elements is empty."""
        self.expect("a tensor's version", self.integer(), 2)
        shape = self.integers(4)
        count = int(np.prod(shape, dtype=object))
        if min(shape) < 0 or count * 4 > len(self.data):
            raise _FormatError(f"a tensor of shape {shape}")
        return np.frombuffer(self.take(4 * count), dtype="<f4").astype(np.float32)

    def alias(self) -> list[int]:
        self.expect("a view's version", self.integer(), 1)
        return self.integers(4)


def _read_convolution(reader: _Reader) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(weight (O, I, k, k), bias (O,), [stride y, stride x, padding y, padding x])"""
    values = reader.tensor()
    outputs, rows, columns, *geometry = reader.integers(7)
    shape, bias_shape = reader.alias(), reader.alias()
    for _ in range(4):  # learning-rate and weight-decay multipliers
        reader.number()
    reader.expect("a convolution's shape", [shape[0], *shape[2:]], [outputs, rows, columns])
    reader.expect("a bias's shape", bias_shape, [1, outputs, 1, 1])
    size = int(np.prod(shape))
    reader.expect("a convolution's number of weights", values.size, size + outputs)
    return values[:size].reshape(shape), values[size:], geometry


def _read_affine(reader: _Reader, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(gamma (C,), beta (C,))"""
    values = reader.tensor()
    for shape in (reader.alias(), reader.alias()):
        reader.expect("an affine layer's shape", shape, [1, channels, 1, 1])
    reader.expect("an affine layer's mode", reader.integer(), 0)
    reader.expect("an affine layer's number of weights", values.size, 2 * channels)
    return values[:channels], values[channels:]


def _read_linear(reader: _Reader) -> Tensor:
    outputs, inputs = reader.integers(2)
    values = reader.tensor()
    reader.expect("the last layer's shape", [inputs, outputs, values.size], [256, FEATURES, 256 * FEATURES])
    reader.alias(), reader.alias()
    reader.expect("the last layer's bias mode", reader.integer(), 1)  # 1: without a bias
    for _ in range(4):
        reader.number()
    return torch.from_numpy(values.reshape(inputs, outputs))


def _read_header(reader: _Reader) -> tuple[int, tuple[float, ...]]:
    """(number of layers with data of their own, RGB mean); stops before the first layer's data."""
    reader.expect("the file's version", reader.integer(), 1)
    reader.expect("the loss", reader.text(), "loss_metric_2")
    reader.number(), reader.number()  # margin, distance threshold: for training
    layers = 1
    while (version := reader.integer()) in (1, 2):  # 1: a tag or skip layer, which has no data
        layers += version == 2
    reader.expect("the innermost layer's version", version, 3)
    reader.expect("the input layer", reader.text(), "input_rgb_image_sized")
    mean = (reader.number(), reader.number(), reader.number())
    reader.expect("the input size", reader.integers(2), [CHIP_SIZE, CHIP_SIZE])
    return layers, mean


def _read_state(reader: _Reader) -> None:
    """Skip dlib's training state of a layer: three flags, then two gradients and an output, all empty."""
    reader.take(3)
    for _ in range(3):
        reader.tensor()


def _expected_layers() -> list[str]:
    names = ["con_4", "affine_", "relu_", "max_pool_2"]
    for _, strided in BLOCKS:
        names += ["con_4", "affine_", "relu_", "con_4", "affine_", *["avg_pool_2"] * strided, "add_prev_", "relu_"]
    return [*names, "avg_pool_2", "fc_2"]


def _expected_convolutions() -> list[tuple[tuple[int, ...], list[int]]]:
    """Per convolution: weight shape, [stride y, stride x, padding y, padding x]."""
    expected: list[tuple[tuple[int, ...], list[int]]] = [((32, 3, 7, 7), [2, 2, 0, 0])]
    channels = 32
    for outputs, strided in BLOCKS:
        expected.append(((outputs, channels, 3, 3), [2, 2, 0, 0] if strided else [1, 1, 1, 1]))
        expected.append(((outputs, outputs, 3, 3), [1, 1, 1, 1]))
        channels = outputs
    return expected


def _fused(reader: _Reader, kernel: np.ndarray, bias: np.ndarray) -> tuple[Tensor, Tensor]:
    """Fold the affine layer that follows a convolution into it: gamma (W x + b) + beta, in double precision."""
    gamma, beta = (values.astype(np.float64) for values in _read_affine(reader, len(kernel)))
    weight, shift = kernel * gamma[:, None, None, None], bias * gamma + beta
    return torch.from_numpy(weight).float(), torch.from_numpy(shift).float()


def parse_weights(data: bytes) -> DlibWeights:
    """Read the network; order, shapes, strides and padding of the layers are checked against the published net.

    Args:
        data: the whole file.

    Raises:
        ValueError: where the bytes are something else.
    """
    reader = _Reader(data)
    layers, mean = _read_header(reader)
    expected = _expected_layers()
    reader.expect("the number of layers", layers, len(expected))
    geometries = iter(_expected_convolutions())
    raw: list[tuple[np.ndarray, np.ndarray]] = []
    convolutions: list[tuple[Tensor, Tensor]] = []
    linear = torch.zeros(0)
    for number, wanted in enumerate(expected):
        reader.expect("a layer", reader.text(), wanted)
        if wanted == "con_4":
            kernel, bias, geometry = _read_convolution(reader)
            reader.expect("a convolution", (kernel.shape, geometry), next(geometries))
            raw.append((kernel, bias))
        elif wanted == "affine_":
            convolutions.append(_fused(reader, *raw[-1]))
        elif wanted == "max_pool_2":
            reader.expect("the first pooling", reader.integers(6), [3, 3, 2, 2, 0, 0])
        elif wanted == "avg_pool_2":
            everything = number == len(expected) - 2
            reader.expect("a pooling", reader.integers(6), [0, 0, 1, 1, 0, 0] if everything else [2, 2, 2, 2, 0, 0])
        elif wanted == "fc_2":
            linear = _read_linear(reader)
        _read_state(reader)
        if number == 0:
            reader.expect("the sample expansion", reader.integer(), 1)  # kept by the layer next to the input alone
    reader.expect("the number of bytes after the last layer", len(data) - reader.position, 0)
    return DlibWeights(mean, convolutions, linear)
