"""ROGUE: robust to occlusions and noise (Tiwari et al.)."""

from lightning_modules.rogue.module import ROGUE
from lightning_modules.rogue.weights import ROGUEWeights

__all__ = ["ROGUE", "ROGUEWeights"]
