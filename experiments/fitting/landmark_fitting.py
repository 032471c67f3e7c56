"""The landmarks' part of the fitter: closed-form pose, Levenberg-Marquardt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from renderers.camera import CAMERA_DISTANCE, NEAR, Camera, euler_to_rotation, project_by, rotation_to_euler, transform
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.jaw_contour import ContourTable, gather_vertices, visible_landmarks

ROBUST_SCALE = 3.0  # landmarks further off than this many deviations lose weight


@dataclass
class LandmarkProblem:
    """Maximum a posteriori of pose, identity and expression, given 68 detected points.

    Attributes:
        mean: where the prior is centred; B faces.
        target: (B, 68, 2) pixels.
        intrinsics: (B, 3, 3) pixels.
        camera: which projects the faces.
        noise: (B, 68) standard deviation of each landmark, as a share of `box`.
        deviation: (I + E,) that of the prior, identity and then expression.
        expression_bounds: (least, most) that every expression coefficient may be; none where absent.
    """

    mean: Coefficients
    target: Tensor
    intrinsics: Tensor
    camera: Camera
    noise: Tensor
    deviation: Tensor
    expression_bounds: tuple[float, float] | None

    @property
    def box(self) -> Tensor:
        """(B,) sqrt(w * h) of the detected landmarks' box, pixels."""
        extent = self.target.amax(dim=1) - self.target.amin(dim=1)
        return extent.prod(dim=1).sqrt()

    @property
    def pixels(self) -> Tensor:
        """(B, 68) standard deviation of each landmark, pixels."""
        return self.box[:, None] * self.noise

    def distance(self, points: Tensor) -> Tensor:
        """(B,) mean point distance in percent of the box."""
        return 100 * (points - self.target).norm(dim=-1).mean(dim=-1) / self.box

    def bounds(self, layout_sizes: Sequence[int], expression: int) -> tuple[Tensor, Tensor]:
        """Least and most (P,) of a vector whose parts have these sizes, the expression being part `expression`."""
        low = [torch.full((size,), -torch.inf) for size in layout_sizes]
        high = [-part for part in low]
        if self.expression_bounds is not None:
            low[expression].fill_(self.expression_bounds[0])
            high[expression].fill_(self.expression_bounds[1])
        device = self.target.device
        return torch.cat(low).to(device), torch.cat(high).to(device)

    def prior(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, I + E) residuals of unit deviation."""
        weights = torch.cat([identity, expression], dim=-1)
        return (weights - torch.cat([self.mean.identity, self.mean.expression], dim=-1)) / self.deviation

    def energy(self, points: Tensor, coefficients: Coefficients) -> Tensor:
        """(B,) negative log posterior of landmarks (B, 68, 2) and of all coefficients, albedo and light included."""
        offset = (points - self.target).norm(dim=-1) / self.pixels
        robust = torch.nn.functional.huber_loss(offset, torch.zeros_like(offset), "none", ROBUST_SCALE).sum(dim=-1)
        prior = self.prior(coefficients.identity, coefficients.expression).square().sum(dim=-1)
        prior = prior + (coefficients.albedo - self.mean.albedo).square().sum(dim=-1)
        light = coefficients.illumination.unflatten(-1, (3, 9))
        chroma = (light - light.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
        return robust + 0.5 * prior + chroma


def rigid_pose(
    face_model: LinearModel,
    shape: Coefficients,
    target: Tensor,
    intrinsics: Tensor,
    camera: Camera = "perspective",
) -> tuple[Tensor, Tensor]:
    """Angles (B, 3) and translation (B, 3) from landmarks, the shape fixed: scaled orthography in closed form, then
    Levenberg-Marquardt under the camera.

    Args:
        face_model: the decoder.
        shape: identity and expression of B faces.
        target: (B, 68, 2) pixels.
        intrinsics: (B, 3, 3) pixels.
        camera: which projects the faces.
    """
    vertices = face_model.shape(shape.identity, shape.expression)[:, face_model.landmark_indices].double()
    points, cameras = target.double(), intrinsics.double()
    focal = torch.stack([cameras[:, 0, 0], -cameras[:, 1, 1]], dim=-1)[:, None]
    rays = (points - cameras[:, None, :2, 2]) / focal
    affine = torch.linalg.lstsq(torch.nn.functional.pad(vertices, (0, 1), value=1.0), rays).solution.transpose(1, 2)
    rows, offset = affine[..., :3], affine[..., 3]
    left, singular, right = torch.linalg.svd(rows, full_matrices=False)
    depth = 1 / singular.mean(dim=-1).clamp_min(1e-3)
    two = left @ right
    rotation = torch.cat([two, torch.linalg.cross(two[:, :1], two[:, 1:])], dim=1)
    translation = torch.cat([offset * depth[:, None], CAMERA_DISTANCE - depth[:, None]], dim=-1)
    start = torch.cat([rotation_to_euler(rotation), translation], dim=-1)

    def linearize(pose: Tensor) -> tuple[Tensor, Tensor]:
        projected, by_pose, _ = project_with_jacobian(vertices, pose, cameras, camera)
        return (projected - points).flatten(1), by_pose.flatten(1, 2)

    pose = levenberg_marquardt(linearize, start, iterations=10)
    return pose[:, :3].to(target.dtype), pose[:, 3:].to(target.dtype)


def fit_landmarks(
    face_model: LinearModel, problem: LandmarkProblem, start: Coefficients, contour: ContourTable | None, rounds: int
) -> Coefficients:
    """Pose, identity and expression of the maximum a posteriori; illumination and albedo as they were.

    Each round finds the visible contour, gives outliers less weight, and takes a few Levenberg-Marquardt steps.
    """
    sizes = [6, face_model.identity_size, face_model.expression_size]
    basis = face_model.shape_basis.T.unflatten(0, (-1, 3))
    pixels = problem.pixels.double()
    by_weights = torch.nn.functional.pad(torch.diag(1 / problem.deviation.double()), (6, 0))
    bounds = problem.bounds(sizes, expression=2)
    cameras, target = problem.intrinsics.double(), problem.target.double()
    x = torch.cat([start.angles, start.translation, start.identity, start.expression], dim=-1).double()
    for _ in range(rounds):
        pose, identity, expression = (part.to(basis.dtype) for part in x.split(sizes, dim=-1))
        posed = transform(face_model.shape(identity, expression), euler_to_rotation(pose[:, :3]), pose[:, 3:])
        vertices_image = project_by(problem.camera, posed, pose[:, 3:], problem.intrinsics)
        rows = visible_landmarks(contour, face_model.landmark_indices, vertices_image, pose[:, :3])
        offset = (gather_vertices(vertices_image, rows)[..., :2] - target).norm(dim=-1) / pixels
        # Iteratively reweighted least squares for Huber's loss.
        weight = (ROBUST_SCALE / offset.clamp_min(ROBUST_SCALE)).sqrt() / pixels
        base, span = face_model.mean_shape[rows].double(), basis[rows].double()

        def linearize(
            x: Tensor, base: Tensor = base, span: Tensor = span, weight: Tensor = weight
        ) -> tuple[Tensor, Tensor]:
            pose, identity, expression = x.split(sizes, dim=-1)
            points = base + torch.einsum("bnck,bk->bnc", span, x[:, 6:])
            projected, by_pose, by_point = project_with_jacobian(points, pose, cameras, problem.camera)
            slope = torch.cat([by_pose, by_point @ span], dim=-1) * weight[:, :, None, None]
            value = (projected - target) * weight[..., None]
            values = torch.cat([value.flatten(1), problem.prior(identity, expression)], dim=1)
            return values, torch.cat([slope.flatten(1, 2), by_weights.expand(len(x), -1, -1)], dim=1)

        x = levenberg_marquardt(linearize, x, iterations=5, bounds=bounds)
    pose, identity, expression = (part.to(start.identity.dtype) for part in x.split(sizes, dim=-1))
    return replace(start, angles=pose[:, :3], translation=pose[:, 3:], identity=identity, expression=expression)


def project_with_jacobian(
    points: Tensor, pose: Tensor, intrinsics: Tensor, camera: Camera = "perspective"
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of posed points and their derivatives.

    Args:
        points: (B, N, 3) model space, decimetres.
        pose: (B, 6) angles in radians, translation in decimetres.
        intrinsics: (B, 3, 3) pixels.
        camera: which projects them.

    Returns:
        Pixels (B, N, 2), their derivative by the pose (B, N, 2, 6), and by the points (B, N, 2, 3).
    """
    angles, translation = pose.split(3, dim=-1)
    rotation = euler_to_rotation(angles)
    turned = points @ rotation.transpose(1, 2)
    posed = turned + translation[:, None]
    projected = project_by(camera, posed, translation, intrinsics)
    orthographic = camera == "orthographic"
    depth = (CAMERA_DISTANCE - translation[:, 2:] if orthographic else projected[..., 2]).clamp_min(NEAR)
    depth = depth.expand_as(projected[..., 2])
    focal_x, focal_y = intrinsics[:, 0, 0, None] / depth, -intrinsics[:, 1, 1, None] / depth
    zero = torch.zeros_like(depth)
    by_x = torch.stack([focal_x, zero, focal_x * posed[..., 0] / depth], dim=-1)
    by_y = torch.stack([zero, focal_y, focal_y * posed[..., 1] / depth], dim=-1)
    by_translation = torch.stack([by_x, by_y], dim=-2)
    # Of an orthographic face only the origin's depth counts.
    by_posed = by_translation * by_translation.new_tensor([1.0, 1.0, 0.0]) if orthographic else by_translation
    # Turning about an axis moves a point by axis x point; with R = Rz Ry Rx the three axes, in camera space, are these.
    roll, none = angles[:, 2], torch.zeros_like(angles[:, 2])
    about_y = torch.stack([-roll.sin(), roll.cos(), none], dim=-1)
    about_z = torch.stack([none, none, none + 1], dim=-1)
    axes = torch.stack([rotation[..., 0], about_y, about_z], dim=1)
    by_angles = by_posed @ torch.linalg.cross(axes[:, None], turned[:, :, None]).transpose(2, 3)
    return projected[..., :2], torch.cat([by_angles, by_translation], dim=-1), by_posed @ rotation[:, None]


def levenberg_marquardt(
    linearize: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    iterations: int,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Nonlinear least squares, batched: each problem has its own damping and takes only steps that lower its cost.

    Args:
        linearize: (B, P) -> residuals (B, R) and their Jacobian (B, R, P).
        start: (B, P).
        iterations: steps tried.
        bounds: (P,) least and most that the parameters may be. One that stands at its bound and would leave it is held
            there while the others take their step (a projected step).

    Returns:
        (B, P)
    """
    low, high = bounds or (torch.tensor(-torch.inf), torch.tensor(torch.inf))
    low, high = low.to(start), high.to(start)
    x = start.clamp(low, high)
    value, slope = linearize(x)
    damping = torch.full((len(x), 1), 1e-3, dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        gradient = (slope.transpose(1, 2) @ value.unsqueeze(-1)).squeeze(-1)
        held = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
        gradient, free = gradient.masked_fill(held, 0), slope.masked_fill(held[:, None], 0)
        normal = free.transpose(1, 2) @ free
        diagonal = torch.diagonal(normal, dim1=1, dim2=2)
        step = torch.linalg.solve(normal + torch.diag_embed(damping * diagonal + 1e-9), gradient)
        trial = (x - step).clamp(low, high)
        trial_value, trial_slope = linearize(trial)
        better = (trial_value.square().sum(dim=1) < value.square().sum(dim=1))[:, None]
        x, value = torch.where(better, trial, x), torch.where(better, trial_value, value)
        slope = torch.where(better[..., None], trial_slope, slope)
        damping = torch.where(better, damping / 5, damping * 10).clamp(1e-9, 1e6)
    return x
