from .reconstructor import Reconstructor

__all__ = ["Reconstructor"]
