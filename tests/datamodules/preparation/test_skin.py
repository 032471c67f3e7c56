"""Skin probability on drawn faces of many complexions and on a real photograph."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from datamodules.preparation.alignment import align
from datamodules.preparation.landmarks import DlibDetector
from datamodules.preparation.skin import polygon_mask, skin_probability
from tests.conf.preparing import TEMPLATE

COMPLEXIONS = {
    "very light": (241, 207, 188),
    "olive": (198, 150, 110),
    "brown": (141, 92, 62),
    "very dark": (66, 42, 32),
}


def layout() -> np.ndarray:
    """(68, 2): a schematic frontal face in a 224-pixel crop."""
    turn = np.linspace(np.pi, 0, 17)
    jaw = np.stack([112 + 70 * np.cos(turn), 95 + 95 * np.sin(turn)], axis=1)
    brow = np.stack([np.linspace(56, 98, 5), 76 - 4 * np.sin(np.linspace(0, np.pi, 5))], axis=1)
    bridge = np.stack([np.full(4, 112), np.linspace(92, 125, 4)], axis=1)
    nostrils = np.stack([np.linspace(98, 126, 5), np.full(5, 135.0)], axis=1)
    eye = np.array([[66, 94], [74, 89], [84, 89], [92, 94], [84, 98], [74, 98]], float)
    around = np.linspace(np.pi, -np.pi, 13)[:-1]
    outer = np.stack([112 + 28 * np.cos(around), 160 - 11 * np.sin(around)], axis=1)
    inner_around = np.linspace(np.pi, -np.pi, 9)[:-1]
    inner = np.stack([112 + 20 * np.cos(inner_around), 160 - 5 * np.sin(inner_around)], axis=1)
    mirrored = lambda part: part * [-1, 1] + [224, 0]  # noqa: E731
    other_eye = mirrored(eye)[[3, 2, 1, 0, 5, 4]]
    return np.concatenate([jaw, brow, mirrored(brow)[::-1], bridge, nostrils, eye, other_eye, outer, inner])


def drawn_face(skin: tuple[int, int, int], hair: tuple[int, int, int], wall: tuple[int, int, int]) -> np.ndarray:
    """A shaded face with hair, brows, eyes, lips and a white collar, with sensor noise."""
    image = np.full((224, 224, 3), wall, np.float64)
    cv2.ellipse(image, (112, 95), (92, 88), 0, 0, 360, hair, -1)
    cv2.ellipse(image, (112, 105), (72, 86), 0, 0, 360, skin, -1)
    cv2.rectangle(image, (0, 200), (224, 224), (245, 245, 245), -1)
    points = layout()
    for rows, color in ((slice(17, 22), hair), (slice(22, 27), hair), (slice(48, 60), (170, 60, 70))):
        cv2.fillConvexPoly(image, cv2.convexHull(points[rows].astype(np.int32)), color)
    for rows in (slice(36, 42), slice(42, 48)):
        cv2.fillConvexPoly(image, points[rows].astype(np.int32), (235, 235, 235))
    shade = np.linspace(1.15, 0.7, 224)[None, :, None]  # light from the side
    return np.clip(image * shade + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", COMPLEXIONS)
@pytest.mark.parametrize("wall", [(90, 120, 160), (250, 250, 250), (30, 60, 30)])
def test_skin_is_told_from_hair_collar_and_wall(name: str, wall: tuple[int, int, int]) -> None:
    skin = COMPLEXIONS[name]
    hair = (20, 18, 24) if name != "very light" else (60, 40, 25)
    probability = skin_probability(drawn_face(skin, hair, wall), layout())
    assert probability.shape == (224, 224) and probability.dtype == np.float32
    assert probability.min() >= 0 and probability.max() <= 1
    for cheek in (probability[110:145, 58:85], probability[110:145, 140:165]):
        assert cheek.mean() > 0.9
    assert probability[172:182, 100:124].mean() > 0.9  # chin
    assert probability[206:220, 20:200].mean() < 0.1  # collar
    assert probability[20:60, 2:12].mean() < 0.1  # wall
    assert probability[10:16, 90:130].mean() < 0.1  # hair


def test_eyes_and_mouth_are_never_skin_even_in_its_color() -> None:
    image = np.full((224, 224, 3), COMPLEXIONS["olive"], np.uint8)
    probability = skin_probability(image, layout())
    for rows in (slice(36, 42), slice(42, 48), slice(60, 68)):
        mask = polygon_mask(layout()[rows], 224, 224)
        assert mask.sum() > 50 and probability[mask].max() == 0


def test_doubling_the_picture_doubles_the_answer() -> None:
    image = drawn_face(COMPLEXIONS["brown"], (20, 18, 24), (90, 120, 160))
    large = cv2.resize(image, (448, 448), interpolation=cv2.INTER_CUBIC)
    small_again = cv2.resize(skin_probability(large, 2 * layout()), (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(small_again - skin_probability(image, layout())).mean() < 0.03


def test_astronaut_cheeks_are_skin_and_hair_suit_and_wall_are_not() -> None:
    photo = skimage.data.astronaut()
    (face,) = DlibDetector().detect(photo)
    alignment = align(face.landmarks, TEMPLATE)
    crop = alignment.crop(photo)
    # Four lights and complexions from one photograph.
    darker = ((crop / 255.0) ** 1.6 * [0.75, 0.68, 0.6] * 255).astype(np.uint8)
    warmer = (crop * [1, 0.8, 0.6]).astype(np.uint8)
    for picture in (crop, darker, warmer):
        probability = skin_probability(picture, alignment.to_crop(face.landmarks))

        def around(x: int, y: int, probability: np.ndarray = probability) -> float:
            return float(probability[y - 4 : y + 5, x - 4 : x + 5].mean())

        # Read off the crop by hand.
        assert min(around(72, 135), around(155, 130), around(112, 200), around(112, 75)) > 0.9  # cheeks, chin, forehead
        assert max(around(20, 70), around(205, 75), around(112, 12)) < 0.15  # hair on both sides and above
        assert max(around(12, 145), around(212, 160), around(40, 212)) < 0.15  # walls, suit


def test_landmarks_off_the_picture_give_zeros() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    assert not skin_probability(image, layout() + 1000).any()
    assert not skin_probability(image, np.zeros((68, 2))).any()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_give_finite_numbers(value: int) -> None:
    assert np.isfinite(skin_probability(np.full((224, 224, 3), value, np.uint8), layout())).all()


def test_polygon_mask_counts_pixel_centres() -> None:
    square = np.array([[10.0, 20], [30, 20], [30, 25], [10, 25]])
    expected = np.zeros((40, 50), bool)
    expected[20:25, 10:30] = True
    # OpenCV counts the outline as inside: half a pixel at most, on every side.
    mask = polygon_mask(square, 40, 50)
    assert mask[expected].all() and mask.sum() <= 22 * 7
    diamond = np.array([[25.0, 5], [40, 20], [25, 35], [10, 20]])
    y, x = np.mgrid[:40, :50] + 0.5
    exact = np.abs(x - 25) + np.abs(y - 20) <= 15
    assert (polygon_mask(diamond, 40, 50) ^ exact).sum() < 70
