"""Fragments: the output of a rasterizer for each pixel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """The nearest face behind each pixel's centre.

    Attributes:
        pix_to_face: (B, H, W) int64 index into faces; -1 is background.
        barycentric: (B, H, W, 3) perspective-correct weights of the face's corners; 0 on background.
        depth: (B, H, W) decimetres from the camera along its axis; 0 on background.
    """

    pix_to_face: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, H, W) bool: pixels that the mesh covers."""
        return self.pix_to_face >= 0
