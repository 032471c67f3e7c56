"""torchmetrics that a DDP run reduces rightly: sums and counts per face, NaN before anything has counted."""

from losses.metrics.geometry import DepthError, PoseError, VertexRMSE
from losses.metrics.image import IdentitySimilarity, MaskedPSNR
from losses.metrics.landmark import LandmarkNME

__all__ = ["DepthError", "IdentitySimilarity", "LandmarkNME", "MaskedPSNR", "PoseError", "VertexRMSE"]
