"""The fitter against faces whose coefficients are known, and its parts against autograd, SciPy and brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from experiments.fitting.landmark_fitting import levenberg_marquardt, project_with_jacobian, rigid_pose
from experiments.fitting.photometric_fitting import FitResult, FitSettings, fit, project_landmarks
from renderers.camera import Camera, default_intrinsics, euler_to_rotation, project, project_by, transform
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.io.errors import UserError
from renderers.jaw_contour import contour_table, visible_landmarks
from renderers.landmarks68 import JAW_SIDES
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.shiny import small_shiny_model

SIZE = 96
CAMERAS: tuple[Camera, ...] = ("perspective", "orthographic")
EXACT = FitSettings(landmark_noise=0.003, moving_contour=False, photometric_iterations=25, photometric_size=SIZE)


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    return load_bfm2009(write_fake_bfm(Path(tmp_path_factory.mktemp("bfm")) / "bfm.mat"))


@pytest.fixture(scope="module")
def truth(face_model: MorphableModel) -> Coefficients:
    layout = face_model.layout()
    generator = torch.Generator().manual_seed(3)
    coefficients = layout.split(torch.randn(2, layout.length, generator=generator) * 0.7)
    light = torch.randn(2, 1, 9, generator=generator) * 0.1 + torch.randn(2, 3, 9, generator=generator) * 0.02
    return replace(
        coefficients,
        angles=torch.tensor([[0.1, -0.35, 0.15], [-0.2, 0.5, -0.1]]),
        translation=torch.randn(2, 3, generator=generator) * 0.05,
        illumination=light.flatten(1),
    )


@pytest.fixture(scope="module")
def rendering(face_model: MorphableModel, truth: Coefficients) -> Rendering:
    return FaceRenderer(face_model, SIZE)(truth)


def run(
    face_model: MorphableModel, rendering: Rendering, settings: FitSettings, initial: Coefficients | None = None
) -> FitResult:
    batch = len(rendering.image)
    image, skin = rendering.image.clamp(0, 1), torch.ones(batch, 1, SIZE, SIZE)
    camera = default_intrinsics(SIZE).expand(batch, 3, 3)
    return fit(face_model, image, rendering.landmarks, skin, camera, initial, settings)


def test_a_regressor_that_knows_its_errors_is_left_no_further_than_they_reach(
    face_model: MorphableModel, truth: Coefficients, rendering: Rendering
) -> None:
    image, skin = rendering.image.clamp(0, 1), torch.ones(2, 1, SIZE, SIZE)
    camera = default_intrinsics(SIZE).expand(2, 3, 3)
    picture = image, rendering.landmarks, skin, camera
    start = replace(truth, identity=torch.zeros_like(truth.identity), expression=torch.zeros_like(truth.expression))
    settings = replace(EXACT, photometric_iterations=0)
    count = truth.identity.shape[1] + truth.expression.shape[1]
    held, sure, free, wide = (
        fit(face_model, *picture, start, settings, deviation=spread).coefficients.identity.norm(dim=1)
        for spread in (torch.full((count,), 1.0), torch.zeros(count), None, torch.full((count,), 100.0))
    )
    assert (sure > 0).all() and (sure < 0.9 * held).all() and (held < 0.95 * free).all()
    torch.testing.assert_close(wide, free)


def box_normalized(points: Tensor, target: Tensor) -> Tensor:
    """(B,) percent"""
    extent = target.amax(1) - target.amin(1)
    return 100 * (points - target).norm(dim=-1).mean(-1) / extent.prod(-1).sqrt()


def test_recovers_a_synthetic_face(face_model: MorphableModel, truth: Coefficients, rendering: Rendering) -> None:
    result = run(face_model, rendering, EXACT)
    assert (box_normalized(result.landmarks, rendering.landmarks) < 0.3).all()
    assert (result.coefficients.angles - truth.angles).abs().rad2deg().max() < 2
    fitted = face_model.shape(result.coefficients.identity, result.coefficients.expression)
    error = (fitted - rendering.shape).norm(dim=-1).mean(-1)
    of_mean = (face_model.mean_shape - rendering.shape).norm(dim=-1).mean(-1)
    assert (error < 0.75 * of_mean).all()
    drawn = FaceRenderer(face_model, SIZE)(result.coefficients)
    both = (drawn.mask & rendering.mask).expand(-1, 3, -1, -1)
    assert (drawn.image - rendering.image)[both].abs().mean() < 0.02
    assert set(result.seconds) == {"pose", "landmarks", "photometric"}


def test_pixels_improve_on_landmarks_alone(face_model: MorphableModel, rendering: Rendering) -> None:
    history = run(face_model, rendering, EXACT).history
    assert len(history["energy"]) == EXACT.photometric_iterations + 1
    assert min(history["energy"]) < history["energy"][0]
    assert min(history["photometric"]) < 0.9 * history["photometric"][0]


def test_a_batch_is_fitted_as_its_faces_are(face_model: MorphableModel, truth: Coefficients) -> None:
    settings = replace(EXACT, photometric_iterations=3)
    renderer = FaceRenderer(face_model, SIZE)
    together = run(face_model, renderer(truth), settings).coefficients
    alone = run(face_model, renderer(truth.index(slice(1, 2))), settings).coefficients
    for name, value in alone.named().items():
        torch.testing.assert_close(together.named()[name][1:], value, rtol=0, atol=2e-3)


def test_light_is_found_for_known_geometry(
    face_model: MorphableModel, truth: Coefficients, rendering: Rendering
) -> None:
    trusting = replace(EXACT, photometric_iterations=0, photometric_noise=1e-5)
    found = run(face_model, rendering, trusting, truth).coefficients
    colors = FaceRenderer(face_model, SIZE)(replace(truth, illumination=found.illumination, albedo=found.albedo))
    unlit = FaceRenderer(face_model, SIZE)(replace(truth, illumination=torch.zeros_like(truth.illumination)))
    mask = rendering.mask.expand(-1, 3, -1, -1)
    error = (colors.image - rendering.image)[mask].abs().mean()
    assert error < 0.01
    assert error < 0.2 * (unlit.image - rendering.image)[mask].abs().mean()


def test_a_good_start_is_kept(face_model: MorphableModel, truth: Coefficients, rendering: Rendering) -> None:
    settings = replace(EXACT, photometric_iterations=0)

    def shape_error(result: FitResult) -> float:
        fitted = face_model.shape(result.coefficients.identity, result.coefficients.expression)
        return float((fitted - rendering.shape).norm(dim=-1).mean())

    from_truth = shape_error(run(face_model, rendering, settings, truth))
    assert from_truth < 0.3 * shape_error(run(face_model, rendering, settings))


def test_expression_bounds_hold(face_model: MorphableModel, rendering: Rendering) -> None:
    free = replace(EXACT, photometric_iterations=3, expression_deviation=1.0)
    bounded = replace(free, expression_bounds=(0.0, 1.0))
    assert run(face_model, rendering, free).coefficients.expression.min() < -0.5
    expression = run(face_model, rendering, bounded).coefficients.expression
    assert expression.min() == 0 and expression.max() <= 1


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_face_is_fitted_in_its_own_camera(face_model: MorphableModel, truth: Coefficients, camera: Camera) -> None:
    """The other camera explains the same picture too, by another shape."""
    renderer = FaceRenderer(face_model, SIZE, camera=camera)
    drawn, skin = renderer(truth), torch.ones(2, 1, SIZE, SIZE)
    intrinsics = default_intrinsics(SIZE).expand(2, 3, 3)
    given = face_model, drawn.image.clamp(0, 1), drawn.landmarks, skin, intrinsics
    errors = {}
    for tried in CAMERAS:
        own = FaceRenderer(face_model, SIZE, camera=tried)
        found = fit(*given, truth, replace(EXACT, photometric_iterations=3), own)
        torch.testing.assert_close(found.landmarks, own(found.coefficients).landmarks, atol=1e-3, rtol=0)
        fitted = face_model.shape(found.coefficients.identity, found.coefficients.expression)
        errors[tried] = float((fitted - drawn.shape).norm(dim=-1).mean())
    assert errors[camera] == min(errors.values()) < 0.5 * max(errors.values())


def test_what_a_paper_adds_to_the_coefficients_is_kept() -> None:
    """A lamp and a focal length: the face is fitted in that camera and under those highlights."""
    model = small_shiny_model()
    layout, renderer = model.layout(SPECULAR_COEFFICIENTS), SpecularRenderer(model, SIZE)
    coefficients = layout.split(0.3 * torch.randn(1, layout.length, generator=torch.Generator().manual_seed(0)))
    drawn = renderer(coefficients)
    assert coefficients.extra["scale"].abs().max() > 0.05
    given = drawn.image.clamp(0, 1), drawn.landmarks, torch.ones(1, 1, SIZE, SIZE), default_intrinsics(SIZE)[None]
    found = fit(model, *given, coefficients, replace(EXACT, photometric_iterations=3), renderer)
    assert all(torch.equal(found.coefficients.extra[name], value) for name, value in coefficients.extra.items())
    again = renderer(found.coefficients)
    assert (again.landmarks - drawn.landmarks).norm(dim=-1).mean() < 0.3
    assert (found.coefficients.translation - coefficients.translation).abs().max() < 0.1
    assert (again.image - drawn.image).abs().mean() < 0.01


@pytest.mark.parametrize("kind", CAMERAS)
def test_rigid_pose_is_exact_for_a_known_shape(face_model: MorphableModel, kind: Camera) -> None:
    angles = torch.tensor([[0.0, 0.0, 0.0], [0.3, -1.2, 0.4], [-0.4, 0.9, -2.5]])
    translation = torch.tensor([[0.0, 0.0, 0.0], [0.4, -0.3, 1.0], [-0.5, 0.2, -2.0]])
    start = mean_coefficients(face_model, 3)
    camera = default_intrinsics(SIZE).expand(3, 3, 3)
    posed = replace(start, angles=angles, translation=translation)
    target, _ = project_landmarks(FaceRenderer(face_model, camera=kind), posed, camera)
    found_angles, found_translation = rigid_pose(face_model, start, target, camera, kind)
    torch.testing.assert_close(found_angles, angles, rtol=0, atol=1e-4)
    torch.testing.assert_close(found_translation, translation, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", CAMERAS)
def test_jacobian_agrees_with_autograd(kind: Camera) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    pose = torch.randn(2, 6, generator=generator, dtype=torch.float64) * 0.5
    camera = default_intrinsics(SIZE).double().expand(2, 3, 3)

    def pixels(points: Tensor, pose: Tensor) -> Tensor:
        posed = transform(points, euler_to_rotation(pose[:, :3]), pose[:, 3:])
        return project_by(kind, posed, pose[:, 3:], camera)[..., :2]

    value, by_pose, by_point = project_with_jacobian(points, pose, camera, kind)
    expected_by_point, expected_by_pose = torch.autograd.functional.jacobian(pixels, (points, pose))
    torch.testing.assert_close(value, pixels(points, pose))
    for b in range(2):
        torch.testing.assert_close(by_pose[b], expected_by_pose[b, :, :, b])
        for n in range(5):
            torch.testing.assert_close(by_point[b, n], expected_by_point[b, n, :, b, n])


def test_levenberg_marquardt_agrees_with_scipy() -> None:
    times = torch.linspace(0, 3, 20, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    noise = 0.05 * torch.randn(3, 20, generator=generator, dtype=torch.float64)
    data = torch.tensor([[2.0], [1.0], [3.0]]) * torch.exp(-torch.tensor([[0.7], [1.5], [0.3]]) * times) + noise

    def linearize(x: Tensor) -> tuple[Tensor, Tensor]:
        decay = torch.exp(-x[:, 1:] * times)
        return x[:, :1] * decay - data, torch.stack([decay, -x[:, :1] * times * decay], dim=-1)

    found = levenberg_marquardt(linearize, torch.ones(3, 2, dtype=torch.float64), iterations=40)
    for row in range(3):
        curve = data[row].numpy()
        expected = scipy.optimize.least_squares(
            lambda x, curve=curve: x[0] * np.exp(-x[1] * times.numpy()) - curve, np.ones(2), method="lm"
        )
        np.testing.assert_allclose(found[row].numpy(), expected.x, atol=2e-5)


@pytest.fixture(scope="module")
def winking() -> tuple[MorphableModel, Coefficients, Rendering]:
    """Three of the embedded mean face: open eyes, the left one shut, both squinting."""
    model = load_default()
    coefficients = mean_coefficients(model, 3)
    for row, names in enumerate(((), ("eyeBlinkLeft",), ("eyeSquintLeft", "eyeSquintRight"))):
        for name in names:
            coefficients.expression[row, model.expression_names.index(name)] = 1.0
    return model, coefficients, FaceRenderer(model, SIZE)(coefficients)


def weights(model: MorphableModel, result: FitResult, row: int) -> dict[str, float]:
    return dict(zip(model.expression_names, result.coefficients.expression[row].tolist(), strict=True))


WEIGHTS = FitSettings(
    expression_deviation=0.35, expression_bounds=(0.0, 1.0), moving_contour=False, photometric_iterations=0
)


def test_shut_and_squinting_eyes_are_found(winking: tuple[MorphableModel, Coefficients, Rendering]) -> None:
    model, _, rendering = winking
    result = run(model, rendering, WEIGHTS)
    opened, wink, squint = (weights(model, result, row) for row in range(3))
    assert wink["eyeBlinkLeft"] > 0.9 > 0.1 > wink["eyeBlinkRight"]
    assert max(opened["eyeBlinkLeft"], opened["eyeSquintLeft"]) < 0.1
    assert squint["eyeSquintLeft"] > 0.3 and squint["eyeBlinkLeft"] < 0.2


def test_pixels_shut_an_eye_that_the_landmarks_leave_open(
    winking: tuple[MorphableModel, Coefficients, Rendering],
) -> None:
    model, _, rendering = winking
    half_open = rendering.landmarks.clone()
    lids = [43, 44, 46, 47]
    half_open[1, lids] = half_open[1, lids].lerp(rendering.landmarks[0, lids], 0.7)
    lied_to = replace(rendering, landmarks=half_open)
    assert weights(model, run(model, lied_to, WEIGHTS), 1)["eyeBlinkLeft"] < 0.5
    seen = run(model, lied_to, replace(WEIGHTS, photometric_iterations=1, photometric_size=SIZE))
    assert weights(model, seen, 1)["eyeBlinkLeft"] > 0.7
    for row, name in ((0, "eyeBlinkLeft"), (0, "eyeBlinkRight"), (1, "eyeBlinkRight")):
        assert weights(model, seen, row)[name] < 0.2
    assert seen.coefficients.expression.min() >= 0 and seen.coefficients.expression.max() <= 1


def test_levenberg_marquardt_within_bounds_agrees_with_scipy() -> None:
    generator = torch.Generator().manual_seed(2)
    design = torch.randn(4, 12, 5, generator=generator, dtype=torch.float64)
    data = design @ torch.tensor([[1.5], [-0.4], [0.5], [0.0], [2.0]]).double()
    data = data[..., 0] + 0.3 * torch.randn(4, 12, generator=generator, dtype=torch.float64)
    low, high = torch.tensor([0.0, 0.0, -torch.inf, 0.2, 0.0]), torch.tensor([1.0, 1.0, torch.inf, 1.0, torch.inf])

    def linearize(x: Tensor) -> tuple[Tensor, Tensor]:
        return (design @ x[..., None])[..., 0] - data, design

    start = torch.full((4, 5), 3.0, dtype=torch.float64)
    found = levenberg_marquardt(linearize, start, iterations=30, bounds=(low, high))
    for row in range(4):
        expected = scipy.optimize.lsq_linear(design[row].numpy(), data[row].numpy(), (low.numpy(), high.numpy()))
        np.testing.assert_allclose(found[row].numpy(), expected.x, atol=1e-5)
    assert (found == low).any() and (found == high).any()


@pytest.mark.parametrize("yaw", [-0.7, 0.7])
def test_contour_is_the_outermost_of_its_line(face_model: MorphableModel, yaw: float) -> None:
    table = contour_table(face_model)
    angles = torch.tensor([[0.0, yaw, 0.0]])
    posed = transform(face_model.mean_shape[None], euler_to_rotation(angles), torch.zeros(1, 3))
    vertices_image = project(posed, default_intrinsics(SIZE)[None])
    rows = visible_landmarks(table, face_model.landmark_indices, vertices_image, angles)[0]
    mean, places = face_model.mean_shape, vertices_image[0]
    band = 0.012 * (mean[:, 1].max() - mean[:, 1].min())
    moved = 0
    for landmark, own in enumerate(face_model.landmark_indices.tolist()):
        far = landmark in JAW_SIDES and float(mean[own, 0]) * yaw > 0
        if not far:
            assert rows[landmark] == own
            continue
        moved += int(rows[landmark] != own)
        outermost = places[own, 0]
        for vertex in range(face_model.vertex_count):
            inward = mean[vertex, 0] / mean[own, 0]
            level = (mean[vertex, 1] - mean[own, 1]).abs() < band and mean[vertex, 2] >= mean[own, 2] - band
            if level and 0.35 < inward <= 1:
                outermost = max(outermost, places[vertex, 0]) if yaw > 0 else min(outermost, places[vertex, 0])
        assert places[rows[landmark], 0] == outermost
    assert moved >= 3


@pytest.mark.parametrize("broken", ["image", "landmarks", "skin", "initial"])
def test_values_that_are_not_finite_are_refused(
    face_model: MorphableModel, truth: Coefficients, rendering: Rendering, broken: str
) -> None:
    tensors = {
        "image": rendering.image.detach().clone(),
        "landmarks": rendering.landmarks.clone(),
        "skin": torch.ones(2, 1, SIZE, SIZE),
        "initial": truth.identity.clone(),
    }
    tensors[broken][-1, 0] = torch.nan
    initial = replace(truth, identity=tensors["initial"])
    camera = default_intrinsics(SIZE).expand(2, 3, 3)
    with pytest.raises(UserError, match=f"{broken}.* not finite"):
        fit(face_model, tensors["image"], tensors["landmarks"], tensors["skin"], camera, initial, EXACT)


def test_landmarks_without_extent_and_wrong_shapes_are_refused(
    face_model: MorphableModel, rendering: Rendering
) -> None:
    camera, skin = default_intrinsics(SIZE).expand(2, 3, 3), torch.ones(2, 1, SIZE, SIZE)
    with pytest.raises(UserError, match="less than one pixel"):
        fit(face_model, rendering.image, torch.full((2, 68, 2), 40.0), skin, camera)
    with pytest.raises(UserError, match=r"landmarks has shape \(2, 51, 2\)"):
        fit(face_model, rendering.image, rendering.landmarks[:, :51], skin, camera)


def test_views_of_one_person_share_identity_and_are_one_problem(
    face_model: MorphableModel, truth: Coefficients
) -> None:
    one = replace(
        truth,
        identity=truth.identity[:1].expand(2, -1),
        expression=0 * truth.expression,
        albedo=truth.albedo[:1].expand(2, -1),
    )
    seen = FaceRenderer(face_model, SIZE)(one)
    settings = replace(EXACT, photometric_iterations=2)
    picture = seen.image.clamp(0, 1), seen.landmarks, torch.ones(2, 1, SIZE, SIZE)
    camera = default_intrinsics(SIZE).expand(2, 3, 3)
    together = fit(face_model, *picture, camera, settings=settings, views=2).coefficients
    for name in ("identity", "albedo"):
        torch.testing.assert_close(getattr(together, name)[0], getattr(together, name)[1])
    assert (together.angles[0] - together.angles[1]).abs().max() > 0.3

    def error(coefficients: Coefficients) -> float:
        neutral = face_model.shape(coefficients.identity, 0 * coefficients.expression)
        return float((neutral - seen.shape).norm(dim=-1).mean())

    apart = fit(face_model, *picture, camera, settings=settings).coefficients
    assert error(together) < error(apart)
    # Twice the same picture says no more about the prior than one does: the prior counts once.
    twice = [part[:1].expand(2, *part.shape[1:]) for part in (*picture, camera)]
    alone = fit(face_model, *(part[:1] for part in twice), settings=replace(settings, photometric_iterations=0))
    doubled = fit(face_model, *twice, settings=replace(settings, photometric_iterations=0), views=2)
    spread = [result.coefficients.identity[0].square().sum() for result in (alone, doubled)]
    assert spread[1] > spread[0]
