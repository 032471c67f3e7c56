"""The Haar wavelet transform of pictures and its inverse; the coefficients are those of PyWavelets."""

from __future__ import annotations

from collections.abc import Sequence

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = ("LL", "LH", "HL", "HH")
"""Low or high frequencies along x, then along y: LH is PyWavelets' horizontal detail, HL its vertical one."""


def haar_weights(low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(4, 4) double precision: for each of `BANDS` the weights of a square of 2 x 2 pixels, row after row.

    Args:
        low: the weights of two neighbouring pixels, in the order of the picture, for low frequencies.
        high: those for high ones.
    """
    along = {"L": torch.tensor(low, dtype=torch.float64), "H": torch.tensor(high, dtype=torch.float64)}
    return torch.stack([torch.outer(along[y], along[x]).flatten() for x, y in map(tuple, BANDS)])


class HaarTransform(nn.Module):
    """Haar wavelet transform (finegrained, section 3.4.1): L = [1, 1] / sqrt 2, H = [-1, 1] / sqrt 2 as convolutions.

    It equals `pywt.wavedec2(..., "haar")`, which lengthens an odd side by its last row or column. A filter of 2 x 2
    taps with stride 2 is a weighted sum of the four pixels of a square. `pixel_unshuffle` brings these together.

    Args:
        levels: how often the low frequencies are split again.

    Raises:
        ValueError: fewer than one level.
    """

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"a wavelet transform has one level or more, not {levels}")
        self.levels = levels
        haar = pywt.Wavelet("haar")
        # A convolution reverses its taps. Not a buffer: the weights take the picture's precision when they are used.
        self.weights = haar_weights(haar.dec_lo[::-1], haar.dec_hi[::-1])

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Splits pictures into frequencies.

        Args:
            image: (B, C, H, W) floating point, any sides.

        Returns:
            The low frequencies of the last level, (B, C, h, w), and every level's details, the finest first, each
            (B, 3, C, h, w) in the order LH, HL, HH; sides are halved, rounding up, at each level.
        """
        low, details = image, []
        for _ in range(self.levels):
            odd = [side % 2 for side in low.shape[-2:]]
            even = F.pad(low, (0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else low
            squares = F.pixel_unshuffle(even, 2).unflatten(1, (-1, 4))
            bands = torch.einsum("kp,bcphw->bkchw", self.weights.to(squares), squares)
            low = bands[:, 0]
            details.append(bands[:, 1:])
        return low, details


class InverseHaarTransform(nn.Module):
    """The inverse of `HaarTransform`, equal to `pywt.waverec2(..., "haar")`."""

    def __init__(self) -> None:
        super().__init__()
        haar = pywt.Wavelet("haar")
        self.weights = haar_weights(haar.rec_lo, haar.rec_hi)

    def forward(self, low: Tensor, details: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Puts pictures together again.

        Args:
            low: (B, C, h, w) low frequencies.
            details: the finest level first, each (B, 3, C, h, w), as `HaarTransform` returns them.
            size: (H, W) of the picture, needed if a side was odd; by default twice that of the finest details.

        Returns:
            (B, C, H, W)
        """
        finer: list[tuple[int, ...] | None] = [size, *(tuple(level.shape[-2:]) for level in details[:-1])]
        for level, wanted in zip(reversed(details), reversed(finer), strict=True):
            bands = torch.cat([low[:, None], level], dim=1)
            squares = torch.einsum("kp,bkchw->bcphw", self.weights.to(bands), bands)
            low = F.pixel_shuffle(squares.flatten(1, 2), 2)
            if wanted is not None:
                low = low[..., : wanted[0], : wanted[1]]
        return low
