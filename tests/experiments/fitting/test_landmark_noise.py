"""The detector's errors: what is measured of them, and how a fit weighs landmarks by them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.synthesis.landmark_noise import MIRROR, LandmarkNoise, measured_noise, noise_of, upright
from experiments.fitting import landmark_noise
from experiments.fitting.landmark_fitting import ROBUST_SCALE, LandmarkProblem, SecondOpinion, fit_landmarks
from experiments.fitting.photometric_fitting import project_landmarks
from renderers.camera import default_intrinsics
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, mean_coefficients
from tests.conf.scenes import small_face_model


def problem(noise: LandmarkNoise, target: torch.Tensor) -> LandmarkProblem:
    model = small_face_model()
    return LandmarkProblem(
        mean=mean_coefficients(model, len(target)),
        target=target,
        intrinsics=default_intrinsics(224).expand(len(target), 3, 3),
        camera="perspective",
        noise=noise,
        doubt=torch.ones(len(target), 68),
        deviation=torch.ones(model.identity_size + model.expression_size),
        expression_bounds=None,
    )


def test_bias_and_covariance_are_those_that_were_drawn() -> None:
    generator = torch.Generator().manual_seed(2)
    yaw = torch.rand(20000, generator=generator) - 0.5
    shared = torch.randn(20000, 1, 1, generator=generator) * torch.tensor([0.0, 0.03])
    own = 0.01 * torch.randn(20000, 68, 2, generator=generator)
    # A shift along x that turns with the face is the same in its mirror image.
    errors = shared + own + torch.tensor([0.0, 0.02]) + yaw.sin()[:, None, None] * torch.tensor([0.01, 0.0])
    noise = noise_of(errors, yaw)
    expected = torch.tensor([0.01 * math.sin(0.3), 0.02]).expand(68, 2)
    torch.testing.assert_close(noise.mean(torch.tensor([0.3]))[0], expected, atol=2e-3, rtol=0)
    up = noise.covariance[1::2, 1::2]
    torch.testing.assert_close(up, 9e-4 + 1e-4 * torch.eye(68), atol=6e-5, rtol=0)
    assert noise.covariance[::2, 1::2].abs().max() < 4e-5


def test_the_mirrored_points_are_those_of_the_mirrored_face() -> None:
    model = load_default()
    points = model.mean_shape[model.landmark_indices]
    torch.testing.assert_close(points[MIRROR] * torch.tensor([-1.0, 1.0, 1.0]), points, atol=0.02, rtol=0)


def test_whitened_offsets_are_the_mahalanobis_distance_about_the_bias() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(136, 136, generator=generator).double()
    covariance = (1e-5 * root @ root.T + 1e-3 * torch.eye(136)).float()
    noise = LandmarkNoise(0.01 * torch.randn(3, 68, 2, generator=generator), covariance)
    target = 224 * torch.rand(1, 68, 2, generator=generator)
    points = target + torch.randn(1, 68, 2, generator=generator)
    angles = torch.tensor([[0.0, 0.4, 0.3]])
    asked = problem(noise, target)
    matrix, constant = asked.whitening(points, angles)
    white = matrix[0] @ (points - target).flatten() + constant[0]
    box = float(asked.box)
    # By hand: detected = projected + box R(roll) (bias + noise), with y down, so that a roll turns the other way.
    cos, sin = np.cos(0.3), np.sin(0.3)
    offset = (points - target)[0].double().numpy() @ np.array([[cos, sin], [-sin, cos]]) / box
    bias = noise.bias[0] + math.sin(0.4) * noise.bias[1] + math.sin(0.4) ** 2 * noise.bias[2]
    left = (offset + bias.double().numpy()).ravel()
    expected = left @ np.linalg.solve(covariance.double().numpy(), left)
    assert float(white @ white) == pytest.approx(expected, rel=1e-3)
    # A doubted landmark says nearly nothing.
    doubtful = replace(asked, doubt=torch.cat([torch.full((1, 1), 1e6), torch.ones(1, 67)], dim=1))
    moved = points.clone()
    moved[0, 0] += 20
    one, other = (doubtful.whitening(points, angles)[0][0] @ (p - target).flatten() for p in (points, moved))
    torch.testing.assert_close(one, other, atol=1e-2, rtol=0)


def test_a_second_opinion_adds_its_own_squares() -> None:
    generator = torch.Generator().manual_seed(3)
    target = 224 * torch.rand(1, 68, 2, generator=generator)
    other = target + torch.randn(1, 68, 2, generator=generator)
    deviation = 1 + torch.rand(1, 68, generator=generator)
    deviation[:, :17] = torch.inf
    points = target + 0.5
    alone = problem(LandmarkNoise.even(0.02), target)
    both = replace(alone, second=SecondOpinion(other, deviation))
    squares = []
    for asked in (alone, both):
        matrix, constant = asked.whitening(points, torch.zeros(1, 3))
        squares.append(float((matrix[0] @ (points - target).flatten() + constant[0]).square().sum()))
    # By hand; none of these points is an outlier.
    added = ((points - other)[0, 17:] / deviation[0, 17:, None]).square().sum()
    assert squares[1] - squares[0] == pytest.approx(float(added), rel=1e-4)
    # An outlier weighs by Huber's function: its square grows as its distance.
    far = replace(alone, second=SecondOpinion(other + 1000, deviation))
    matrix, constant = far.whitening(points, torch.zeros(1, 3))
    rows = (matrix[0] @ (points - target).flatten() + constant[0])[136:].unflatten(0, (68, 2))[17:].square().sum(dim=1)
    distance = (points - other - 1000)[0, 17:].norm(dim=-1) / deviation[0, 17:]
    torch.testing.assert_close(rows, ROBUST_SCALE * distance, rtol=1e-4, atol=0)


def test_a_sure_second_opinion_moves_the_fit() -> None:
    model = small_face_model()
    camera = default_intrinsics(224)[None]
    start = mean_coefficients(model, 1)
    true = replace(start, identity=start.identity + 1.5, translation=torch.tensor([[0.1, 0.0, 0.0]]))
    renderer = FaceRenderer(model, 224)
    exact, _ = project_landmarks(renderer, true, camera)
    detected, _ = project_landmarks(renderer, start, camera)
    asked = problem(LandmarkNoise.even(0.05), detected)
    asked = replace(asked, deviation=10 * asked.deviation, second=SecondOpinion(exact, torch.full((1, 68), 1e-3)))
    found, _ = project_landmarks(renderer, fit_landmarks(model, asked, start, None, 6), camera)
    assert float((found - exact).norm(dim=-1).max()) < 0.05 < float((detected - exact).norm(dim=-1).max())


def test_upright_undoes_a_roll() -> None:
    right = torch.tensor([[[1.0, 0.0]]])
    # A face that leans to its left by 30 degrees has its own x axis turned up in the picture, where y points down.
    leaning = torch.tensor([[[math.cos(math.pi / 6), -math.sin(math.pi / 6)]]])
    torch.testing.assert_close(upright(leaning, torch.tensor([math.pi / 6])), right)


def test_the_measured_noise_is_a_covariance() -> None:
    noise = measured_noise()
    values = torch.linalg.eigvalsh(noise.covariance.double())
    assert values.min() > 0.5e-6 and 0.01 < float(noise.covariance.diagonal().mean().sqrt()) < 0.04
    # Errors of neighbours on the jaw go together: that is what one number a point leaves out.
    deviation = noise.covariance.diagonal().sqrt()
    correlation = noise.covariance / deviation[:, None] / deviation
    assert correlation[2 * 8 + 1, 2 * 7 + 1] > 0.5


def test_the_recipe_measures_a_detector_that_errs_by_a_known_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    from datamodules.preparation.landmarks import DetectedFace

    seen: list[np.ndarray] = []
    exact = landmark_noise.under_default_camera

    def remembered(*arguments: object) -> object:
        found = exact(*arguments)  # type: ignore[arg-type]
        seen.extend(found[0].numpy())
        return found

    class Shifted:
        name, contour, asked = "shifted", True, 0

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            points = seen[self.asked] + [0.0, 1.0]
            self.asked += 1
            return [DetectedFace(np.zeros(4), points, 1.0)] if self.asked != 2 else []

    monkeypatch.setattr(landmark_noise, "under_default_camera", remembered)
    monkeypatch.setattr(landmark_noise, "SIZE", 96)
    errors, yaws = landmark_noise.measure_errors(load_default(), Shifted(), 1, seed=5)  # type: ignore[arg-type]
    assert len(errors) == len(yaws) == 2
    sizes = [math.sqrt(float(np.prod(np.ptp(points, axis=0)))) for points in (seen[0], seen[2])]
    torch.testing.assert_close(errors.norm(dim=-1).mean(dim=1), torch.tensor([1 / s for s in sizes]), rtol=1e-3, atol=0)
