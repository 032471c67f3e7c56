"""Fine-grained: Haar wavelets, detailed albedo and displacement maps over a coarse face (Huang et al.)."""

from lightning_modules.finegrained.module import Finegrained
from lightning_modules.finegrained.weights import CoarseWeights, FineWeights

__all__ = ["CoarseWeights", "FineWeights", "Finegrained"]
