"""FaceEncoder: a frozen network whose features losses compare, with the crop it expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from losses.encoders.chip import arcface_chip, dlib_chip, dlib_five_point_chip, extract_chips
from renderers.constants import constant

Template = Literal["dlib", "dlib_five_points", "arcface"]
Color = Literal["rgb", "bgr", "gray"]
TEMPLATES = {"dlib": dlib_chip, "dlib_five_points": dlib_five_point_chip, "arcface": arcface_chip}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, by which gray recognition networks were trained


class FaceEncoder(nn.Module):
    """Images and landmarks -> identity or attribute features, through a frozen network.

    The network is kept outside the module tree. It follows the encoder's device and precision. But `parameters()` and
    checkpoints do not hold it, no optimizer or DDP reducer sees it, and `train()` leaves it in eval mode. Gradients
    flow to the images, not to its weights and not to the landmarks.

    Args:
        network: (B, C, chip_size, chip_size) normalized chips -> (B, D).
        chip_size: pixels.
        template: where the landmarks lie in the chip; `losses.encoders.chip`.
        mean: per channel, or one number for all, of chips in [0, 1].
        std: likewise; the network gets (chip - mean) / std.
        color: channels of the chip, in order.

    Attributes:
        features: D, which every subclass sets.
    """

    features: int
    mean: Tensor
    std: Tensor
    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        chip_size: int,
        template: Template,
        mean: float | Sequence[float],
        std: float | Sequence[float],
        color: Color = "rgb",
    ) -> None:
        super().__init__()
        self.chip_size = chip_size
        self.template = template
        self.color = color
        network.eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self.__dict__["network"] = network  # past nn.Module's registration: see the class docstring
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value).float().reshape(-1, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def chips(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """The upright crops of the faces that the network looks at, before they are normalized.

        Args:
            images: (B, 3, H, W) sRGB in [0, 1].
            landmarks: (B, 68, 2) continuous pixels; no gradient flows to them.

        Returns:
            (B, C, chip_size, chip_size) in [0, 1].
        """
        transform = TEMPLATES[self.template](landmarks.detach(), self.chip_size)
        chips = extract_chips(images, transform, self.chip_size)
        if self.color == "bgr":
            return chips.flip(1)
        if self.color == "gray":
            return torch.einsum("bchw,c->bhw", chips, constant(_LUMA, chips)).unsqueeze(1)
        return chips

    def forward(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """Features of the faces at the landmarks.

        Args:
            images: (B, 3, H, W) sRGB in [0, 1].
            landmarks: (B, 68, 2) continuous pixels.

        Returns:
            (B, D) features as the network gives them, not normalized.
        """
        return self.encode_chips(self.chips(images, landmarks))

    def encode_chips(self, chips: Tensor) -> Tensor:
        """(B, C, chip_size, chip_size) chips in [0, 1] -> (B, D) features."""
        return self.network((chips - self.mean) / self.std)
