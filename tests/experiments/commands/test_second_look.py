"""Landmarks that lie far from where the shipped network sees them are replaced by the network's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datamodules.preparation.alignment import mean_landmarks
from datamodules.preparation.landmarks import DetectedFace
from datamodules.synthesis.people import HeadSettings
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic_heads import SyntheticHeads
from experiments.commands.reconstruct.face import CROP_SIZE
from experiments.commands.reconstruct.loading import load_pipeline
from experiments.commands.reconstruct.pipeline import FAR_APART, NETWORK_NOISE, Photo, ReconstructionPipeline
from renderers.camera import default_intrinsics, project
from renderers.face_models.default.model import load_default

PLACE, SCALE = np.array([150.0, 90.0]), 0.6  # of the crop in the photograph


class MeanFace:
    """Stands for a network that surely sees the mean face in the middle of every crop."""

    def __init__(self) -> None:
        model = load_default()
        points = model.mean_shape[model.landmark_indices][None]
        self.points = project(points, default_intrinsics(CROP_SIZE)[None])[..., :2]

    def marked(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.points, torch.ones(1, 68)


def aligned(detected: np.ndarray) -> tuple[Any, ReconstructionPipeline, torch.Tensor]:
    network: Any = MeanFace()
    pipeline = ReconstructionPipeline(load_default(), detector="dlib", shipped=network)
    photo = Photo("noise", "noise.png", np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8))
    face = pipeline.aligned(photo, DetectedFace(np.array([100, 50, 300, 250.0]), detected, 1.0))
    return face, pipeline, network.points


def in_photo() -> np.ndarray:
    return np.asarray(PLACE + SCALE * MeanFace().points[0].double().numpy())


def test_a_detector_that_agrees_is_believed() -> None:
    detected = in_photo() + np.random.default_rng(1).normal(0, 2, (68, 2))
    face, pipeline, _ = aligned(detected)
    assert face.detected and pipeline._settings_for([face]) is pipeline.settings
    np.testing.assert_allclose(face.alignment.to_photo(face.landmarks[0].double().numpy()), detected, atol=1e-3)


def test_one_that_does_not_is_overruled() -> None:
    """Its eyes, nose and mouth are where they belong, its jaw is that of nobody."""
    detected = in_photo()
    detected[:17, 0] += 120
    extent = np.ptp(in_photo(), axis=0).prod() ** 0.5
    assert 100 * 17 / 68 * 120 / extent > FAR_APART
    face, pipeline, own = aligned(detected)
    assert not face.detected and torch.equal(face.landmarks, own)
    np.testing.assert_allclose(face.alignment.to_photo(own[0].double().numpy()), in_photo(), atol=0.5)
    settings = pipeline._settings_for([face])
    assert not settings.moving_contour and settings.landmark_noise == NETWORK_NOISE


def test_the_mean_face_fills_the_box_at_every_turn() -> None:
    box = np.array([100.0, 50.0, 300.0, 290.0])
    model = load_default()
    upright = mean_landmarks(model, box, 0.0)
    assert upright[:, 1].min() == pytest.approx(50) and upright[:, 1].max() == pytest.approx(290)
    assert upright[36:42, 0].mean() < 200 < upright[42:48, 0].mean()  # the right eye is on the picture's left
    quarter = mean_landmarks(model, box, 0.0, np.pi / 2)  # from x towards y down: the top of the face goes right
    np.testing.assert_allclose(quarter - (200, 170), (upright - (200, 170)) @ np.array([[0, 1], [-1, 0]]), atol=1e-9)
    left, right = (mean_landmarks(model, box, yaw)[30, 0] - 200 for yaw in (-1.0, 1.0))
    assert left < -30 and right > 30  # the nose's tip


@pytest.mark.parametrize("index", [3, 7])
def test_a_profile_that_the_detector_took_for_a_frontal_face_is_found(index: int) -> None:
    """A drawn head turned by more than 60 degrees; the detector's box is right, its landmarks are a frontal face's."""
    model = load_default()
    settings = SceneSettings(views=1, max_yaw=80.0, heads=HeadSettings(things=0.0, shift=0.0))
    picture = SyntheticHeads(model, "val", 12, 256, 5, settings)[index]
    assert picture.truth is not None
    yaw = float(model.layout().split(picture.truth.coefficients).angles[0, 1])
    true = picture.landmarks[0].double().numpy()
    assert abs(np.degrees(yaw)) > 60
    middle, half = true.mean(axis=0), np.ptp(true[:, 1]) / 2
    box = np.concatenate([middle - half, middle + half])
    pipeline = load_pipeline()
    photo = Photo("head", "head.png", (picture.image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    wrong = mean_landmarks(model, box, 0.0)
    face = pipeline.aligned(photo, DetectedFace(box, wrong, 1.0))
    found = face.alignment.to_photo(face.landmarks[0].double().numpy())
    before, after = (np.linalg.norm(points - true, axis=1).mean() for points in (wrong, found))
    assert not face.detected and after < 0.3 * before
