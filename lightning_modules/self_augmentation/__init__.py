"""Self-augmentation: refiners of the vertex colours that learn from their own re-renders (Mohaghegh et al.)."""

from lightning_modules.self_augmentation.module import SelfAugmentation
from lightning_modules.self_augmentation.weights import CoarseWeights, SelfAugmentationWeights

__all__ = ["CoarseWeights", "SelfAugmentation", "SelfAugmentationWeights"]
