"""Closed-form similarities, analytic pictures and a drawn face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.preparation.alignment import Alignment, align, default_template, five_points, model_template, warp
from renderers.face_renderer import FaceRenderer, mean_coefficients
from tests.conf.scenes import small_face_model

angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 20)
shifts = st.floats(-500, 500)


def similarity(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


def scattered_face(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 200, (68, 2))


@given(scales, angles, shifts, shifts)
def test_a_known_similarity_is_recovered(scale: float, angle: float, x: float, y: float) -> None:
    face, matrix = scattered_face(), similarity(scale, angle, x, y)
    template = five_points(face) @ matrix[:, :2].T + matrix[:, 2]
    alignment = align(face, template)
    np.testing.assert_allclose(alignment.matrix, matrix, atol=1e-7 * max(1, scale))
    assert alignment.scale == pytest.approx(scale)


@given(scales, angles, shifts, shifts, st.integers(0, 1000))
def test_points_go_there_and_back(scale: float, angle: float, x: float, y: float, seed: int) -> None:
    alignment, points = Alignment(similarity(scale, angle, x, y), 224), scattered_face(seed)
    np.testing.assert_allclose(alignment.to_photo(alignment.to_crop(points)), points, atol=1e-6)


def test_no_other_similarity_fits_better() -> None:
    """Least squares: every small change of scale, angle or shift makes it worse."""
    rng = np.random.default_rng(1)
    face, template = scattered_face(), rng.uniform(50, 170, (5, 2))
    best = align(face, template).matrix

    def cost(matrix: np.ndarray) -> float:
        return float(((five_points(face) @ matrix[:, :2].T + matrix[:, 2] - template) ** 2).sum())

    scale, angle = np.hypot(best[0, 0], best[1, 0]), np.arctan2(best[1, 0], best[0, 0])
    for step in np.vstack([np.eye(4), -np.eye(4)]) * [1e-3, 1e-3, 0.1, 0.1]:
        assert cost(similarity(scale + step[0], angle + step[1], *(best[:, 2] + step[2:]))) > cost(best)


def test_a_mirrored_template_is_never_reached_by_reflection() -> None:
    face = scattered_face()
    matrix = align(face, five_points(face) * [-1, 1]).matrix
    assert np.linalg.det(matrix[:, :2]) > 0


def test_a_profile_keeps_its_size() -> None:
    template = np.array([[80, 90], [144, 90], [112, 128], [88, 160], [136, 160]], float)
    for squeeze in (1.0, 0.5, 0.1):
        face = np.zeros((68, 2))
        squeezed = (template - 112) * [squeeze, 1] + 112
        for rows, point in zip((slice(36, 42), slice(42, 48), 30, 48, 54), squeezed, strict=True):
            face[rows] = point
        assert 0.95 < align(face, template).scale < 1.25


@pytest.mark.parametrize("bad", [np.zeros((68, 2)), np.full((68, 2), np.nan)])
def test_degenerate_landmarks_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="coincide or are not finite"):
        align(bad, five_points(scattered_face()))


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


@pytest.mark.parametrize("scale", [0.13, 0.5, 1.0, 2.7])
def test_picture_and_points_move_together(scale: float) -> None:
    """The centroid of a drawn disc goes where the map sends its centre, to a small part of a pixel."""
    centre = (151.3, 98.7)
    turned = similarity(scale, 0.4, 0, 0)
    target = np.array([110.2, 115.9])
    turned[:, 2] = target - turned[:, :2] @ centre
    alignment = Alignment(turned, 224)
    radius = 20 if scale > 1 else 30
    crop = alignment.crop(disc(211, 307, centre, radius))
    np.testing.assert_allclose(centroid(crop), target, atol=0.02)
    # Area goes with the square of the scale.
    assert crop.sum() == pytest.approx(np.pi * (radius * scale) ** 2, rel=0.02)


def test_the_identity_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Alignment(similarity(1, 0, 0, 0), 64).crop(image), image)
    quarter = Alignment(np.array([[0.0, -1, 64], [1, 0, 0]]), 64)
    np.testing.assert_array_equal(quarter.crop(image), np.rot90(image, -1))


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((512, 512), np.float32)
    stripes[:, ::2] = 1
    small = warp(stripes, similarity(0.1, 0.0, 0, 0), (51, 51))
    assert np.abs(small[2:-2, 2:-2] - 0.5).max() < 0.05
    plain = cv2.warpAffine(stripes, similarity(0.1, 0.0, 0, 0), (51, 51))
    assert np.abs(plain[2:-2, 2:-2] - 0.5).max() > 0.4  # what the averaging is for


def test_coverage_says_what_lies_inside_the_photograph() -> None:
    alignment = Alignment(similarity(1.0, 0, 20, 30), 100)
    coverage = alignment.coverage(40, 50)
    expected = np.zeros((100, 100), np.float32)
    expected[30:70, 20:70] = 1
    np.testing.assert_array_equal(coverage, expected)


def test_template_is_the_mean_face_under_the_default_camera() -> None:
    """The mean face's own drawing needs no moving: its alignment is the identity, at any size."""
    model = small_face_model()
    for size in (64, 224):
        landmarks = FaceRenderer(model, size)(mean_coefficients(model, 1)).landmarks[0].numpy()
        alignment = align(landmarks, model_template(model, size), size)
        np.testing.assert_allclose(alignment.matrix, similarity(1, 0, 0, 0), atol=1e-4)


def test_default_template_looks_like_a_face() -> None:
    template = default_template(224)
    right_eye, left_eye, nose, right_mouth, left_mouth = template
    assert right_eye[0] < right_mouth[0] < nose[0] < left_mouth[0] < left_eye[0]
    assert right_eye[1] < nose[1] < right_mouth[1]
    np.testing.assert_allclose((right_eye + left_eye)[0] / 2, 112, atol=2)  # symmetric about the middle
    assert 45 < left_eye[0] - right_eye[0] < 90
    np.testing.assert_allclose(default_template(112), template / 2)
    assert torch.isfinite(torch.from_numpy(template)).all()
