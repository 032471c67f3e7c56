from .module import DenseFace
from .network import DenseNetwork, ThinResNet

__all__ = ["DenseFace", "DenseNetwork", "ThinResNet"]
