"""The Haar transform and its inverse against PyWavelets, and, with gradients, against slices that are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pywt
import torch
from torch import Tensor

from experiments.commands.bench.measure import Row, race
from lightning_modules.finegrained.wavelet import HaarTransform, InverseHaarTransform

SIZE = 256
BATCH = 8
LEVELS = 3


def there_and_back(image: Tensor, split: HaarTransform, join: InverseHaarTransform) -> Tensor:
    """(B, C, H, W) split into its frequencies and put together again."""
    low, details = split(image)
    return join(low, details)


def pywt_there_and_back(image: np.ndarray) -> np.ndarray:
    """The same by PyWavelets."""
    whole: np.ndarray = pywt.waverec2(pywt.wavedec2(image, "haar", level=LEVELS, axes=(-2, -1)), "haar", axes=(-2, -1))
    return whole


def sliced_there_and_back(image: Tensor, levels: int) -> Tensor:
    """The same as sums and differences of every second row and column; even sides, `levels` times."""
    if not levels:
        return image
    a, b = image[..., ::2, ::2], image[..., ::2, 1::2]
    c, d = image[..., 1::2, ::2], image[..., 1::2, 1::2]
    low, across, down, both = (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2
    low = sliced_there_and_back(low, levels - 1)
    whole = torch.empty_like(image)
    whole[..., ::2, ::2], whole[..., ::2, 1::2] = (low + across + down + both) / 2, (low - across + down - both) / 2
    whole[..., 1::2, ::2], whole[..., 1::2, 1::2] = (low + across - down - both) / 2, (low - across - down + both) / 2
    return whole


def run(device: torch.device) -> Iterator[Row]:
    """Two rows: the transform alone, which PyWavelets does on the CPU whatever the device, and with gradients."""
    split, join = HaarTransform(LEVELS).to(device), InverseHaarTransform().to(device)
    image = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    array = image.cpu().numpy()
    size = f"{LEVELS} levels, {SIZE} px, {BATCH} images"

    @torch.no_grad()
    def ours() -> Tensor:
        return there_and_back(image, split, join)

    yield race("wavelets", f"there and back: {size}", device, ours, "PyWavelets", lambda: pywt_there_and_back(array))

    leaf = image.clone().requires_grad_()

    def trained(transform: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            torch.autograd.grad(transform().square().sum(), leaf)

        return step

    yield race(
        "wavelets",
        f"there and back, with gradients: {size}",
        device,
        trained(lambda: there_and_back(leaf, split, join)),
        "sums of slices",
        trained(lambda: sliced_there_and_back(leaf, LEVELS)),
    )
