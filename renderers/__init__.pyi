from .coefficients import CoefficientLayout, Coefficients
from .face_models.base import MorphableModel
from .face_models.linear import LinearModel
from .face_models.load import load_face_model
from .face_renderer import FaceRenderer, Rendering, mean_coefficients
from .raster import rasterize
from .reflectance import lambertian
from .specular_renderer import SpecularRenderer, SpecularRendering
from .uv.chart import UVChart

__all__ = [
    "CoefficientLayout",
    "Coefficients",
    "FaceRenderer",
    "LinearModel",
    "MorphableModel",
    "Rendering",
    "SpecularRenderer",
    "SpecularRendering",
    "UVChart",
    "lambertian",
    "load_face_model",
    "mean_coefficients",
    "rasterize",
]
