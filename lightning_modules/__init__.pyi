from .base import FaceModule
from .components.reconstruction import Reconstruction
from .finegrained.module import Finegrained
from .mgcnet.module import MGCNet
from .rogue.module import ROGUE
from .self_augmentation.module import SelfAugmentation
from .specular.module import Specular

__all__ = [
    "ROGUE",
    "FaceModule",
    "Finegrained",
    "MGCNet",
    "Reconstruction",
    "SelfAugmentation",
    "Specular",
]
