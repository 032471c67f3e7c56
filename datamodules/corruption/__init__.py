"""Occlusions and noise as modules that run on the batch's device: (image, landmarks, generator) -> `Corrupted`."""

from __future__ import annotations

from datamodules.corruption.delusional import DelusionalOcclusion
from datamodules.corruption.draws import Corrupted
from datamodules.corruption.noise import NOISE_KINDS, Noise
from datamodules.corruption.rational import RATIONAL_KINDS, RationalOcclusion

__all__ = ["NOISE_KINDS", "RATIONAL_KINDS", "Corrupted", "DelusionalOcclusion", "Noise", "RationalOcclusion"]
