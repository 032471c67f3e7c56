"""Marks of the visible contour beside fixed points: what a photograph marked like dlib's says of a turned head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.batch import FaceBatch, MultiViewBatch
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.marked_landmarks import MarkedLandmarks, fixed_points
from lightning_modules.mgcnet import MGCNet, MGCNetWeights
from losses.landmark import landmark_loss
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.landmarks68 import JAW_SIDES
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import exact_batch, small_face_model

SIZE, YAW = 112, 0.6


@pytest.fixture(scope="module")
def face_model() -> MorphableModel:
    return load_default()


def turned(face_model: MorphableModel, yaws: Tensor) -> Coefficients:
    mean = mean_coefficients(face_model, len(yaws))
    return replace(mean, angles=torch.stack([torch.zeros_like(yaws), yaws, torch.zeros_like(yaws)], dim=1))


def marked_by_eye(vertices: np.ndarray, landmarks: np.ndarray, side: int) -> np.ndarray:
    """The 68 points with the jaw's far side where the drawn face ends, in the rows of the picture the jaw has there."""
    marks = landmarks.copy()
    for point in range(6) if side < 0 else range(11, 17):
        row = np.abs(vertices[:, 1] - landmarks[point, 1]) < 1.5
        reach = vertices[row, 0]
        marks[point, 0] = reach.min() if side < 0 else reach.max()
    return marks


@pytest.mark.parametrize("yaw", [-YAW, YAW])
def test_the_true_yaw_is_the_minimum_where_jaws_are_marked_by_eye(face_model: MorphableModel, yaw: float) -> None:
    """Held against fixed vertices the same marks turn the head several degrees back."""
    renderer = FaceRenderer(face_model, SIZE)
    truth = renderer(turned(face_model, torch.tensor([yaw])))
    marks = marked_by_eye(truth.vertices_image[0].numpy(), truth.landmarks[0].numpy(), -1 if yaw < 0 else 1)
    tried = torch.linspace(yaw - 0.3, yaw + 0.3, 61)
    coefficients = turned(face_model, tried)
    rendering = renderer(coefficients)
    batch = FaceBatch(
        image=torch.zeros(len(tried), 3, SIZE, SIZE),
        landmarks=torch.from_numpy(marks)[None].expand(len(tried), -1, -1),
        skin=torch.zeros(len(tried), 1, SIZE, SIZE),
        intrinsics=torch.eye(3).expand(len(tried), 3, 3),
    )
    found = {}
    for name, contour in (("fixed", None), ("moved", torch.ones(len(tried), dtype=torch.bool))):
        seen = MarkedLandmarks(face_model)(rendering, coefficients, replace(batch, contour=contour))
        loss = landmark_loss(seen.landmarks, batch.landmarks, torch.ones(68), SIZE)
        found[name] = float(torch.rad2deg(tried[loss.argmin()] - yaw))
    assert abs(found["moved"]) < 1.0
    assert abs(found["fixed"]) > 2.0, found


def test_each_image_is_taken_as_it_is_marked(face_model: MorphableModel) -> None:
    coefficients = turned(face_model, torch.tensor([YAW, YAW, 0.0]))
    rendering = FaceRenderer(face_model, SIZE)(coefficients)
    plain = FaceBatch(rendering.image, rendering.landmarks, rendering.mask.float(), torch.eye(3).expand(3, 3, 3))
    seen = MarkedLandmarks(face_model)
    assert seen(rendering, coefficients, plain) is rendering
    mixed = replace(plain, contour=torch.tensor([False, True, True]))
    moved = (seen(rendering, coefficients, mixed).landmarks - rendering.landmarks).norm(dim=-1) > 0
    assert not moved[0].any() and not moved[2].any()
    far = [point for point in JAW_SIDES if face_model.mean_shape[face_model.landmark_indices[point], 0] > 0]
    assert set(moved[1].nonzero().flatten().tolist()) <= set(far) and moved[1].sum() >= 3
    fixed = fixed_points(mixed)
    assert fixed[0].all() and [point for point in range(68) if not fixed[1, point]] == list(JAW_SIDES)


def test_the_epipolar_term_leaves_out_what_two_views_do_not_share() -> None:
    """Jaws of the middle view moved anywhere: its pairs' term stays that of the other 56 points."""
    batch, truth = exact_batch(small_face_model(), faces=1, size=SIZE)
    assert batch.views is not None
    torch.manual_seed(0)
    model = small_face_model()
    weights = MGCNetWeights(render=0, landmark=0, identity=0, regularization=0, pixel=0, depth=0, epipolar=1)
    module = MGCNet(model, ResNet(18), SmallEncoder(), SIZE, weights)
    module.regressor = Told(truth)  # type: ignore[assignment]
    rendering = module.renderer(truth, batch.intrinsics)
    exact = module.multi_view_terms(batch, rendering)["epipolar"]
    moved = batch.landmarks.clone()
    moved[1, list(JAW_SIDES), 1] += 9.0
    marked = replace(batch, landmarks=moved)
    assert isinstance(marked, MultiViewBatch)
    wrong = module.multi_view_terms(marked, rendering)["epipolar"]
    right = module.multi_view_terms(replace(marked, contour=torch.tensor([False, True, False])), rendering)["epipolar"]
    assert wrong > 100 * exact and right <= exact
