"""torchmetrics that a DDP run reduces rightly: sums and counts per face, NaN before anything has counted."""

from losses.metrics.color import ImageColorError, ImageColorSpread, image_color_error
from losses.metrics.geometry import (
    DepthError,
    HiddenVertexColorRMSE,
    NormalAngularError,
    PosedVertexRMSE,
    PoseError,
    ShapeRMSE,
    SizeError,
    TextureRMSE,
    VertexRMSE,
    angle_between,
    centred_vertex_rmse,
    shape_errors,
    texture_rmse,
    vertex_rmse,
)
from losses.metrics.image import CosineDistance, IdentitySimilarity, MaskedPSNR, MaskedRMSE, MaskedSSIM
from losses.metrics.landmark import LandmarkNME, YawBinnedNME, landmark_nme
from losses.metrics.light import LightDirectionError, SpecularCorrelation, masked_correlation
from losses.metrics.pooled import PooledDistances
from losses.metrics.registration import InnerMouthError, PointToPlaneError, inner_mouth_error, point_to_plane_error

__all__ = [
    "CosineDistance",
    "DepthError",
    "HiddenVertexColorRMSE",
    "IdentitySimilarity",
    "ImageColorError",
    "ImageColorSpread",
    "InnerMouthError",
    "LandmarkNME",
    "LightDirectionError",
    "MaskedPSNR",
    "MaskedRMSE",
    "MaskedSSIM",
    "NormalAngularError",
    "PointToPlaneError",
    "PooledDistances",
    "PoseError",
    "PosedVertexRMSE",
    "ShapeRMSE",
    "SizeError",
    "SpecularCorrelation",
    "TextureRMSE",
    "VertexRMSE",
    "YawBinnedNME",
    "angle_between",
    "centred_vertex_rmse",
    "image_color_error",
    "inner_mouth_error",
    "landmark_nme",
    "masked_correlation",
    "point_to_plane_error",
    "shape_errors",
    "texture_rmse",
    "vertex_rmse",
]
