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
        true: (B, V, 3) decimetres, in the same frame. Nothing is aligned, so a wrong size counts as well, though one
            picture hardly shows the size. `shape_errors` gives shape and size apart.

    Returns:
        (B,) millimetres.

    >>> vertex_rmse(torch.zeros(1, 5, 3), torch.tensor([0.0, 0.03, 0.04]).expand(1, 5, 3)).tolist()
    [5.0]
    """
    return MILLIMETRES * (predicted - true).square().sum(dim=-1).mean(dim=-1).sqrt()


def centred_vertex_rmse(predicted: Tensor, true: Tensor) -> Tensor:
    """`vertex_rmse` without the mean translation between the two: the error of shape and rotation.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in the same frame but for a translation.

    Returns:
        (B,) millimetres.
    """
    return vertex_rmse(predicted - (predicted - true).mean(dim=1, keepdim=True), true)


def shape_errors(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """The error of a face's shape, and the error of its size.

    The error of the shape is `vertex_rmse` after the similarity transform that makes it least (Umeyama, 1991, in closed
    form). The size is the centroid size of geometric morphometrics: the root of the summed squared distances to the
    mean vertex.

    Args:
        predicted: (B, V, 3) decimetres.
        true: (B, V, 3) decimetres, in any other pose.

    Returns:
        (B,) millimetres in the true face's size, and (B,) percent by which the prediction is too large, below 0 if it
        is too small.
    """
    moving, still = (points - points.mean(dim=1, keepdim=True) for points in (predicted.double(), true.double()))
    moving_size, still_size = moving.square().sum(dim=(1, 2)), still.square().sum(dim=(1, 2))
    across = (moving.transpose(1, 2) @ still).nan_to_num()  # the sizes still are NaN, and so the result is
    singular = torch.linalg.svdvals(across)
    # A reflection is no similarity. Where one would fit best, the least singular value counts against the fit.
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
    """Absolute error of the size in percent, see `shape_errors`, averaged over faces."""

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
    """Root mean squared colour difference over chosen vertices alone, for example those under an occluder.

    It is taken per face and then averaged: 0 for equal colours, 1 for black against white. A face without a chosen
    vertex is left out.
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
    """Degrees between vectors of any length but 0. It is exact for small angles too; the arc cosine is not.

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
        up_to_scale: first multiply the predicted depth by S = sum(D_true) / sum(D_predicted) over those pixels, the
            scale ratio of MGCNet, equation 4. One image shows depth only up to scale.
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
