"""Detectors against a real photograph, its mirror image and rescaled copies, and a drawn network."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.preparation.alignment import transform_points, warp
from datamodules.preparation.face_points import FIVE, SURE_DISAGREEMENT, SURE_SPREAD
from datamodules.preparation.landmarks import (
    DetectedFace,
    DlibDetector,
    FaceAlignmentDetector,
    best_detector,
    overlap,
    suppress_overlaps,
)
from renderers.face_models.default.model import load_default
from renderers.io.errors import UserError
from renderers.io.packaged_files import packaged_file
from renderers.landmarks68 import MIRROR
from tests.conf.turned_heads import turned_head


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


@pytest.fixture(scope="module")
def face(detector: DlibDetector, astronaut: np.ndarray) -> DetectedFace:
    faces = detector.detect(astronaut)
    assert len(faces) == 1  # plain HOG also answers to the flag
    return faces[0]


def test_astronaut_has_one_face_where_it_is(face: DetectedFace) -> None:
    left, top, right, bottom = face.box
    assert 160 < left < 190 < 250 < right < 285
    assert 60 < top < 95 < 155 < bottom < 185
    assert face.landmarks.shape == (68, 2)


def test_landmarks_lie_where_a_person_points(face: DetectedFace) -> None:
    # Read off an enlarged print of the photograph by hand: pupils, nose tip, mouth corners, chin.
    pupils = face.landmarks[36:42].mean(axis=0), face.landmarks[42:48].mean(axis=0)
    by_hand = {30: (225.5, 127.5), 48: (200.5, 139.5), 54: (246, 142), 8: (220.5, 178.5)}
    np.testing.assert_allclose(pupils, [(204.5, 101), (246.5, 103.5)], atol=2.5)
    for index, expected in by_hand.items():
        np.testing.assert_allclose(face.landmarks[index], expected, atol=4)


def test_mirrored_photograph_gives_mirrored_landmarks(
    detector: DlibDetector, astronaut: np.ndarray, face: DetectedFace
) -> None:
    (mirrored,) = detector.detect(np.ascontiguousarray(astronaut[:, ::-1]))
    back = np.column_stack([astronaut.shape[1] - mirrored.landmarks[:, 0], mirrored.landmarks[:, 1]])[MIRROR]
    # A half-pixel mistake would show as a mean difference of one pixel in x.
    assert abs((back - face.landmarks)[:, 0].mean()) < 0.3
    assert np.linalg.norm(back - face.landmarks, axis=1).mean() < 1.0


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_small_and_large_copies_give_the_same_landmarks(
    detector: DlibDetector, astronaut: np.ndarray, face: DetectedFace, factor: float
) -> None:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    copy = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=interpolation)
    (found,) = detector.detect(copy)
    width = face.box[2] - face.box[0]
    assert np.linalg.norm(found.landmarks / factor - face.landmarks, axis=1).mean() < 0.03 * width


def test_every_face_of_a_group_is_found_best_first(detector: DlibDetector, astronaut: np.ndarray) -> None:
    half = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    group = np.hstack([astronaut, np.vstack([half, half])])
    faces = detector.detect(group)
    assert len(faces) == 3
    assert [f.score for f in faces] == sorted((f.score for f in faces), reverse=True)
    noses = np.array(sorted(f.landmarks[30].tolist() for f in faces))
    expected = np.array([[225, 127], [512 + 112.5, 63.5], [512 + 112.5, 256 + 63.5]])
    np.testing.assert_allclose(noses[np.lexsort((noses[:, 1], noses[:, 0].round(-2)))], expected, atol=4)


@pytest.mark.parametrize("degrees", [45, 90, 180, 270, 345])
def test_a_turned_photograph_gives_turned_landmarks(
    detector: DlibDetector, astronaut: np.ndarray, face: DetectedFace, degrees: int
) -> None:
    centre, angle = np.array([224.0, 124.0]), np.radians(degrees)  # her head, well inside the piece that is cut out
    linear = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([linear, 110 - linear @ centre])
    (found,) = detector.detect(warp(astronaut, matrix, (220, 220), cv2.BORDER_REPLICATE))
    errors = np.linalg.norm(found.landmarks - transform_points(face.landmarks, matrix), axis=1)
    assert errors.mean() < 0.02 * (face.box[2] - face.box[0])
    assert found.confidence == "sure" and found.doubt is None
    assert found.disagreement is not None and found.disagreement < 0.7 * SURE_DISAGREEMENT


def test_all_faces_of_a_picture_that_lies_are_found(detector: DlibDetector, astronaut: np.ndarray) -> None:
    portrait = astronaut[20:240, 120:340]
    both = np.hstack([portrait, portrait[:, ::-1]])
    faces = detector.detect(np.ascontiguousarray(np.rot90(both)))
    assert [face.confidence for face in faces] == ["sure", "sure"]


def test_what_is_predicted_on_a_head_that_lies_is_known_to_be_wrong(
    detector: DlibDetector, astronaut: np.ndarray, face: DetectedFace
) -> None:
    """The predictor answers with an upright face whatever it is shown; only the spread of its answers tells."""
    upright, lying = (detector._points.predict(astronaut, face.box, turn) for turn in (0, 90))
    width = face.box[2] - face.box[0]
    assert np.linalg.norm(lying.landmarks - face.landmarks, axis=1).mean() > 0.2 * width
    assert lying.spread > 1.5 * SURE_SPREAD and not lying.steady
    assert upright.spread < 0.5 * SURE_SPREAD and upright.steady


def test_spread_by_hand(detector: DlibDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that follow the box move by the shifts: (0, 6, 6, 6, 6) pixels round their mean, and so in the mirror."""
    shape = np.random.default_rng(0).uniform(0, 200, (68, 2))
    shape = (shape + np.array([200, 0]) + (shape * [-1, 1])[MIRROR]) / 2  # its own mirror image

    def follow(predictor: object, patch: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
        return shape + np.array([left, top])

    monkeypatch.setattr(detector._points, "_predict", follow)
    points = detector._points.predict(np.zeros((300, 300, 3), np.uint8), np.array([50.0, 50, 250, 250]))
    np.testing.assert_allclose(points.landmarks, shape + 50, atol=1e-9)
    assert points.spread == pytest.approx(100 * 6 * 0.8 / np.sqrt(np.prod(np.ptp(shape, axis=0))))


@pytest.mark.parametrize("moved", ["five", "wide", "neither"])
def test_disagreement_by_hand(detector: DlibDetector, monkeypatch: pytest.MonkeyPatch, moved: str) -> None:
    """A predictor that never moves, and 5 points or those in a wider box that lie 9 pixels below."""
    shape = np.random.default_rng(0).uniform(0, 200, (68, 2))
    shape = (shape + np.array([440, 0]) + (shape * [-1, 1])[MIRROR]) / 2  # its own mirror image

    def stay(predictor: object, patch: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
        five = predictor is detector._points._five
        below = 9.0 if moved == ("five" if five else "wide" if side > 200 else None) else 0.0
        return (shape[FIVE] if five else shape) + np.array([0, below])

    monkeypatch.setattr(detector._points, "_predict", stay)
    points = detector._points.find(np.zeros((300, 300, 3), np.uint8), np.array([50.0, 50, 250, 250]))
    assert points.spread == pytest.approx(0, abs=1e-9)
    expected = 0.0 if moved == "neither" else 100 * 9 / np.sqrt(np.prod(np.ptp(shape, axis=0)))
    assert points.disagreement == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(detector, "_upright", lambda image: [(np.array([50.0, 50, 250, 250]), 1.0)])
    (face,) = detector.detect(np.zeros((300, 300, 3), np.uint8))
    assert face.confidence == ("sure" if moved == "neither" else "doubtful")
    assert (face.doubt is None) == (moved == "neither")


@pytest.mark.parametrize(("yaw", "sure"), [(10, True), (60, False), (-75, False)])
def test_profiles_are_doubtful(detector: DlibDetector, yaw: float, sure: bool) -> None:
    """The predictor knows no profiles: on heads that turn far it points at a frontal face that is not there."""
    picture, truth = turned_head(load_default(), 0, yaw)
    centre, half = (truth.min(axis=0) + truth.max(axis=0)) / 2, np.ptp(truth[:, 1]) / 2
    points = detector._points.find(picture, np.concatenate([centre - half, centre + half]))
    error = np.linalg.norm(points.landmarks - truth, axis=1)[17:].mean()
    assert (error < 0.06 * half) == points.steady == sure


def crowd(astronaut: np.ndarray, size: tuple[int, int], sides: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A (height, width) picture with astronauts in rows, whose face boxes are so many pixels wide; their centres."""
    picture = np.full((*size, 3), 128, np.uint8)
    head = astronaut[20:220, 120:320]  # the face's box is 97 pixels wide, its centre at (105, 104)
    left = top = row = 0
    centres = []
    for side in sides:
        width = round(200 * side / 97)
        if left + width > size[1]:
            left, top, row = 0, top + row, 0
        picture[top : top + width, left : left + width] = cv2.resize(head, (width, width), interpolation=cv2.INTER_AREA)
        centres.append((left + 105 * side / 97, top + 104 * side / 97))
        left, row = left + width, max(row, width)
    return picture, np.array(centres)


@pytest.mark.parametrize(
    ("size", "sides", "tile"),
    [
        ((900, 1400), [300.0, *[50.0] * 6], None),
        ((200, 4000), [60.0] * 5, None),
        ((400, 1200), [180.0, *[60.0] * 5], 900),
    ],
    ids=["small beside large", "panorama", "in pieces"],
)
def test_faces_of_every_size_are_found(
    detector: DlibDetector, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int], sides: list[float], tile: int | None,
) -> None:  # fmt: skip
    if tile is not None:
        monkeypatch.setattr(detector, "TILE_SIDE", tile)
    picture, centres = crowd(astronaut, size, sides)
    assert min(sides) > detector.smallest_face(*size)
    found = detector._upright(picture)
    middles = np.array([(box[:2] + box[2:]) / 2 for box, _ in found])
    distances = np.linalg.norm(middles[:, None] - centres[None], axis=2) / np.array(sides)
    # Each of them once, and nothing else.
    assert sorted(distances.argmin(axis=1)) == list(range(len(sides))) and distances.min(axis=1).max() < 0.3


def test_the_smallest_face_that_is_looked_for(detector: DlibDetector) -> None:
    """40 pixels in pictures up to 1.5 megapixels, 80 from 6 on, whatever their shape."""
    for size, smallest in (
        ((512, 512), 40),
        ((1000, 1500), 40),
        ((3000, 4000), 80),
        ((400, 12000), 71.6),
        ((9000, 9000), 80),
    ):
        assert detector.smallest_face(*size) == pytest.approx(smallest, abs=0.1)


def test_pictures_without_a_face_give_nothing(detector: DlibDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((40, 300, 3), np.uint8)) == []


def test_network_finds_what_hog_is_not_asked(detector: DlibDetector, astronaut: np.ndarray, face: DetectedFace) -> None:
    ((box, score),) = detector._ask_network(astronaut[40:296, 90:346], 1.0)
    assert overlap(box + np.array([90, 40, 90, 40]), face.box)[0] > 0.5
    assert score > 0.5


def test_mirror_table_is_an_involution_that_keeps_the_midline() -> None:
    assert sorted(MIRROR) == list(range(68))
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))
    assert np.flatnonzero(np.arange(68) == MIRROR).tolist() == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


boxes = st.tuples(*[st.floats(0, 50), st.floats(0, 50), st.floats(1, 50), st.floats(1, 50)]).map(
    lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]])
)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_bounded(a: np.ndarray, b: np.ndarray) -> None:
    union, inside = overlap(a, b)
    assert overlap(b, a) == pytest.approx((union, inside))
    assert -1e-9 <= union <= inside + 1e-9 <= 1 + 2e-9
    assert overlap(a, a) == pytest.approx((1, 1))


def test_overlap_by_counting_pixels() -> None:
    grid = np.zeros((2, 20, 20), bool)
    grid[0, 2:10, 3:9], grid[1, 5:15, 4:18] = True, True
    union, inside = overlap(np.array([3.0, 2, 9, 10]), np.array([4.0, 5, 18, 15]))
    both = (grid[0] & grid[1]).sum()
    assert union == pytest.approx(both / (grid[0] | grid[1]).sum())
    assert inside == pytest.approx(both / min(grid[0].sum(), grid[1].sum()))


@settings(max_examples=50)
@given(st.lists(st.tuples(boxes, st.floats(-1, 2)), max_size=8))
def test_kept_boxes_hardly_overlap_and_the_dropped_ones_have_a_reason(pairs: list[tuple[np.ndarray, float]]) -> None:
    rows, scores = np.array([box for box, _ in pairs]).reshape(-1, 4), np.array([score for _, score in pairs])
    kept = suppress_overlaps(rows, scores)
    clash = lambda i, j: overlap(rows[i], rows[j])[0] >= 0.3 or overlap(rows[i], rows[j])[1] >= 0.6  # noqa: E731
    assert not any(clash(i, j) for i in kept for j in kept if i != j)
    for row in set(range(len(pairs))) - set(kept):
        assert any(clash(row, other) and scores[other] >= scores[row] for other in kept)


def test_model_files_are_found_without_importing_their_package() -> None:
    before = "face_recognition_models" in sys.modules
    assert packaged_file("shape_predictor_68_face_landmarks.dat").stat().st_size > 1_000_000
    assert ("face_recognition_models" in sys.modules) == before
    with pytest.raises(UserError, match=r"nothing\.dat"):
        packaged_file("nothing.dat")


def test_auto_falls_back_to_dlib_where_no_weights_are_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not FaceAlignmentDetector.available()
    assert best_detector().name == "dlib"
    with pytest.raises(UserError, match="choose auto, dlib or face-alignment"):
        best_detector("haar")
    assert [path.parent for path in FaceAlignmentDetector.missing_weights()] == [tmp_path / "checkpoints"] * 2


@pytest.mark.skipif(find_spec("face_alignment") is None, reason="face-alignment is not installed")
def test_face_alignment_is_never_fetched_unasked_and_says_when_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import face_alignment

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(face_alignment, "FaceAlignment", offline)
    with pytest.raises(UserError, match="not at hand"):
        FaceAlignmentDetector()
    with pytest.raises(UserError, match="no route to host"):
        best_detector("face-alignment")


class _Spots(torch.nn.Module):
    """Stands in for the landmark network: its heat maps are bright where the crop is."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(crops.mean(1, keepdim=True), 4)
        return pooled.expand(-1, 68, -1, -1).clone()


@pytest.mark.skipif(find_spec("face_alignment") is None, reason="face-alignment is not installed")
def test_face_alignment_points_are_continuous_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its real cropping and post-processing, with heat maps whose peaks are known, in place of the trained network."""
    from face_alignment import api, utils
    from face_alignment.detection.sfd import FaceDetector

    for name in ("_get_preds_fromhm", "transform_np"):  # compiling them would take ten seconds
        monkeypatch.setattr(utils, name, getattr(utils, name).py_func)
    (tmp_path / "checkpoints").mkdir()
    for name in FaceAlignmentDetector.WEIGHTS:
        (tmp_path / "checkpoints" / name).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(FaceDetector, "__init__", lambda self, device, verbose: None)
    monkeypatch.setattr(FaceDetector, "detect_from_image", lambda self, image: [np.array([90, 95, 290, 295, 0.9])])
    monkeypatch.setattr(api.FaceAlignment, "_load_native", lambda *args: _Spots())
    detector = best_detector()
    assert detector.name == "face-alignment"
    y, x = np.mgrid[:400, :400] + 0.5
    errors = []
    for centre in np.random.default_rng(0).uniform(150, 230, (40, 2)):
        spot = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 8**2))
        (found,) = detector.detect(np.repeat(spot.astype(np.uint8)[..., None], 3, axis=-1))
        errors.append(found.landmarks[0] - centre)
        np.testing.assert_allclose(found.box, [90, 95, 290, 295])
    # A heat map's pixel is 5 of the photograph's wide; its rounding leaves a bias of about -1 of the latter.
    assert np.abs(np.mean(errors, axis=0)).max() < 1.1
    assert np.abs(errors).max() < 5


@pytest.mark.skipif(find_spec("face_alignment") is None, reason="face-alignment is not installed")
def test_face_alignment_without_a_face_gives_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from face_alignment import api
    from face_alignment.detection.sfd import FaceDetector

    monkeypatch.setattr(FaceAlignmentDetector, "missing_weights", lambda *_: [])
    monkeypatch.setattr(FaceDetector, "__init__", lambda self, device, verbose: None)
    monkeypatch.setattr(FaceDetector, "detect_from_image", lambda self, image: [])
    monkeypatch.setattr(api.FaceAlignment, "_load_native", lambda *args: _Spots())
    assert FaceAlignmentDetector().detect(np.zeros((64, 64, 3), np.uint8)) == []
