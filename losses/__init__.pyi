from .identity import identity_loss
from .inner_mouth import inner_mouth_loss
from .landmark import landmark_loss
from .multiview import depth_consistency_loss, epipolar_loss, pixel_consistency_loss
from .photometric import guided_render_loss, render_loss
from .regularization import coefficient_regularization, light_regularization

__all__ = [
    "coefficient_regularization",
    "depth_consistency_loss",
    "epipolar_loss",
    "guided_render_loss",
    "identity_loss",
    "inner_mouth_loss",
    "landmark_loss",
    "light_regularization",
    "pixel_consistency_loss",
    "render_loss",
]
