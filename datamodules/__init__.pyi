from .batch import CorruptedBatch, FaceBatch, MultiViewBatch, Truth
from .corrupted_faces import CorruptedFaces
from .mgcnet_list import MGCNetList
from .photo_folder import PhotoFolder
from .skin_weighted_faces import SkinWeightedFaces
from .synthetic import SyntheticMultiView

__all__ = [
    "CorruptedBatch",
    "CorruptedFaces",
    "FaceBatch",
    "MGCNetList",
    "MultiViewBatch",
    "PhotoFolder",
    "SkinWeightedFaces",
    "SyntheticMultiView",
    "Truth",
]
