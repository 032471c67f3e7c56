"""The landmarks' part of the fitter: closed-form pose, Levenberg-Marquardt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from datamodules.synthesis.landmark_noise import LandmarkNoise, upright
from renderers.camera import CAMERA_DISTANCE, NEAR, Camera, euler_to_rotation, project_by, rotation_to_euler, transform
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.jaw_contour import ContourTable, gather_vertices, visible_landmarks

ROBUST_SCALE = 3.0  # landmarks further off than this many deviations lose weight


@dataclass(frozen=True)
class SecondOpinion:
    """The same landmarks as another source has them, such as the shipped network beside a detector. B faces.

    Attributes:
        points: (B, 68, 2) pixels; fixed points of the head, also at the jaw.
        deviation: (B, 68) of each coordinate, pixels; infinite where there is no opinion.
    """

    points: Tensor
    deviation: Tensor


@dataclass
class LandmarkProblem:
    """Maximum a posteriori of pose, identity and expression, given 68 detected points.

    Attributes:
        mean: where the prior is centred; B faces.
        target: (B, 68, 2) pixels.
        intrinsics: (B, 3, 3) pixels.
        camera: which projects the faces.
        noise: of the detector.
        doubt: (B, 68) what each landmark's deviation is multiplied by.
        deviation: (I + E,) that of the prior, identity and then expression.
        expression_bounds: (least, most) that every expression coefficient may be; none where absent.
        views: so many faces in a row are one person, whose identity they share.
        second: other measurements of the same landmarks, whose errors are independent of the detector's.
    """

    mean: Coefficients
    target: Tensor
    intrinsics: Tensor
    camera: Camera
    noise: LandmarkNoise
    doubt: Tensor
    deviation: Tensor
    expression_bounds: tuple[float, float] | None
    views: int = 1
    second: SecondOpinion | None = None

    @property
    def box(self) -> Tensor:
        """(B,) sqrt(w * h) of the detected landmarks' box, pixels."""
        extent = self.target.amax(dim=1) - self.target.amin(dim=1)
        return extent.prod(dim=1).sqrt()

    def whitening(self, points: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, 136) and (B, R): the first times the landmarks' offsets from their targets, pixels, plus the
        second is of unit deviation. Outliers weigh less, by Huber's function of the points at hand. R is 136, or twice
        that with a second opinion.

        Args:
            points: (B, 68, 2) pixels, where the landmarks are now.
            angles: (B, 3) radians.
        """
        offsets = upright((points - self.target) / self.box[:, None, None], angles[:, 2]) + self.noise.mean(
            angles[:, 1]
        )
        deviation = self.noise.covariance.diagonal().unflatten(0, (68, 2)).sum(dim=1).div(2).sqrt() * self.doubt
        far = offsets.norm(dim=-1) / deviation
        trust = (ROBUST_SCALE / far.clamp_min(ROBUST_SCALE)).sqrt() / self.doubt
        factor = torch.linalg.cholesky(torch.linalg.inv(self.noise.covariance.double())).to(points).T
        weighted = factor * trust.repeat_interleave(2, dim=1)[:, None]
        constant = (weighted @ self.noise.mean(angles[:, 1]).flatten(1)[..., None]).squeeze(-1)
        unit = torch.eye(2).to(points)[:, None].expand(2, len(points), 2)
        turn = torch.stack([upright(axis[:, None], angles[:, 2])[:, 0] for axis in unit], dim=-1)
        turned = torch.einsum("bknc,bcd->bknd", weighted.unflatten(2, (68, 2)), turn) / self.box[:, None, None, None]
        if self.second is None:
            return turned.flatten(2), constant
        weight = self._second_weight(self.second, points).repeat_interleave(2, dim=1)
        apart = (self.target - self.second.points).flatten(1)
        return torch.cat([turned.flatten(2), torch.diag_embed(weight)], 1), torch.cat([constant, weight * apart], 1)

    def _second_weight(self, second: SecondOpinion, points: Tensor) -> Tensor:
        """(B, 68): one over the deviation, less for outliers."""
        deviation = second.deviation * self.doubt
        far = (points - second.points).norm(dim=-1) / deviation
        return (ROBUST_SCALE / far.clamp_min(ROBUST_SCALE)).sqrt() / deviation

    def distance(self, points: Tensor) -> Tensor:
        """(B,) mean point distance in percent of the box."""
        return 100 * (points - self.target).norm(dim=-1).mean(dim=-1) / self.box

    def bounds(self, layout_sizes: Sequence[int], expressions: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Least and most (P,) of a vector whose parts have these sizes, those of `expressions` being expressions."""
        low = [torch.full((size,), -torch.inf) for size in layout_sizes]
        high = [-part for part in low]
        if self.expression_bounds is not None:
            for part in expressions:
                low[part].fill_(self.expression_bounds[0])
                high[part].fill_(self.expression_bounds[1])
        device = self.target.device
        return torch.cat(low).to(device), torch.cat(high).to(device)

    def prior(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, I + E) residuals of unit deviation; those of a shared identity count as one face's."""
        identity = (identity - self.mean.identity) / self.views**0.5
        return torch.cat([identity, expression - self.mean.expression], dim=-1) / self.deviation

    def energy(self, points: Tensor, coefficients: Coefficients) -> Tensor:
        """(B,) negative log posterior of landmarks (B, 68, 2) and of all coefficients, albedo and light included."""
        with torch.no_grad():
            matrix, constant = self.whitening(points, coefficients.angles)
        white = (matrix @ (points - self.target).flatten(1)[..., None]).squeeze(-1) + constant
        prior = self.prior(coefficients.identity, coefficients.expression).square().sum(dim=-1)
        prior = prior + (coefficients.albedo - self.mean.albedo).square().sum(dim=-1) / self.views
        light = coefficients.illumination.unflatten(-1, (3, 9))
        chroma = (light - light.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
        return 0.5 * (white.square().sum(dim=-1) + prior) + chroma


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
    points = face_model.shape(shape.identity, shape.expression)[:, face_model.landmark_indices].double()
    pose = pose_of_points(points, target.double(), intrinsics.double(), camera)
    return pose[:, :3].to(target.dtype), pose[:, 3:].to(target.dtype)


def pose_of_points(points: Tensor, target: Tensor, intrinsics: Tensor, camera: Camera = "perspective") -> Tensor:
    """(B, 6) angles and translation of fixed points, as `rigid_pose` finds them.

    Args:
        points: (B, N, 3) model space, decimetres.
        target: (B, N, 2) pixels.
        intrinsics: (B, 3, 3) pixels.
        camera: which projects them.
    """
    focal = torch.stack([intrinsics[:, 0, 0], -intrinsics[:, 1, 1]], dim=-1)[:, None]
    rays = (target - intrinsics[:, None, :2, 2]) / focal
    affine = torch.linalg.lstsq(torch.nn.functional.pad(points, (0, 1), value=1.0), rays).solution.transpose(1, 2)
    rows, offset = affine[..., :3], affine[..., 3]
    left, singular, right = torch.linalg.svd(rows, full_matrices=False)
    depth = 1 / singular.mean(dim=-1).clamp_min(1e-3)
    two = left @ right
    rotation = torch.cat([two, torch.linalg.cross(two[:, :1], two[:, 1:])], dim=1)
    translation = torch.cat([offset * depth[:, None], CAMERA_DISTANCE - depth[:, None]], dim=-1)
    start = torch.cat([rotation_to_euler(rotation), translation], dim=-1)

    def linearize(pose: Tensor) -> tuple[Tensor, Tensor]:
        projected, by_pose, _ = project_with_jacobian(points, pose, intrinsics, camera)
        return (projected - target).flatten(1), by_pose.flatten(1, 2)

    return levenberg_marquardt(linearize, start, iterations=10)


def fit_landmarks(
    face_model: LinearModel, problem: LandmarkProblem, start: Coefficients, contour: ContourTable | None, rounds: int
) -> Coefficients:
    """Pose, identity and expression of the maximum a posteriori; illumination and albedo as they were.

    Each round finds the visible contour, gives outliers less weight, and takes a few Levenberg-Marquardt steps. The
    faces of one person are one problem: (P, I + views (6 + E)) for P people.
    """
    views, identities = problem.views, face_model.identity_size
    each = [6, face_model.expression_size]
    basis = face_model.shape_basis.T.unflatten(0, (-1, 3))
    cameras, target = problem.intrinsics.double(), problem.target.double()
    low, high = problem.bounds([identities, *each * views], range(2, 2 * views + 1, 2))
    by_weights = torch.diag(1 / problem.deviation.double())

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own = x[:, identities:].unflatten(1, (views, -1)).flatten(0, 1)
        return own[:, :6], x[:, :identities].repeat_interleave(views, dim=0), own[:, 6:]

    def linearize(x: Tensor, base: Tensor, span: Tensor, matrix: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
        pose, identity, expression = parts(x)
        points = base + torch.einsum("bnck,bk->bnc", span, torch.cat([identity, expression], dim=1))
        projected, by_pose, by_point = project_with_jacobian(points, pose, cameras, problem.camera)
        slope = matrix @ torch.cat([by_point @ span, by_pose], dim=-1).flatten(1, 2)
        value = (matrix @ (projected - target).flatten(1)[..., None]).squeeze(-1) + constant
        values = torch.cat([value, problem.prior(identity, expression)], dim=1)
        shared = by_weights[:, :identities] / views**0.5
        of_prior = torch.nn.functional.pad(torch.cat([shared, by_weights[:, identities:]], dim=1), (0, 6))
        slopes = torch.cat([slope, of_prior.expand(len(slope), -1, -1)], dim=1)
        return values.unflatten(0, (-1, views)).flatten(1), _of_people(slopes, identities, views)

    own = torch.cat([start.angles, start.translation, start.expression], dim=-1).unflatten(0, (-1, views)).flatten(1)
    x = torch.cat([start.identity[::views], own], dim=-1).double()
    for _ in range(rounds):
        pose, identity, expression = (part.to(basis.dtype) for part in parts(x))
        posed = transform(face_model.shape(identity, expression), euler_to_rotation(pose[:, :3]), pose[:, 3:])
        vertices_image = project_by(problem.camera, posed, pose[:, 3:], problem.intrinsics)
        rows = visible_landmarks(contour, face_model.landmark_indices, vertices_image, pose[:, :3])
        matrix, constant = problem.whitening(gather_vertices(vertices_image, rows)[..., :2], pose[:, :3])
        at_these = partial(
            linearize,
            base=face_model.mean_shape[rows].double(),
            span=basis[rows].double(),
            matrix=matrix.double(),
            constant=constant.double(),
        )
        x = levenberg_marquardt(at_these, x, iterations=5, bounds=(low, high))
    pose, identity, expression = (part.to(start.identity.dtype) for part in parts(x))
    return replace(start, angles=pose[:, :3], translation=pose[:, 3:], identity=identity, expression=expression)


def _of_people(slopes: Tensor, identities: int, views: int) -> Tensor:
    """The Jacobians (P views, R, I + E + 6) of faces as those of people (P, views R, I + views (6 + E))."""
    if views == 1:
        return torch.cat([slopes[..., :identities], slopes[..., -6:], slopes[..., identities:-6]], dim=-1)
    of_faces = slopes.unflatten(0, (-1, views))
    own = torch.cat([of_faces[..., -6:], of_faces[..., identities:-6]], dim=-1)
    apart = torch.einsum("pvrk,vw->pvrwk", own, torch.eye(views).to(own)).flatten(3)
    return torch.cat([of_faces[..., :identities], apart], dim=-1).flatten(1, 2)


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
