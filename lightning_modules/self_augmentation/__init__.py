"""Self-augmentation: refiners of the vertex colours that learn from their own re-renders (Mohaghegh et al.)."""

from lightning_modules.self_augmentation.coarse import CoarseWeights
from lightning_modules.self_augmentation.likeness import SelfAugmentationWeights
from lightning_modules.self_augmentation.module import SelfAugmentation

__all__ = ["CoarseWeights", "SelfAugmentation", "SelfAugmentationWeights"]
