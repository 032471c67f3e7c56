"""MGCNet (ECCV 2020)."""

from lightning_modules.mgcnet.module import MGCNet, MGCNetWeights

__all__ = ["MGCNet", "MGCNetWeights"]
