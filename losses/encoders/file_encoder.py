"""A user's own network, TorchScript or ONNX, with the interface of the embedded one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from losses.encoders.encoder import Color, FaceEncoder, Template
from renderers.io.errors import UserError

_TORCHSCRIPT = (".pt", ".ts", ".pth", ".jit")


class FileEncoder(FaceEncoder):
    """Features of a network in a file, for identity (FaceNet, VGG-Face, ArcFace, LightCNN) or for attributes.

    The defaults are ArcFace's: RGB chips of 112 px aligned by five points, scaled to [-1, 1]. The network gets
    (B, C, chip_size, chip_size) and must answer (B, D).

    An ONNX file is data, and safe to load. A TorchScript archive is a program of torch operators, some of which read
    and write files: load it only from people you trust. Python's pickle never reads it. torch's own C++ reader does,
    which knows tensors and TorchScript classes and refuses every Python global.

    Args:
        path: .onnx (weights inside or beside it), or a TorchScript archive: .pt, .ts, .pth, .jit.
        chip_size: pixels.
        mean: per channel, or one number for all, of chips in [0, 1].
        std: likewise; the network gets (chip - mean) / std. For a network of 0..255 give std = 1/255.
        template: "arcface" (five points), "dlib" (68 points, 150 px layout with a quarter of padding) or
            "dlib_five_points" (a fifth of padding), scaled to chip_size.
        color: order of the chip's channels; "gray" gives one channel.

    Attributes:
        features: D.

    Raises:
        UserError: the file is absent, of another kind or unreadable, or its network does not fit such chips.
    """

    def __init__(
        self,
        path: str | Path,
        chip_size: int = 112,
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        template: Template = "arcface",
        color: Color = "rgb",
    ) -> None:
        super().__init__(load_network(Path(path)), chip_size, template, mean, std, color)
        chips = torch.rand(2, 1 if color == "gray" else 3, chip_size, chip_size)
        try:
            with torch.no_grad():
                features = self.encode_chips(chips)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"the network in {path} does not take {tuple(chips.shape)} chips: {_lines(error)[-1]}; "
                "check chip_size, color, mean and std, and that its batch axis is free"
            ) from error
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 2:
            found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise UserError(f"the network in {path} answers {found} for 2 chips where (2, D) features belong")
        self.features = features.shape[1]


def load_network(path: Path) -> nn.Module:
    """A network from a TorchScript archive or an ONNX file, on the CPU.

    Raises:
        UserError: the file is absent, of another kind or unreadable.
    """
    if not path.is_file():
        raise UserError(f"no encoder file at {path}: put it there, or name another path")
    if path.suffix == ".onnx":
        return _load_onnx(path)
    if path.suffix not in _TORCHSCRIPT:
        raise UserError(f"{path} has an unknown ending: give .onnx, or {', '.join(_TORCHSCRIPT)} for TorchScript")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch announces that it will prefer torch.export
            return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = f"{path} is not a TorchScript archive: {_lines(error)[0]}"
        raise UserError(f"{reason}; write one with torch.jit.trace(network, chips).save(path)") from error


def _load_onnx(path: Path) -> nn.Module:
    import onnx2torch

    try:
        return onnx2torch.convert(str(path))
    except Exception as error:  # protobuf's, onnx's checker's and onnx2torch's errors share no narrower base
        raise UserError(f"{path} cannot be read as ONNX and converted to torch: {_lines(error)[-1]}") from error


def _lines(error: Exception) -> list[str]:
    """The lines of a message that say something, at least one."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
