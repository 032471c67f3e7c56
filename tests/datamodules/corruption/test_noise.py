"""Noise against the moments, distributions and spectra that it should have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from datamodules.corruption import NOISE_KINDS, Noise, noise
from datamodules.corruption.draws import Draws
from renderers.io.errors import UserError

LANDMARKS = torch.zeros(1, 68, 2)
STRENGTHS = torch.tensor([0.0, 0.4, 1.0])


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), torch.device("cpu"))


def flat(value: float, size: int = 128) -> torch.Tensor:
    """One image for each of the strengths."""
    return torch.full((3, 3, size, size), value)


def expected(ends: tuple[float, float]) -> list[float]:
    return [ends[0] + (ends[1] - ends[0]) * part for part in STRENGTHS.tolist()]


def test_gaussian_has_its_variance_and_shape() -> None:
    added = noise.gaussian(flat(0.3), STRENGTHS, draws()) - 0.3
    for values, deviation in zip(added.flatten(1).numpy(), expected((0.05, 0.4)), strict=True):
        assert values.var() == pytest.approx(deviation**2, rel=0.03)
        assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
        assert stats.kstest(values / deviation, "norm").pvalue > 1e-3
    channels = np.corrcoef(added[1].flatten(1).numpy())
    assert np.abs(channels - np.eye(3)).max() < 0.05


def test_salt_and_pepper_replace_their_share() -> None:
    noisy = noise.salt_and_pepper(flat(0.3), STRENGTHS, draws())
    for image, rate in zip(noisy, expected((0.03, 0.5)), strict=True):
        white, black, kept = ((image == value).all(dim=0) for value in (1.0, 0.0, 0.3))
        assert (white | black | kept).all(), "a pixel's channels change together"
        deviation = math.sqrt(rate * (1 - rate) / white.numel())
        assert abs((~kept).float().mean().item() - rate) < 4 * deviation
        assert abs(white.float().mean().item() - rate / 2) < 4 * deviation


@pytest.mark.parametrize("value", [0.0, 0.1, 0.6, 1.0])
def test_poisson_counts_photons(value: float) -> None:
    noisy = noise.poisson(flat(value), STRENGTHS, draws())
    for image, part in zip(noisy, STRENGTHS.tolist(), strict=True):
        peak = 30.0 * 0.1**part  # from 30 down to 3 photons
        counts = (image * peak).flatten().numpy()
        np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
        mean = value * peak
        assert counts.mean() == pytest.approx(mean, abs=5 * math.sqrt(mean / counts.size) + 1e-4)
        assert image.var().item() == pytest.approx(value / peak, rel=0.03, abs=1e-7)
        observed = np.bincount(counts.round().astype(int), minlength=80)[:80].cumsum() / counts.size
        assert np.abs(observed - stats.poisson.cdf(np.arange(80), mean)).max() < 1.63 / math.sqrt(counts.size)


def test_speckle_grows_with_the_image() -> None:
    for value in (0.0, 0.2, 0.8):
        noisy = noise.speckle(flat(value), STRENGTHS, draws())
        for image, deviation in zip(noisy, expected((0.1, 0.8)), strict=True):
            assert image.var().item() == pytest.approx((value * deviation) ** 2, rel=0.03)
            assert image.mean().item() == pytest.approx(value, abs=5 * value * deviation / math.sqrt(image.numel()))


def test_periodic_is_one_wave() -> None:
    """A window keeps the peak narrow where the wave does not fit the picture a whole number of times."""
    size, count = 128, 24
    image = torch.full((count, 3, size, size), 0.5)
    strength = torch.linspace(0, 1, count)
    added = noise.periodic(image, strength, draws()) - image
    torch.testing.assert_close(added[:, 0], added[:, 2], rtol=0, atol=0)
    window = torch.hann_window(size, periodic=True)
    spectrum = torch.fft.fft2(added[:, 0].double() * window * window[:, None]).abs()
    found = []
    for picture, part in zip(spectrum, strength.tolist(), strict=True):
        row, column = np.unravel_index(int(picture.argmax()), picture.shape)
        frequency = [index - size if index > size / 2 else index for index in (row, column)]
        found.append(math.hypot(*frequency))
        rows, columns = (torch.arange(-2, 3) + row) % size, (torch.arange(-2, 3) + column) % size
        near = picture[rows][:, columns].square().sum()
        assert 2 * near > 0.98 * picture.square().sum(), "all of the energy is at the peak and at its mirror image"
        amplitude = 0.08 + (0.45 - 0.08) * part
        assert added.abs().flatten(1).amax(dim=1)[len(found) - 1].item() == pytest.approx(amplitude, rel=0.05)
    assert 3.2 < min(found) < 10 and 18 < max(found) < 24.8


def pictures(count: int = 16, size: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_the_mask_is_what_changed(kind: str) -> None:
    image = pictures()
    kept = image.clone()
    noisy, mask = Noise([kind])(image, LANDMARKS.expand(16, -1, -1), torch.Generator().manual_seed(0))
    assert torch.equal(image, kept)
    assert noisy.shape == image.shape and noisy.dtype == image.dtype
    assert mask.shape == (16, 1, 24, 24) and mask.dtype == torch.bool
    assert noisy.min() >= 0 and noisy.max() <= 1
    outside = ~mask.expand_as(image)
    assert torch.equal(noisy[outside], image[outside])
    assert (noisy != image).any(dim=1, keepdim=True)[mask].all()
    assert mask.flatten(1).any(dim=1).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_the_seed_decides(seed: int) -> None:
    one, two = (Noise()(pictures(), LANDMARKS, torch.Generator().manual_seed(seed)) for _ in range(2))
    other = Noise()(pictures(), LANDMARKS, torch.Generator().manual_seed(seed ^ 1))
    assert torch.equal(one.image, two.image) and torch.equal(one.mask, two.mask)
    assert not torch.equal(one.image, other.image)


def test_without_a_generator_torchs_own_decides() -> None:
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(Noise()(pictures(), LANDMARKS).image)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_an_image_hangs_on_no_other() -> None:
    """Other neighbours, the same numbers drawn: the same result."""
    image, other = pictures(), pictures()
    other[1:] = pictures(seed=7)[1:]
    for seed in range(6):
        first, second = (Noise()(batch, LANDMARKS, torch.Generator().manual_seed(seed)) for batch in (image, other))
        assert torch.equal(first.image[0], second.image[0])


def test_every_kind_comes_as_often() -> None:
    """Told apart by their marks: grey waves, untouched black, three channels that change together, few levels."""
    image = torch.full((600, 3, 12, 12), 0.5)
    image[:, :, :2] = 0
    noisy = Noise()(image, LANDMARKS, torch.Generator().manual_seed(0)).image
    black, gray = noisy[:, :, :2].flatten(1), noisy[:, :, 2:]
    together = (gray[:, 0] == gray[:, 1]).flatten(1).all(dim=1)
    salt = together & ((gray == 0) | (gray == 0.5) | (gray == 1)).flatten(1).all(dim=1)
    dark = (black == 0).all(dim=1) & ~together
    levels = torch.tensor([len(values.unique()) for values in gray.flatten(1)])
    counts = {
        "salt_and_pepper": salt.sum(), "periodic": (together & ~salt).sum(), "poisson": (dark & (levels < 60)).sum(),
        "speckle": (dark & (levels >= 60)).sum(), "gaussian": (~dark & ~together).sum(),
    }  # fmt: skip
    assert sum(counts.values()) == 600
    assert stats.chisquare([int(count) for count in counts.values()]).pvalue > 1e-3


@pytest.mark.parametrize("kinds", [(), ("fog",), ("gaussian", "fog")])
def test_an_unknown_kind_is_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"choose among gaussian, salt_and_pepper, poisson, speckle, periodic"):
        Noise(kinds)
