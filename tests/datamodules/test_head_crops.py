"""Crops of drawn heads: everything that is said of them, against projection and the picture's own pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from datamodules import synthetic
from datamodules.batch import FaceBatch, Truth
from datamodules.camera_effects import CameraRanges
from datamodules.head_crops import CropJitter, HeadCrop, HeadCrops
from datamodules.preparation.alignment import align, model_template
from datamodules.synthesis.scenes import SceneSettings
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.face_models.default.model import load_default
from renderers.illumination import irradiance

SIZE, CROP, COUNT = 96, 64, 5
STRONG = CropJitter(scale=0.2, turn=0.5, shift=0.05, point=0.03)


def pictures() -> tuple[FaceBatch, Coefficients, CoefficientLayout]:
    """Mean faces, turned, before a camera; a picture's red and green say where a pixel is, the maps too."""
    model, generator = load_default(), torch.Generator().manual_seed(0)
    layout = model.layout()
    vector = 0.3 * torch.randn(COUNT, layout.length, generator=generator)
    drawn = layout.split(vector)
    camera = default_intrinsics(SIZE).repeat(COUNT, 1, 1)
    camera[:, :2, 2] += torch.tensor([2.0, -3.0])
    posed = transform(model.mean_shape.expand(COUNT, -1, -1), euler_to_rotation(drawn.angles), drawn.translation)
    points = project(posed, camera)[:, model.landmark_indices, :2]
    steps = (torch.arange(SIZE) + 0.5) / SIZE
    image = torch.stack([steps.expand(SIZE, -1), steps[:, None].expand(-1, SIZE), torch.zeros(SIZE, SIZE)])
    image = image.repeat(COUNT, 1, 1, 1)
    truth = Truth(vector, image[:, :1], parsing=(12 * image[:, :1]).byte())
    return FaceBatch(image, points, image[:, :1], camera, truth), drawn, layout


def cropped(jitter: CropJitter) -> tuple[FaceBatch, FaceBatch, Coefficients, Coefficients]:
    batch, drawn, layout = pictures()
    template = torch.from_numpy(model_template(load_default(), CROP)).float()
    torch.manual_seed(2)
    found = HeadCrop(template, CROP, jitter, layout)(batch)
    assert found.truth is not None
    return batch, found, drawn, layout.split(found.truth.coefficients)


def test_pose_and_camera_of_a_crop_project_to_where_the_pixels_went() -> None:
    batch, crop, _, turned = cropped(STRONG)
    model = load_default()
    posed = transform(model.mean_shape.expand(COUNT, -1, -1), euler_to_rotation(turned.angles), turned.translation)
    points = project(posed, crop.intrinsics)[:, model.landmark_indices, :2]
    np.testing.assert_allclose(points, crop.landmarks, atol=2e-3)
    inside = ((points > 1) & (points < CROP - 1)).all(dim=-1) & (
        (batch.landmarks > 1) & (batch.landmarks < SIZE - 1)
    ).all(-1)
    assert inside.sum() > 40 * COUNT
    grid = (2 * points / CROP - 1)[:, :, None]
    seen = torch.nn.functional.grid_sample(crop.image, grid, align_corners=False)[:, :2, :, 0].transpose(1, 2)
    np.testing.assert_allclose(SIZE * seen[inside], batch.landmarks[inside], atol=0.05)


def test_without_jitter_it_is_the_alignment_that_reconstruct_makes() -> None:
    batch, crop, _, _ = cropped(CropJitter(0, 0, 0, 0))
    for before, after in zip(batch.landmarks.numpy(), crop.landmarks.numpy(), strict=True):
        expected = align(before, model_template(load_default(), CROP), CROP).to_crop(before)
        np.testing.assert_allclose(after, expected, atol=1e-3)


def test_the_light_turns_with_the_head() -> None:
    _, _, drawn, turned = cropped(STRONG)
    normals = torch.from_numpy(Rotation.random(30, random_state=1).as_matrix()[:, 0]).float().expand(COUNT, -1, -1)
    before, after = euler_to_rotation(drawn.angles), euler_to_rotation(turned.angles)
    assert (before - after).abs().max() > 0.2
    expected = irradiance(normals @ before.transpose(1, 2), drawn.illumination)
    np.testing.assert_allclose(irradiance(normals @ after.transpose(1, 2), turned.illumination), expected, atol=1e-5)


def test_plain_faces_are_cropped_too_and_cameras_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "cache_dir", lambda: tmp_path)  # of faces; the face model's is kept
    found = {}
    for effects in (CameraRanges(), None):
        data = HeadCrops(load_default(), CROP, SIZE, 2, 2, 1, 1, settings=SceneSettings(1), camera_effects=effects)
        batch = data.faces("train")[0]
        torch.manual_seed(3)
        cropped = data.crop(batch)
        torch.manual_seed(3)
        found[effects] = data.photographed(batch)
        assert (found[effects].image.shape[-1], batch.image.shape[-1]) == (CROP, SIZE)
    torch.testing.assert_close(found[None].image, cropped.image, rtol=0, atol=0)
    assert (found[CameraRanges()].image - cropped.image).abs().mean() > 0.01
    torch.testing.assert_close(found[CameraRanges()].landmarks, cropped.landmarks)
