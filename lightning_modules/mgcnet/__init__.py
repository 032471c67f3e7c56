"""MGCNet (ECCV 2020)."""

from lightning_modules.mgcnet.module import MGCNet
from lightning_modules.mgcnet.weights import MGCNetWeights

__all__ = ["MGCNet", "MGCNetWeights"]
