"""A user's own face parsing network as the mask of a photometric term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders.file_encoder import load_network
from renderers.io.errors import UserError


class FileSegmentation(nn.Module):
    """Finds the uncovered face in an image by a network in a TorchScript or ONNX file; see `FileEncoder` for safety.

    The network is frozen. No optimizer or checkpoint holds it, because it is kept outside the module tree.

    Args:
        path: .onnx, or a TorchScript archive; (B, 3, size, size) -> (B, K, h, w) scores of K classes.
        face_classes: numbers, from 0, of the classes that are face (skin, brows, eyes, nose, lips, ...). Their softmax
            probabilities are added. The score of a network with one class goes through a sigmoid.
        size: pixels that the network takes.
        mean: per channel, or one number for all, of images in [0, 1]; ImageNet's by default.
        std: likewise; the network gets (image - mean) / std.

    Raises:
        UserError: the file is absent, of another kind or unreadable; its network does not fit; no such class.
    """

    mean: Tensor
    std: Tensor
    network: nn.Module

    def __init__(
        self,
        path: str | Path,
        face_classes: Sequence[int] = (0,),
        size: int = 512,
        mean: float | Sequence[float] = (0.485, 0.456, 0.406),
        std: float | Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        network = load_network(Path(path)).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self.__dict__["network"] = network  # past nn.Module's registration
        self.size, self.face_classes = size, list(face_classes)
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value).float().reshape(-1, 1, 1), persistent=False)
        try:
            with torch.no_grad():
                scores = self.scores(torch.rand(1, 3, size, size))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UserError(
                f"the network in {path} does not take (1, 3, {size}, {size}) images: {reason[-1]}; check size"
            ) from error
        if not isinstance(scores, Tensor) or scores.ndim != 4 or len(scores) != 1:
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UserError(f"the network in {path} answers {found} for an image where (1, K, h, w) scores belong")
        classes = scores.shape[1]
        if not self.face_classes or not all(0 <= index < classes for index in self.face_classes):
            raise UserError(f"face_classes {self.face_classes}: the network in {path} has classes 0 to {classes - 1}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def scores(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, K, h, w)"""
        return self.network((images - self.mean) / self.std)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) sRGB in [0, 1] -> (B, 1, H, W) probability of face in [0, 1]."""
        square = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        scores = self.scores(square)
        if scores.shape[1] == 1:
            face = scores.sigmoid()
        else:
            face = scores.softmax(dim=1)[:, self.face_classes].sum(dim=1, keepdim=True)
        return F.interpolate(face, size=images.shape[-2:], mode="bilinear", antialias=True).clamp(0, 1)
