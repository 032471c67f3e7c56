"""Specular: diffuse and specular albedo under Blinn-Phong light (Deng et al.)."""

from lightning_modules.specular.module import Specular
from lightning_modules.specular.weights import SpecularWeights

__all__ = ["Specular", "SpecularWeights"]
