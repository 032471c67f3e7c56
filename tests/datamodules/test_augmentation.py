"""Geometry checked on drawn spots, colour on known pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.augmentation import ColorAugmentation, GeometryAugmentation, GeometrySettings
from datamodules.batch import FaceBatch, MultiViewBatch
from renderers.landmarks68 import MIRROR
from tests.datamodules.preparation.test_skin import layout

SIZE = 128
MIRROR_ONLY = GeometryAugmentation(GeometrySettings(shift=0, scale=0, rotate=0, mirror=1))
MOVE = GeometryAugmentation(GeometrySettings(mirror=0))
ALL = GeometryAugmentation()


def spot(centre: np.ndarray, deviation: float = 3.0) -> np.ndarray:
    """(SIZE, SIZE) uint8 Gaussian spot."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return (255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * deviation**2))).round().astype(np.uint8)


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.array([(x * image).sum(), (y * image).sum()]) / image.sum()


def sample(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return image, image[..., 0].copy(), (layout() * SIZE / 224).astype(np.float32)


def mirror_landmarks(landmarks: np.ndarray, width: float) -> np.ndarray:
    """x becomes width - x, and left and right points change places."""
    return np.stack([width - landmarks[MIRROR, 0], landmarks[MIRROR, 1]], axis=-1)


def test_mirroring_is_exact() -> None:
    image, skin, landmarks = sample()
    moved, weights, points = MIRROR_ONLY(image, skin, landmarks, seed=3)
    np.testing.assert_array_equal(moved, image[:, ::-1])
    np.testing.assert_array_equal(weights, skin[:, ::-1])
    np.testing.assert_allclose(points, mirror_landmarks(landmarks, SIZE), atol=1e-4)


def test_mirroring_a_symmetric_face_changes_nothing() -> None:
    """Holds only if every left point changes places with its own right one."""
    landmarks = layout() * SIZE / 224
    np.testing.assert_allclose(mirror_landmarks(landmarks, SIZE), landmarks, atol=1e-9)
    shuffled = landmarks[np.random.default_rng(0).permutation(68)]
    assert np.abs(mirror_landmarks(shuffled, SIZE) - shuffled).max() > 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.tuples(st.floats(45, 83), st.floats(45, 83)))
def test_pictures_and_points_move_together(seed: int, centre: tuple[float, float]) -> None:
    """A spot's centroid follows its landmark, under whatever is drawn; half a pixel's mistake would show."""
    picture = spot(np.array(centre))
    landmarks = np.tile(np.array(centre, np.float32), (68, 1))
    image, skin, points = ALL(np.repeat(picture[..., None], 3, axis=-1), picture, landmarks, seed)
    np.testing.assert_allclose(centroid(image[..., 1]), points[0], atol=0.08)
    np.testing.assert_allclose(centroid(skin), points[0], atol=0.08)


def test_the_seed_decides_and_seeds_differ() -> None:
    first, again, other = (ALL(*sample(), seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(first[2] - other[2]).max() > 0.5


def test_moves_stay_within_their_settings() -> None:
    landmarks = sample()[2]
    middle, spread = np.array([SIZE / 2, SIZE / 2]), np.linalg.norm(landmarks[0] - landmarks[16])
    for seed in range(60):
        *_, points = ALL(*sample(), seed=seed)
        _, _, at_middle = MOVE(*sample()[:2], np.tile(middle.astype(np.float32), (68, 1)), seed=seed)
        assert np.abs(at_middle[0] - middle).max() <= 0.06 * SIZE + 1
        assert 0.89 < np.linalg.norm(points[0] - points[16]) / spread < 1.11
        across = points[16] - points[0]
        assert abs(np.degrees(np.arctan2(across[1], across[0]))) < 15.1  # point 0 stays on the left, mirrored or not


def test_mirroring_and_moving_are_drawn_apart() -> None:
    """Among the mirrored samples as many lean one way as the other."""
    lean = []
    for seed in range(200):
        *_, points = ALL(*sample(), seed=seed)
        mirrored = np.random.default_rng((seed, 1)).random() < 0.5
        lean.append((mirrored, points[16, 1] > points[0, 1], points[27, 0] > SIZE / 2))
    for move in (1, 2):
        table = np.corrcoef([row[0] for row in lean], [row[move] for row in lean])
        assert abs(table[0, 1]) < 0.2


def test_half_of_the_samples_are_mirrored() -> None:
    lopsided = np.zeros((SIZE, SIZE, 3), np.uint8)
    lopsided[:, : SIZE // 2] = 200
    still = GeometryAugmentation(GeometrySettings(0, 0, 0, 0.5))
    sides = [still(lopsided, lopsided[..., 0], sample()[2], seed)[0][0, 0, 0] > 0 for seed in range(100)]
    assert 30 < sum(sides) < 70


def test_what_comes_in_is_black_and_no_skin() -> None:
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    outside = 0
    for seed in range(8):
        image, skin, _ = MOVE(white, white[..., 0], sample()[2], seed)
        outside += int((image == 0).all(axis=-1).sum())
        np.testing.assert_array_equal(skin, image[..., 0])
    assert outside > 0


def batch(views: torch.Tensor | None = None, count: int = 6) -> MultiViewBatch:
    generator = torch.Generator().manual_seed(0)
    return MultiViewBatch(
        image=torch.rand(count, 3, 32, 32, generator=generator),
        landmarks=torch.rand(count, 68, 2, generator=generator) * 32,
        skin=torch.rand(count, 1, 32, 32, generator=generator),
        intrinsics=torch.eye(3).repeat(count, 1, 1),
        views=views,
    )


def test_colors_change_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    before = batch()
    kept = before.image.clone()
    after = ColorAugmentation()(before)
    assert isinstance(after, MultiViewBatch)
    assert after.image.shape == kept.shape and after.image.min() >= 0 and after.image.max() <= 1
    assert (after.image - kept).abs().flatten(1).amax(dim=1).gt(1e-3).sum() >= 4
    torch.testing.assert_close(before.image, kept)
    for name in ("landmarks", "skin", "intrinsics"):
        assert getattr(after, name) is getattr(before, name)


def test_colors_follow_torchs_seed_and_differ_between_images() -> None:
    same = FaceBatch(
        torch.full((8, 3, 16, 16), 0.5), torch.zeros(8, 68, 2), torch.zeros(8, 1, 16, 16), torch.zeros(8, 3, 3)
    )
    augment, runs = ColorAugmentation(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(augment(same).image)
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert not torch.equal(runs[0], runs[2])
    assert runs[0].mean(dim=(1, 2, 3)).unique().numel() > 3


def test_views_of_one_face_keep_their_common_colors() -> None:
    torch.manual_seed(0)
    before = batch(torch.tensor([[4, 0, 2]]))
    after = ColorAugmentation()(before)
    torch.testing.assert_close(after.image[[0, 2, 4]], before.image[[0, 2, 4]], rtol=0, atol=0)
    assert (after.image[[1, 3, 5]] - before.image[[1, 3, 5]]).abs().max() > 1e-3


def test_mirror_table_matches_where_a_mirrored_drawing_has_its_points() -> None:
    """Drawn point by point: the mirrored picture of point k shows it where point MIRROR[k] stands."""
    landmarks = layout() * SIZE / 224
    for index in (0, 3, 17, 21, 31, 36, 39, 40, 48, 50, 59, 60, 61, 67):
        found = centroid(spot(landmarks[index])[:, ::-1])
        np.testing.assert_allclose(found, landmarks[MIRROR[index]], atol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_are_kept(dtype: type) -> None:
    image, skin, landmarks = sample()
    moved, weights, points = ALL(image, skin, landmarks.astype(dtype), seed=0)
    assert (moved.dtype, weights.dtype, points.dtype) == (np.uint8, np.uint8, dtype)
    assert (moved.shape, weights.shape, points.shape) == (image.shape, skin.shape, landmarks.shape)
