from .color import ImageColorError, ImageColorSpread, image_color_error
from .geometry import (
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
from .image import CosineDistance, IdentitySimilarity, MaskedPSNR, MaskedRMSE, MaskedSSIM
from .landmark import LandmarkNME, LidCorrelation, YawBinnedNME
from .landmark_error import landmark_nme
from .light import LightDirectionError, SpecularCorrelation, masked_correlation
from .pooled import PooledDistances
from .registration import InnerMouthError, PointToPlaneError, inner_mouth_error, point_to_plane_error

__all__ = [
    "CosineDistance",
    "DepthError",
    "HiddenVertexColorRMSE",
    "IdentitySimilarity",
    "ImageColorError",
    "ImageColorSpread",
    "InnerMouthError",
    "LandmarkNME",
    "LidCorrelation",
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
