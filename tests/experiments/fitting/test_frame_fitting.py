"""Frames of a known person: the person's own model draws the same face, and lids are found by their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.fitting.frame_fitting import FrameFitter, Windows
from experiments.fitting.personal_model import of_person, part_of
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.face_models.sampling import sample_shape_coefficients
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.illumination import irradiance
from tests.conf.drawn_clip import default_model

SIZE = 256


@pytest.fixture(scope="module")
def model() -> LinearModel:
    return default_model()


@pytest.fixture(scope="module")
def person(model: LinearModel) -> Coefficients:
    """Five frames of somebody whose eyes shut."""
    drawn = sample_shape_coefficients(model, 1, np.random.default_rng(5))
    frames = mean_coefficients(model, 5)
    for name in ("identity", "albedo"):
        getattr(frames, name)[:] = torch.from_numpy(drawn[name]).float()
    frames.angles[:, 1] = torch.linspace(-0.2, 0.2, 5)
    frames.illumination.unflatten(1, (3, 9))[..., 1:4] = torch.tensor([-0.2, 0.3, 0.1])
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        frames.expression[:, model.expression_names.index(name)] = torch.tensor([0.0, 0.3, 1.0, 0.7, 0.1])
    return frames


def test_a_persons_own_model_decodes_the_same_face(model: LinearModel, person: Coefficients) -> None:
    own = of_person(model, person.identity[0], person.albedo[0])
    nothing = torch.zeros(5, 0)
    assert own.layout().sizes["identity"] == own.layout().sizes["albedo"] == 0
    expected = model.shape(person.identity, person.expression)
    torch.testing.assert_close(own.shape(nothing, person.expression), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(own.albedo(nothing), model.albedo(person.albedo), atol=1e-6, rtol=0)
    chosen = np.sort(model.regions["nose"].numpy())
    nose = part_of(own, chosen)
    torch.testing.assert_close(nose.shape(nothing, person.expression), expected[:, chosen], atol=1e-5, rtol=0)
    corners = torch.from_numpy(chosen)[nose.faces]
    kept = {tuple(face) for face in corners.tolist()}
    within = torch.isin(model.faces, torch.from_numpy(chosen)).all(dim=1)
    assert kept == {tuple(face) for face in model.faces[within].tolist()}


def test_shut_eyes_are_seen_whose_landmarks_stand_open(model: LinearModel, person: Coefficients) -> None:
    camera = default_intrinsics(SIZE)[None].expand(5, 3, 3)
    drawn = FaceRenderer(model, SIZE)(person, camera)
    seen_open = replace(person, expression=torch.zeros_like(person.expression))
    landmarks = FaceRenderer(model, SIZE)(seen_open, camera).landmarks
    windows = Windows(drawn.image.clamp(0, 1), camera, landmarks, torch.zeros_like(person.expression))
    fitter = FrameFitter(model, person.identity[0], person.albedo[0], (0.0, 1.0), moving_contour=False)
    found = fitter(windows)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        column = model.expression_names.index(name)
        torch.testing.assert_close(found.expression[:, column], person.expression[:, column], atol=0.12, rtol=0)
    torch.testing.assert_close(found.angles, person.angles, atol=0.02, rtol=0)
    # What falls on the skin that is seen; of the light from behind nothing is known.
    seen = [irradiance(drawn.vertex_normals, light) for light in (found.illumination, person.illumination)]
    front = drawn.vertex_normals[..., 2] > 0.3
    assert float((seen[0] - seen[1])[front].abs().mean()) < 0.03 < float(seen[1][front].std())
