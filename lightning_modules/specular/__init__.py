"""Specular: diffuse and specular albedo under Blinn-Phong light (Deng et al.)."""

from lightning_modules.specular.module import Specular, SpecularWeights

__all__ = ["Specular", "SpecularWeights"]
