"""The compact network that ships with the project: dense landmarks, coefficients and a parsing map from one crop."""

from lightning_modules.dense_face.module import DenseFace
from lightning_modules.dense_face.network import ThinResNet

__all__ = ["DenseFace", "ThinResNet"]
