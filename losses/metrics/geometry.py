"""Errors of shape, vertex colours, depth, normals and pose."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from losses.metrics.mean_metric import MeanMetric
from renderers.units import MILLIMETRES

_AXES = {"pitch": 0, "yaw": 1, "roll": 2}


def vertex_rmse(predicted: Tensor, true: Tensor) -> Tensor:
    """Root mean squared vertex distance of each face: the shape-based vertex error of ROGUE, section 4.2.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in the same frame; no alignment is done, so that a wrong size counts as well. One
            picture hardly tells it: `shape_errors` parts the two.

    Returns:
        (B,) millimetres.

    >>> vertex_rmse(torch.zeros(1, 5, 3), torch.tensor([0.0, 0.03, 0.04]).expand(1, 5, 3)).tolist()
    [5.0]
    """
    return MILLIMETRES * (predicted - true).square().sum(dim=-1).mean(dim=-1).sqrt()


def centred_vertex_rmse(predicted: Tensor, true: Tensor) -> Tensor:
    """`vertex_rmse` after the mean translation between the two is taken away: what shape and rotation leave.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in the same frame but for a translation.

    Returns:
        (B,) millimetres.
    """
    return vertex_rmse(predicted - (predicted - true).mean(dim=1, keepdim=True), true)


def shape_errors(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """What is wrong with a face's shape, and apart from it what is wrong with its size.

    The shape's error is `vertex_rmse` after the similarity that makes it least (Umeyama, 1991, in closed form). The
    size is the centroid size of geometric morphometrics: the root of the summed squared distances to the mean vertex.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in any other pose.

    Returns:
        (B,) millimetres of the true face, and (B,) how much too large the prediction is, percent; below 0 if too small.
    """
    moving, still = (points - points.mean(dim=1, keepdim=True) for points in (predicted.double(), true.double()))
    moving_size, still_size = moving.square().sum(dim=(1, 2)), still.square().sum(dim=(1, 2))
    across = (moving.transpose(1, 2) @ still).nan_to_num()  # NaN comes back through the sizes
    singular = torch.linalg.svdvals(across)
    # A mirror image is no similarity: where the best map is one, the least singular value counts against the fit.
    least = singular[:, 2] * torch.linalg.det(across).sign()
    agreement = singular[:, 0] + singular[:, 1] + least
    squared = (still_size - agreement.square() / moving_size).clamp_min(0) / true.shape[1]
    growth = (moving_size / still_size).sqrt() - 1
    return (MILLIMETRES * squared.sqrt()).to(true.dtype), (100 * growth).to(true.dtype)


def texture_rmse(predicted: Tensor, true: Tensor) -> Tensor:
    """Root mean squared colour difference over vertices and channels: the texture-based error of ROGUE, section 4.2.

    Args:
        predicted: (B, V, 3) RGB of the vertices' albedo, 0 black and 1 white.
        true: (B, V, 3) likewise.

    Returns:
        (B,) 0 for equal ones, 1 for black against white.
    """
    return (predicted - true).square().mean(dim=(-2, -1)).sqrt()


class VertexRMSE(MeanMetric):
    """`vertex_rmse` in millimetres, averaged over faces."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) model space, decimetres.
            true: (B, V, 3) model space, decimetres.
        """
        self.add(vertex_rmse(predicted, true))


class ShapeRMSE(MeanMetric):
    """The shape's part of `shape_errors` in millimetres, averaged over faces."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces; the arguments of `shape_errors`."""
        self.add(shape_errors(predicted, true)[0])


class SizeError(MeanMetric):
    """How far the size is off, the absolute of `shape_errors`' second part in percent, averaged over faces."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces; the arguments of `shape_errors`."""
        self.add(shape_errors(predicted, true)[1].abs())


class PosedVertexRMSE(MeanMetric):
    """Vertex error of the posed face in millimetres: `centred_vertex_rmse`, averaged over faces."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) camera space, decimetres.
            true: (B, V, 3) camera space, decimetres.
        """
        self.add(centred_vertex_rmse(predicted, true))


class TextureRMSE(MeanMetric):
    """`texture_rmse`, averaged over faces."""

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) RGB of the vertices' albedo, 0 black and 1 white.
            true: (B, V, 3) likewise.
        """
        self.add(texture_rmse(predicted, true))


class HiddenVertexColorRMSE(MeanMetric):
    """Root mean squared colour difference over chosen vertices alone, as those under an occluder.

    Per face and then averaged, 0 for equal colours and 1 for black against white; a face without a chosen vertex is
    left out.
    """

    def update(self, predicted: Tensor, true: Tensor, hidden: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, V, 3) RGB, 0 black and 1 white.
            true: (B, V, 3) likewise.
            hidden: (B, V) bool, the vertices that count.
        """
        squared = torch.where(hidden, (predicted - true).square().mean(dim=-1), 0.0)
        count = hidden.sum(dim=1)
        self.add((squared.sum(dim=1) / count).sqrt(), count > 0)


def angle_between(first: Tensor, second: Tensor, dim: int = -1) -> Tensor:
    """Degrees between vectors of any length but 0, exact for small angles too, where the arc cosine is not.

    Args:
        first: (..., 3, ...) with the 3 at `dim`.
        second: likewise.
        dim: where the components are.

    Returns:
        in [0, 180], without `dim`.
    """
    across = torch.linalg.cross(first, second, dim=dim).square().sum(dim=dim).sqrt()
    return torch.rad2deg(torch.atan2(across, (first * second).sum(dim=dim)))


class NormalAngularError(MeanMetric):
    """Mean angle in degrees between normals over the pixels that both cover, averaged over images.

    An image in which no pixel is covered by both is left out. A NaN normal counts as covered and makes the mean NaN.
    """

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 3, H, W) of any length, 0 where there is no face.
            true: (B, 3, H, W) likewise.
        """
        both = ((predicted != 0).any(dim=1) & (true != 0).any(dim=1)).flatten(1)
        angle = torch.where(both, angle_between(predicted.float(), true.float(), dim=1).flatten(1), 0.0)
        self.add(angle.sum(dim=1) / both.sum(dim=1), both.any(dim=1))


class DepthError(MeanMetric):
    """Mean absolute depth error in millimetres over the pixels that both maps cover, averaged over images.

    An image in which no pixel is covered by both is left out. A NaN depth counts as covered and makes the mean NaN.

    Args:
        up_to_scale: multiply the predicted depth by S = sum(D_true) / sum(D_predicted) over those pixels first (the
            scale ratio of MGCNet, equation 4), since one image tells depth only up to scale.
        kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, up_to_scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.up_to_scale = up_to_scale

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 1, H, W) decimetres from the camera, 0 where there is no face.
            true: (B, 1, H, W) likewise.
        """
        predicted, true = predicted.flatten(1).float(), true.flatten(1).float()
        both = ~((predicted <= 0) | (true <= 0))
        predicted, true = torch.where(both, predicted, 0.0), torch.where(both, true, 0.0)
        if self.up_to_scale:
            predicted = predicted * (true.sum(dim=1) / predicted.sum(dim=1)).unsqueeze(1)
        error = torch.where(both, (predicted - true).abs(), 0.0).sum(dim=1) / both.sum(dim=1)
        self.add(MILLIMETRES * error, both.any(dim=1))


class PoseError(MeanMetric):
    """Mean absolute error of one Euler angle in degrees, the short way round the circle.

    Args:
        axis: "pitch" (about x), "yaw" (about y) or "roll" (about z).
        kwargs: of `torchmetrics.Metric`.
    """

    def __init__(self, axis: Literal["pitch", "yaw", "roll"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = _AXES[axis]

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Take in B faces.

        Args:
            predicted: (B, 3) rotations about x, y, z in radians.
            true: (B, 3) likewise.
        """
        difference = (predicted - true)[:, self.axis]
        wrapped = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
        self.add(torch.rad2deg(wrapped.abs()))
