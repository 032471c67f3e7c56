"""Random shapes: how much of the face they cover, where, and in which colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import ConvexHull
from skimage.draw import polygon as skimage_polygon

from datamodules.corruption import DelusionalOcclusion
from datamodules.corruption.draws import Corrupted
from renderers.io.errors import UserError
from tests.datamodules.preparation.test_skin import layout

SIZE = 48
SEEDS = st.integers(0, 2**31 - 1)


def faces(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 68, 2) schematic faces, moved, turned, squeezed; some reach over the picture's edge."""
    generator = np.random.default_rng(seed)
    centered = (layout() - 112) / 224 * SIZE
    placed = []
    for _ in range(count):
        angle = generator.uniform(-0.8, 0.8)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        squeeze = generator.uniform(0.45, 1.1, size=2)
        placed.append(centered * squeeze @ turn + SIZE / 2 + generator.uniform(-SIZE / 4, SIZE / 4, size=2))
    return torch.as_tensor(np.stack(placed), dtype=torch.float32)


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def occlude(count: int, seed: int, coverage: tuple[float, float] = (0.05, 0.7)) -> Corrupted:
    module = DelusionalOcclusion(coverage)
    return module(pictures(count, seed), faces(count, seed), torch.Generator().manual_seed(seed))


def covered(result: Corrupted, landmarks: torch.Tensor) -> np.ndarray:
    """(B,) the part of each face under the mask; faces by SciPy and scikit-image."""
    parts = []
    for mask, points in zip(result.mask[:, 0].numpy(), landmarks.numpy(), strict=True):
        outline = points[ConvexHull(points).vertices] - 0.5
        face = np.zeros((SIZE, SIZE), bool)
        face[skimage_polygon(outline[:, 1], outline[:, 0], shape=face.shape)] = True
        parts.append(mask[face].mean())
    return np.array(parts)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([(0.05, 0.7), (0.0, 0.1), (0.5, 1.0), (0.3, 0.32)]))
def test_every_face_is_covered_within_the_range(seed: int, coverage: tuple[float, float]) -> None:
    parts = covered(occlude(8, seed, coverage), faces(8, seed))
    assert (parts >= coverage[0] - 1e-9).all() and (parts <= coverage[1] + 1e-9).all(), parts


def test_coverage_is_spread_evenly() -> None:
    parts = covered(occlude(400, 11), faces(400, 11))
    assert stats.kstest((parts - 0.05) / 0.65, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_nothing_and_everything(part: float) -> None:
    result = occlude(6, 2, (part, part))
    np.testing.assert_array_equal(covered(result, faces(6, 2)), part)
    if part == 0:
        assert torch.equal(result.image, pictures(6, 2))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_mask_is_what_changed(seed: int) -> None:
    image, kept = pictures(4, seed), pictures(4, seed)
    occluded, mask = DelusionalOcclusion()(image, faces(4, seed), torch.Generator().manual_seed(seed))
    assert torch.equal(image, kept)
    assert occluded.shape == image.shape and mask.shape == (4, 1, SIZE, SIZE) and mask.dtype == torch.bool
    assert torch.equal(mask, (occluded != image).any(dim=1, keepdim=True))
    assert occluded.min() >= 0 and occluded.max() <= 1


def test_the_seed_decides() -> None:
    one, two, other = occlude(8, 5), occlude(8, 5), DelusionalOcclusion()(
        pictures(8, 5), faces(8, 5), torch.Generator().manual_seed(6)
    )  # fmt: skip
    assert torch.equal(one.image, two.image) and torch.equal(one.mask, two.mask)
    assert not torch.equal(one.mask, other.mask)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(DelusionalOcclusion()(pictures(8), faces(8)).mask)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_an_image_hangs_on_no_other() -> None:
    image, landmarks = pictures(6), faces(6)
    others, elsewhere = pictures(6, 9), faces(6, 9)
    others[2], elsewhere[2] = image[2], landmarks[2]
    first = DelusionalOcclusion()(image, landmarks, torch.Generator().manual_seed(1))
    second = DelusionalOcclusion()(others, elsewhere, torch.Generator().manual_seed(1))
    assert torch.equal(first.image[2], second.image[2]) and torch.equal(first.mask[2], second.mask[2])


def test_any_color_at_any_place() -> None:
    count = 300
    image, landmarks = torch.zeros(count, 3, SIZE, SIZE), faces(1).expand(count, -1, -1)
    occluded, mask = DelusionalOcclusion()(image, landmarks, torch.Generator().manual_seed(0))
    often = mask.float().mean(dim=0)[0]
    assert often.min() > 0.02 and often.max() < 0.8, "every pixel is covered at times, and none always"
    colors = occluded.permute(0, 2, 3, 1)[mask[:, 0]]
    for channel in colors.T:
        share = torch.histc(channel, 8, 0, 1) / len(channel)
        assert share.min() > 0.05
    # Gray is one color among many.
    assert (colors.amax(dim=1) - colors.amin(dim=1)).mean() > 0.3


def test_shapes_and_patterns_vary() -> None:
    """Pictures of one flat color are some and not most; so are those covered by more than one patch."""
    from skimage.measure import label

    image = torch.zeros(120, 3, SIZE, SIZE)
    occluded, mask = DelusionalOcclusion()(image, faces(1).expand(120, -1, -1), torch.Generator().manual_seed(0))
    flat, patches = [], []
    for picture, covered_pixels in zip(occluded, mask[:, 0], strict=True):
        flat.append(len(picture[:, covered_pixels].T.unique(dim=0)) == 1)
        patches.append(label(covered_pixels.numpy()).max())
    assert 5 < sum(flat) < 60
    assert 20 < sum(count > 1 for count in patches) < 110


def test_a_face_out_of_sight_leaves_the_picture_to_cover() -> None:
    mask = DelusionalOcclusion()(pictures(20), faces(20) + 400, torch.Generator().manual_seed(0)).mask
    parts = mask.float().mean(dim=(1, 2, 3))
    assert parts.min() >= 0.05 - 1e-3 and parts.max() <= 0.7 + 1e-3


@pytest.mark.parametrize("coverage", [(-0.1, 0.5), (0.6, 0.5), (0.2, 1.2)])
def test_no_range_is_refused(coverage: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="0 <= least <= most <= 1"):
        DelusionalOcclusion(coverage)
