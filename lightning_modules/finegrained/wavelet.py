"""Haar wavelet transform of pictures and its inverse, as Kornia filters with PyWavelets' coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = ("LL", "LH", "HL", "HH")
"""Low or high frequencies along x, then along y: LH is PyWavelets' horizontal detail, HL its vertical one."""


def haar_kernels(low: Sequence[float], high: Sequence[float]) -> Tensor:
    """(4, 2, 2) double precision: a 2D filter for each of `BANDS` from the low- and the high-pass one, rows along y."""
    along = {"L": torch.tensor(low, dtype=torch.float64), "H": torch.tensor(high, dtype=torch.float64)}
    return torch.stack([torch.outer(along[y], along[x]) for x, y in map(tuple, BANDS)])


class HaarTransform(nn.Module):
    """Haar wavelet transform (finegrained, section 3.4.1): L = [1, 1] / sqrt 2, H = [-1, 1] / sqrt 2 as convolutions.

    Equal to `pywt.wavedec2(..., "haar")`: an odd side is lengthened by its last row or column.

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
        self.kernels = haar_kernels(haar.dec_lo, haar.dec_hi)  # no buffer: rounded to the precision of what it filters

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
            low, *high = self._split(low)
            details.append(torch.stack(high, dim=1))
        return low, details

    def _split(self, image: Tensor) -> list[Tensor]:
        from kornia.filters import filter2d

        odd = [side % 2 for side in image.shape[-2:]]
        even = F.pad(image, (0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else image
        filtered = (
            filter2d(even, kernel[None], padding="valid", behaviour="conv") for kernel in self.kernels.to(image)
        )
        return [band[..., ::2, ::2] for band in filtered]


class InverseHaarTransform(nn.Module):
    """The inverse of `HaarTransform`, equal to `pywt.waverec2(..., "haar")`."""

    def __init__(self) -> None:
        super().__init__()
        haar = pywt.Wavelet("haar")
        self.kernels = haar_kernels(haar.rec_lo, haar.rec_hi)

    def forward(self, low: Tensor, details: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Puts pictures together again.

        Args:
            low: (B, C, h, w) low frequencies.
            details: the finest level first, each (B, 3, C, h, w), as `HaarTransform` returns them.
            size: (H, W) of the picture, where a side of it was odd; twice that of the finest details where absent.

        Returns:
            (B, C, H, W)
        """
        finer: list[tuple[int, ...] | None] = [size, *(tuple(level.shape[-2:]) for level in details[:-1])]
        for level, wanted in zip(reversed(details), reversed(finer), strict=True):
            low = self._join(low, level)
            if wanted is not None:
                low = low[..., : wanted[0], : wanted[1]]
        return low

    def _join(self, low: Tensor, details: Tensor) -> Tensor:
        from kornia.filters import filter2d

        batch, channels, height, width = low.shape
        parts = []
        for band, kernel in zip((low, *details.unbind(1)), self.kernels.to(low)[:, None], strict=True):
            # Each coefficient before a hole, and a row and a column of zeros ahead of all: the filter's two taps.
            spread = band.new_zeros(batch, channels, 2 * height + 1, 2 * width + 1)
            spread[..., 1::2, 1::2] = band
            parts.append(filter2d(spread, kernel, padding="valid", behaviour="conv"))
        return torch.stack(parts).sum(dim=0)
