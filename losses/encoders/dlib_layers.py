"""Features of several layers of dlib's recognition network: they tell who it is and how the face looks."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders.dlib_resnet import DlibEncoder, DlibResNet
from losses.encoders.dlib_weights import BLOCKS, CHIP_SIZE
from renderers.io.errors import UserError


class DlibLayers(DlibEncoder):
    """The 128-D embedding, then the output of one residual block averaged over a grid of cells.

    The embedding is trained to ignore make-up, beard and light. The layers below it still hold these and where they
    are. But their features change with the view: feed them to a decoder, and compare people by `DlibEncoder`.

    Args:
        chip_size: pixels, at least 103; see `DlibEncoder`.
        block: number of the residual block, 1 to 14; the output of block 10 has 128 channels, 6 x 6 at 112 px.
        grid: cells along each side, at most as many as the output has pixels.
        weights: another file of the same network.

    Attributes:
        features: 128 + the block's channels x grid^2.

    Raises:
        UserError: as `DlibEncoder`; no such block, or a grid that is finer than its output.
    """

    def __init__(
        self, chip_size: int = CHIP_SIZE, block: int = 10, grid: int = 4, weights: str | Path | None = None
    ) -> None:
        super().__init__(chip_size, weights)
        if not 1 <= block <= len(BLOCKS):
            raise UserError(f"block {block}: the dlib network has blocks 1 to {len(BLOCKS)}")
        network = self.network
        assert isinstance(network, DlibResNet)
        with torch.no_grad():
            channels, side = network.maps(torch.zeros(1, 3, chip_size, chip_size))[block - 1].shape[1:3]
        if not 1 <= grid <= side:
            raise UserError(f"grid {grid}: block {block} answers {side} x {side} at {chip_size} px; give 1 to {side}")
        self.__dict__["network"] = _Layers(network, block, grid)  # outside the module tree, as in `FaceEncoder`
        self.features += channels * grid * grid


class _Layers(nn.Module):
    def __init__(self, network: DlibResNet, block: int, grid: int) -> None:
        super().__init__()
        self.network, self.block, self.grid = network, block, grid
        self.eval()

    def forward(self, chips: Tensor) -> Tensor:
        """(B, 3, S, S) normalized chips -> (B, 128 + C grid^2)"""
        maps = self.network.maps(chips)
        cells = F.adaptive_avg_pool2d(maps[self.block - 1], self.grid).flatten(1)
        return torch.cat([self.network.embedding(maps[-1]), cells], dim=1)
