"""Worn things: where they sit at any yaw, by the landmarks of the head that wears them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.corruption import RATIONAL_KINDS, RationalOcclusion
from datamodules.corruption.draws import Corrupted
from datamodules.corruption.head import fit_pose, landmark_weights, surface_depth, template
from datamodules.corruption.shapes import face_hull
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.face_models.default.model import load_default
from renderers.io.errors import UserError
from renderers.landmarks68 import MIRROR

SIZE = 112
YAWS = (-60.0, -25.0, 0.0, 25.0, 60.0)
SEEDS = st.integers(0, 2**31 - 1)
# Between the least and the greatest part of the face that a kind covers, seen from the front.
COVERED = {
    "glasses": (0.1, 0.45), "sunglasses": (0.2, 0.5), "surgical_mask": (0.35, 0.75), "beard": (0.15, 0.5),
    "moustache": (0.01, 0.08), "eye_mask": (0.12, 0.4), "hand": (0.04, 0.8), "hair_fringe": (0.0, 0.35),
}  # fmt: skip
SYMMETRIC = ("glasses", "sunglasses", "surgical_mask", "eye_mask")


def seen(points: np.ndarray, yaw: float, pitch: float = 0.0, roll: float = 0.0, size: int = SIZE) -> torch.Tensor:
    """(1, N, 2) pixels of head-frame points under the default perspective camera; degrees."""
    angles = torch.deg2rad(torch.tensor([[pitch, yaw, roll]], dtype=torch.float32))
    posed = transform(torch.as_tensor(points, dtype=torch.float32)[None], euler_to_rotation(angles), torch.zeros(1, 3))
    return project(posed, default_intrinsics(size)[None])[..., :2]


@cache
def module(*kinds: str) -> RationalOcclusion:
    return RationalOcclusion(kinds or RATIONAL_KINDS)


def wear(kind: str, landmarks: torch.Tensor, seed: int = 0, size: int = SIZE) -> Corrupted:
    image = torch.full((len(landmarks), 3, size, size), 0.5)
    return module(kind)(image, landmarks, torch.Generator().manual_seed(seed))


def covers(mask: torch.Tensor, point: torch.Tensor) -> bool:
    """Whether a (H, W) mask holds the pixel at x, y."""
    x, y = (int(value) for value in point.floor())
    return bool(mask[y, x])


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_the_template_is_the_default_models_mean_face() -> None:
    model = load_default()
    expected = model.mean_shape[model.landmark_indices].numpy()
    np.testing.assert_allclose(template(), expected, atol=6e-4)
    np.testing.assert_allclose(template()[MIRROR], template() * [-1, 1, 1])


def test_the_surface_is_the_default_models_skin() -> None:
    """Away from eyes, nostrils and mouth, within three millimetres for most of it."""
    model = load_default()
    skin = model.mean_shape[model.regions["skin"]].numpy()
    front = skin[(np.abs(skin[:, 0]) < 0.55) & (skin[:, 2] > -0.2)]
    error = np.abs(surface_depth(front[:, 0], front[:, 1]) - front[:, 2])
    assert np.median(error) < 0.03 and np.quantile(error, 0.9) < 0.12


@settings(max_examples=25, deadline=None)
@given(st.floats(-85, 85), st.floats(-25, 25), st.floats(-25, 25), st.floats(20, 300))
def test_pose_of_a_head_under_an_affine_camera_is_exact(yaw: float, pitch: float, roll: float, scale: float) -> None:
    rotation = euler_to_rotation(torch.deg2rad(torch.tensor([[pitch, yaw, roll]])))[0].double()
    points = torch.as_tensor(template())
    posed = points @ rotation.T
    landmarks = posed[None, :, :2] * scale * torch.tensor([1.0, -1.0]) + torch.tensor([50.0, 70.0])
    pose = fit_pose(landmarks.double())
    torch.testing.assert_close(pose.to_viewer[0], rotation[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(pose.up[0], rotation[1], atol=1e-5, rtol=0)
    assert pose.residual.abs().max() < 1e-3
    placed = pose.project(points[None], torch.as_tensor(landmark_weights(template())))
    torch.testing.assert_close(placed[..., :2], landmarks.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(placed[0, :, 2], 10 - posed[:, 2], atol=1e-5, rtol=0)


def test_surfaces_follow_a_face_that_is_not_the_template() -> None:
    """An open mouth: the chin's and the lower lip's points go down, and what lies there goes with them."""
    landmarks = seen(template(), 0.0)
    landmarks[:, [6, 7, 8, 9, 10, 55, 56, 57, 58, 59]] += torch.tensor([0.0, 8.0])
    pose = fit_pose(landmarks)
    points = torch.as_tensor(template(), dtype=torch.float32)[None]
    weights = torch.as_tensor(landmark_weights(template()), dtype=torch.float32)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(68))
    rigid = (pose.project(points, None)[..., :2] - landmarks).norm(dim=-1)
    bent = (pose.project(points, weights)[..., :2] - landmarks).norm(dim=-1)
    assert bent.mean() < 0.55 * rigid.mean()


@pytest.mark.parametrize("kind", RATIONAL_KINDS)
@pytest.mark.parametrize("yaw", [0.0, 60.0])
def test_the_mask_bounds_what_changed(kind: str, yaw: float) -> None:
    image = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    kept = image.clone()
    landmarks = seen(template(), yaw).expand(3, -1, -1)
    worn, mask = module(kind)(image, landmarks, torch.Generator().manual_seed(0))
    assert torch.equal(image, kept)
    assert worn.shape == image.shape and worn.dtype == image.dtype
    assert mask.shape == (3, 1, SIZE, SIZE) and mask.dtype == torch.bool
    outside = ~mask.expand_as(image)
    assert torch.equal(worn[outside], image[outside])
    changed = (worn != image).any(dim=1, keepdim=True)
    assert changed[mask].float().mean() > 0.999
    assert worn.min() >= 0 and worn.max() <= 1


@pytest.mark.parametrize("kind", RATIONAL_KINDS)
def test_how_much_of_a_face_is_covered(kind: str) -> None:
    landmarks = seen(template(), 0.0).expand(12, -1, -1)
    hull = face_hull(landmarks, SIZE, SIZE)
    mask = wear(kind, landmarks).mask[:, 0]
    part = (mask & hull).sum(dim=(1, 2)) / hull.sum(dim=(1, 2))
    low, high = COVERED[kind]
    assert part.min() >= low and part.max() <= high, (part.min(), part.max())


@pytest.mark.parametrize("yaw", YAWS)
@pytest.mark.parametrize("roll", [0.0, -20.0])
def test_things_sit_where_they_are_worn(yaw: float, roll: float) -> None:
    """Points of the near side of the face: under it, or free of it, in every one of several styles."""
    landmarks = seen(template(), yaw, roll=roll)[0]
    left = yaw >= 0  # the picture's left side is the near one
    eye = landmarks[36:42].mean(dim=0) if left else landmarks[42:48].mean(dim=0)
    cheek = (landmarks[4] + landmarks[48]) / 2 if left else (landmarks[12] + landmarks[54]) / 2
    brow, chin = landmarks[19 if left else 24], landmarks[57] * 0.4 + landmarks[8] * 0.6
    mouth, nose_tip, lip = landmarks[60:].mean(dim=0), landmarks[30], (landmarks[33] + landmarks[51]) / 2
    bridge = landmarks[27]
    forehead = seen(np.array([[0.0, 0.75, surface_depth(np.array(0.0), np.array(0.75)).item()]]), yaw, roll=roll)[0, 0]
    places = {
        "glasses": ([eye], [mouth, chin, nose_tip, forehead]),
        "sunglasses": ([eye], [mouth, chin, nose_tip, forehead]),
        "surgical_mask": ([mouth, nose_tip, lip, chin], [eye, brow, bridge, forehead]),
        "beard": ([chin], [eye, brow, nose_tip, forehead]),
        "moustache": ([lip], [eye, nose_tip, chin, cheek, forehead]),
        "eye_mask": ([(eye + brow) / 2, bridge], [mouth, nose_tip, chin, cheek, forehead]),
        "hair_fringe": ([forehead], [eye, nose_tip, mouth, chin, cheek]),
    }
    for kind, (under, free) in places.items():
        for mask in wear(kind, landmarks.expand(6, -1, -1)).mask[:, 0]:
            assert all(covers(mask, point) for point in under), f"{kind}: {[covers(mask, p) for p in under]}"
            assert not any(covers(mask, p) for p in free), f"{kind}: {[covers(mask, p) for p in free]}"


@pytest.mark.parametrize("kind", ["glasses", "sunglasses"])
@pytest.mark.parametrize("yaw", [-60.0, 60.0])
def test_only_the_near_temple_arm_shows_and_the_far_lens_is_narrower(kind: str, yaw: float) -> None:
    landmarks = seen(template(), yaw)
    ears = seen(np.array([[-0.78, 0.24, -0.5], [0.78, 0.24, -0.5]]), yaw)[0]
    hinges = seen(np.array([[-0.7, 0.27, 0.2], [0.7, 0.27, 0.2]]), yaw)[0]
    lenses = seen(np.array([[-0.335, 0.195, 0.26], [0.335, 0.195, 0.26]]), yaw)[0]
    bridge = seen(np.array([[0.0, 0.2, 0.29]]), yaw)[0, 0, 0]
    near, far = (0, 1) if yaw > 0 else (1, 0)
    mask = wear(kind, landmarks).mask[0, 0]
    column, row = ears[near].floor().int().tolist()
    assert mask[row - 3 : row + 4, column].any(), "the near arm reaches the ear"
    edge = int(hinges[far, 0])
    assert not (mask[:, edge + 2 :] if far == 1 else mask[:, : edge - 1]).any(), (
        "nothing sticks out beyond the far lens"
    )
    line = mask[int(lenses[near, 1]) + 4]  # below the arm
    x = torch.arange(SIZE) + 0.5
    sides = [(line & (x < bridge)).sum(), (line & (x > bridge)).sum()]
    assert 0 < sides[far] < 0.75 * sides[near]


@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize("yaw", [15.0, 50.0, 75.0])
def test_a_mirrored_face_wears_the_mirror_image(kind: str, yaw: float) -> None:
    landmarks = seen(template(), yaw, pitch=8.0, roll=10.0)
    mirrored = landmarks[:, MIRROR] * torch.tensor([-1.0, 1.0]) + torch.tensor([SIZE, 0.0])
    masks = [wear(kind, points.expand(3, -1, -1)).mask for points in (landmarks, mirrored)]
    assert overlap(masks[0], masks[1].flip(-1)) > 0.97


@pytest.mark.parametrize("kind", RATIONAL_KINDS)
def test_a_moved_face_wears_the_same(kind: str) -> None:
    landmarks = seen(template(), 30.0)
    moved = wear(kind, landmarks + torch.tensor([5.0, -3.0])).image
    still = wear(kind, landmarks).image
    difference = (moved[..., 2:-8, 8:-2] - still[..., 5:-5, 3:-7]).abs().amax(dim=1)
    assert (difference > 0.02).float().mean() < 0.01


@pytest.mark.parametrize("kind", RATIONAL_KINDS)
def test_a_larger_picture_shows_the_same(kind: str) -> None:
    small = wear(kind, seen(template(), -40.0)).image
    large = wear(kind, seen(template(), -40.0, size=3 * SIZE), size=3 * SIZE).image
    reduced = torch.nn.functional.avg_pool2d(large, 3)
    assert (reduced - small).abs().mean() < 0.01


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_seed_decides(seed: int) -> None:
    image = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    landmarks = torch.cat([seen(template(), yaw, size=48) for yaw in (-50, -10, 10, 50)])
    everything = module()
    one, two, other = (everything(image, landmarks, torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1))
    assert torch.equal(one.image, two.image) and torch.equal(one.mask, two.mask)
    assert not torch.equal(one.image, other.image)


def test_without_a_generator_torchs_own_decides() -> None:
    image, landmarks, results = torch.full((2, 3, 48, 48), 0.5), seen(template(), 0.0, size=48).expand(2, -1, -1), []
    everything = module()
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(everything(image, landmarks).image)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_an_image_hangs_on_no_other() -> None:
    image = torch.rand(6, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    landmarks = torch.cat([seen(template(), yaw, size=48) for yaw in (-50.0, -20.0, -5.0, 5.0, 20.0, 50.0)])
    others, elsewhere = image.flip(0), landmarks.flip(0) + 2
    others[1], elsewhere[1] = image[1], landmarks[1]
    everything = module()
    for seed in range(4):
        first = everything(image, landmarks, torch.Generator().manual_seed(seed))
        second = everything(others, elsewhere, torch.Generator().manual_seed(seed))
        assert torch.equal(first.mask[1], second.mask[1])
        torch.testing.assert_close(first.image[1], second.image[1], atol=1e-5, rtol=0)


def test_every_kind_comes_and_styles_vary() -> None:
    """One of the kinds at a time, by the masks that it can leave."""
    count = 64
    landmarks = seen(template(), 0.0, size=48).expand(count, -1, -1)
    image = torch.full((count, 3, 48, 48), 0.5)
    masks = module()(image, landmarks, torch.Generator().manual_seed(0)).mask[:, 0]
    points = landmarks[0]
    eye, chin, lip = points[36:42].mean(dim=0), points[57] * 0.4 + points[8] * 0.6, (points[33] + points[51]) / 2
    patterns = {tuple(covers(mask, point) for point in (eye, chin, lip)) for mask in masks}
    assert {(True, False, False), (False, True, True), (False, False, True), (False, False, False)} <= patterns
    assert len({mask.numpy().tobytes() for mask in masks}) > count / 2
    assert masks.flatten(1).any(dim=1).all()


def test_a_hand_has_the_faces_color() -> None:
    landmarks = seen(template(), 0.0)
    for color in ((0.85, 0.65, 0.55), (0.35, 0.22, 0.16)):
        image = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
        worn, mask = module("hand")(image, landmarks, torch.Generator().manual_seed(0))
        hand = worn.permute(0, 2, 3, 1)[mask[:, 0]].median(dim=0).values
        cosine = torch.nn.functional.cosine_similarity(hand, torch.tensor(color), dim=0)
        assert cosine > 0.995 and 0.5 < hand.sum() / sum(color) < 1.4


def test_a_face_out_of_sight_wears_nothing_that_shows() -> None:
    landmarks = seen(template(), 0.0) + 900
    image = torch.full((1, 3, SIZE, SIZE), 0.5)
    for kind in RATIONAL_KINDS:
        worn, mask = module(kind)(image, landmarks, torch.Generator().manual_seed(0))
        assert torch.equal(worn, image) and not mask.any()


@pytest.mark.parametrize("kinds", [(), ("scarf",)])
def test_an_unknown_kind_is_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="choose among glasses, sunglasses, surgical_mask"):
        RationalOcclusion(kinds)


def test_nothing_goes_into_checkpoints() -> None:
    assert RationalOcclusion().state_dict() == {}
