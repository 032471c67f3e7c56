"""What the network is taught: dense points of the face model, and poses as the default camera would see them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from renderers.camera import (
    CAMERA_DISTANCE,
    default_intrinsics,
    euler_to_rotation,
    project,
    rotation_to_euler,
    transform,
)
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.illumination import irradiance


class DensePoints(nn.Module):
    """Decodes some of a face model's vertices, without the others.

    Args:
        face_model: the decoder.
        vertices: (N,) which.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, face_model: LinearModel, vertices: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", face_model.mean_shape[vertices], persistent=False)
        basis = torch.cat([face_model.identity_basis, face_model.expression_basis], dim=-1)[vertices]
        self.register_buffer("basis", basis.flatten(0, 1).T.contiguous(), persistent=False)

    def forward(self, coefficients: Coefficients, intrinsics: Tensor) -> Tensor:
        """(B, N, 2) pixels of B faces seen with (B, 3, 3) intrinsics."""
        posed = transform(self.points(coefficients), euler_to_rotation(coefficients.angles), coefficients.translation)
        return project(posed, intrinsics)[..., :2]

    def points(self, coefficients: Coefficients) -> Tensor:
        """(B, N, 3) decimetres of B faces, without a pose."""
        weights = torch.cat([coefficients.identity, coefficients.expression], dim=-1)
        return torch.addmm(self.mean.flatten(), weights, self.basis).unflatten(-1, (-1, 3))


def seen_by_default_camera(coefficients: Coefficients, intrinsics: Tensor, size: int) -> Coefficients:
    """The same faces with the pose that makes them look alike through the default camera.

    A crop does not tell its camera. The origin of the head stays in its pixel and its scale there stays the same; the
    head is turned with the ray that it is seen along, so that it shows the camera the same side.

    Args:
        coefficients: of B faces.
        intrinsics: (B, 3, 3) pixels, of the camera that saw them; square pixels.
        size: side of the crop, pixels.
    """
    default = default_intrinsics(size, intrinsics.device)
    origin = coefficients.translation
    pixel = project(origin[:, None], intrinsics)[:, 0]
    focal, wanted = intrinsics[:, 0, 0], default[0, 0]
    before = torch.cat([origin[:, :2], origin[:, 2:] - CAMERA_DISTANCE], dim=-1)
    depth = pixel[:, 2] * wanted / focal
    aside = (pixel[:, :2] - default[:2, 2]) / wanted * depth[:, None]
    after = torch.stack([aside[:, 0], -aside[:, 1], -depth], dim=-1)
    turn = _rotation_between(before, after)
    angles = rotation_to_euler(turn @ euler_to_rotation(coefficients.angles))
    moved = torch.cat([after[:, :2], after[:, 2:] + CAMERA_DISTANCE], dim=-1)
    return replace(coefficients, angles=angles, translation=moved)


def _rotation_between(first: Tensor, second: Tensor) -> Tensor:
    """(B, 3, 3) the smallest rotation from one direction (B, 3) to another that is less than half a turn off."""
    a, b = (nn.functional.normalize(vector, dim=-1) for vector in (first, second))
    cross, cosine = torch.linalg.cross(a, b), (a * b).sum(dim=-1)
    x, y, z = cross.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, device=first.device)
    return eye + skew + skew @ skew / (1 + cosine)[:, None, None]


class ExplainedVariance(nn.Module):
    """How much of what coefficients do to the face is missed: squared errors over the variance of a population.

    Coefficients are independent with one variance. Answering their mean leaves a share of 1.

    Args:
        basis: (V, 3, K) what each coefficient moves.
        deviation: standard deviation of the coefficients.
        motions: (V, 3, M) changes that do not count, such as `similarity_motions`.
    """

    root: Tensor

    def __init__(self, basis: Tensor, deviation: float, motions: Tensor | None = None) -> None:
        super().__init__()
        moves = basis.double().flatten(0, 1)
        if motions is not None:
            span = torch.linalg.qr(motions.double().flatten(0, 1)).Q
            moves = moves - span @ (span.T @ moves)
        moves = moves / (deviation * moves.norm())
        # |root d|^2 = |moves d|^2 with as many rows as coefficients.
        self.register_buffer("root", torch.linalg.qr(moves).R.float(), persistent=False)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,) share of the variance."""
        return ((predicted - target) @ self.root.T).square().sum(dim=-1)


def similarity_motions(points: Tensor) -> Tensor:
    """(V, 3) -> (V, 3, 7): how points move when they are shifted, turned and scaled a little."""
    centred = points - points.mean(dim=0)
    axes = torch.eye(3, dtype=points.dtype, device=points.device)
    shifts = [axis.expand_as(points) for axis in axes]
    turns = [torch.linalg.cross(axis.expand_as(points), centred) for axis in axes]
    return torch.stack([*shifts, *turns, centred], dim=-1)


def light_difference(predicted: Tensor, target: Tensor, directions: Tensor) -> Tensor:
    """(B,) mean absolute difference of the irradiance that weights (B, 27) give surfaces facing (N, 3) directions."""
    facing = directions.expand(len(predicted), -1, -1)
    return (irradiance(facing, predicted) - irradiance(facing, target)).abs().mean(dim=(1, 2))


def gaze(expression: Tensor, units: Tensor) -> Tensor:
    """Where each eye looks, in shares of the gaze of a full weight.

    Args:
        expression: (B, E) weights of the expressions.
        units: (2, 7) where each eye's `EYE_UNITS` are.

    Returns:
        (B, 2, 2): outwards and upwards, the eyes in the order of `units`.
    """
    _, down, inward, outward, up, _, _ = expression[:, units].unbind(-1)
    return torch.stack([outward - inward, up - down], dim=-1)
