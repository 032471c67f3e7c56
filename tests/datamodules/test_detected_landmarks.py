"""Landmarks as wrong as a detector's: deterministic, distributed as measured, upright, and the truth untouched."""

from __future__ import annotations

import pytest
import torch

from datamodules.detected_landmarks import DetectedLandmarks
from datamodules.synthesis.landmark_noise import FLOOR, measured_noise, noise_of, upright
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticFaces, SyntheticMultiView
from renderers.io.errors import UserError
from tests.conf.scenes import small_face_model


def exact(count: int = 4) -> SyntheticFaces:
    return SyntheticFaces(small_face_model(), "val", count, 16, 3, SceneSettings(max_yaw=40.0))


def detected(faces: SyntheticFaces, strength: float = 1.0) -> DetectedLandmarks:
    return DetectedLandmarks(faces, faces.layout, strength, (3, 1))


def test_an_error_depends_on_seed_split_and_index_alone_and_the_truth_is_exact() -> None:
    faces = exact()
    wrong, right = detected(faces).__getitems__([0, 2]), faces.__getitems__([0, 2])
    torch.testing.assert_close(detected(faces)[2].landmarks, wrong.landmarks[3:])
    assert (wrong.landmarks - right.landmarks).abs().amin() > 0
    assert wrong.truth is not None and right.truth is not None
    torch.testing.assert_close(wrong.truth.coefficients, right.truth.coefficients)
    other = DetectedLandmarks(faces, faces.layout, 1.0, (4, 1))[0].landmarks
    assert (other - wrong.landmarks[:3]).abs().amax() > 0.01
    half = detected(faces, 0.5).__getitems__([0, 2]).landmarks
    torch.testing.assert_close(half, (wrong.landmarks + right.landmarks) / 2)


def test_errors_have_the_measured_bias_and_covariance_in_the_upright_face() -> None:
    faces, count = exact(700), 700
    rows = list(range(count))
    right, wrong = faces.__getitems__(rows), detected(faces).__getitems__(rows)
    assert right.truth is not None
    angles = faces.layout.split(right.truth.coefficients).angles
    box = (right.landmarks.amax(dim=1) - right.landmarks.amin(dim=1)).prod(dim=1).sqrt()
    errors = upright((wrong.landmarks - right.landmarks) / box[:, None, None], angles[:, 2])
    found, measured = noise_of(errors, angles[:, 1]), measured_noise()
    deviation = measured.covariance.diagonal().sqrt()
    yaws = torch.tensor([-0.5, 0.0, 0.5])
    assert ((found.mean(yaws) - measured.mean(yaws)).flatten(1).abs() / deviation).amax() < 0.15
    scale = deviation[:, None] * deviation
    assert ((found.covariance - FLOOR**2 * torch.eye(136) - measured.covariance).abs() / scale).amax() < 0.12


def test_the_data_module_gives_every_split_such_landmarks_and_refuses_nonsense() -> None:
    counts = {"train_faces": 4, "val_faces": 4, "test_faces": 4, "batch_size": 2}
    exact_data = SyntheticMultiView(small_face_model(), size=16, **counts)
    noisy_data = SyntheticMultiView(small_face_model(), size=16, landmark_noise=1.0, **counts)
    for split in ("train", "val", "test"):
        right, wrong = exact_data.faces(split)[1].landmarks, noisy_data.faces(split)[1].landmarks  # type: ignore[arg-type]
        assert 0.05 < float((wrong - right).norm(dim=-1).mean()) < 2
    with pytest.raises(UserError, match="landmark_noise -1"):
        SyntheticMultiView(small_face_model(), landmark_noise=-1.0)
