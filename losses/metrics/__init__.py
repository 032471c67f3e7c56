"""torchmetrics that a DDP run reduces rightly: sums and counts per face, NaN before anything has counted."""

from losses.metrics.geometry import (
    DepthError,
    PosedVertexRMSE,
    PoseError,
    TextureRMSE,
    VertexRMSE,
    centred_vertex_rmse,
    texture_rmse,
    vertex_rmse,
)
from losses.metrics.image import CosineDistance, IdentitySimilarity, MaskedPSNR
from losses.metrics.landmark import LandmarkNME

__all__ = [
    "CosineDistance",
    "DepthError",
    "IdentitySimilarity",
    "LandmarkNME",
    "MaskedPSNR",
    "PoseError",
    "PosedVertexRMSE",
    "TextureRMSE",
    "VertexRMSE",
    "centred_vertex_rmse",
    "texture_rmse",
    "vertex_rmse",
]
