"""Small parts of a module: an encoder that needs no file, a regressor that answers what it was told."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losses.encoders import FaceEncoder
from renderers.coefficients import Coefficients


class SmallEncoder(FaceEncoder):
    """A fixed linear look at the chip, which counts how often it is asked."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8)), 16, "dlib", 0.5, 0.5)
        self.calls, self.features = 0, 8

    def forward(self, images: Tensor, landmarks: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images, landmarks)


class Told(nn.Module):
    """A regressor that answers what it was told."""

    def __init__(self, answer: Coefficients) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, image: Tensor) -> Coefficients:
        return self.answer
