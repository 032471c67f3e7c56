"""Landmarks that lie far from where the shipped network sees them are replaced by the network's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.reconstruct.face import CROP_SIZE
from experiments.commands.reconstruct.pipeline import FAR_APART, NETWORK_NOISE, Photo, ReconstructionPipeline
from renderers.camera import default_intrinsics, project
from renderers.face_models.default.model import load_default

PLACE, SCALE = np.array([150.0, 90.0]), 0.6  # of the crop in the photograph


class MeanFace:
    """Stands for a network that sees the mean face in the middle of every crop."""

    def __init__(self) -> None:
        model = load_default()
        points = model.mean_shape[model.landmark_indices][None]
        self.points = project(points, default_intrinsics(CROP_SIZE)[None])[..., :2]

    def landmarks(self, image: torch.Tensor) -> torch.Tensor:
        return self.points


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
