"""The Haar transform and its inverse: against PyWavelets, perfect reconstruction, gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.filters import filter2d
from torch import Tensor

from lightning_modules.finegrained.wavelet import HaarTransform, InverseHaarTransform

SIDES = st.integers(1, 17)


def picture(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def by_pywt(image: Tensor, levels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """PyWavelets' answer in `HaarTransform`'s form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It would rather not split what is already small.
        low, *details = pywt.wavedec2(image.numpy(), "haar", level=levels, axes=(-2, -1))
    return low, [np.stack(level, axis=1) for level in reversed(details)]


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 4))
def test_equals_pywavelets_and_comes_back(height: int, width: int, levels: int) -> None:
    image = picture(height, width)
    low, details = HaarTransform(levels)(image)
    wanted_low, wanted_details = by_pywt(image, levels)
    np.testing.assert_allclose(low, wanted_low, atol=1e-12)
    assert len(details) == levels
    for level, wanted in zip(details, wanted_details, strict=True):
        np.testing.assert_allclose(level, wanted, atol=1e-12)
    torch.testing.assert_close(InverseHaarTransform()(low, details, (height, width)), image, atol=1e-12, rtol=0)


def test_one_level_is_dwt2_and_idwt2() -> None:
    image = picture(8, 6)
    low, (details,) = HaarTransform()(image)
    wanted, (lh, hl, hh) = pywt.dwt2(image.numpy(), "haar")
    np.testing.assert_allclose(low, wanted, atol=1e-12)
    for band, other in zip(details.unbind(1), (lh, hl, hh), strict=True):
        np.testing.assert_allclose(band, other, atol=1e-12)
    back = pywt.idwt2((low.numpy(), tuple(details.numpy().swapaxes(0, 1))), "haar")
    np.testing.assert_allclose(InverseHaarTransform()(low, [details]), back, atol=1e-12)


def test_each_band_is_a_kornia_filter_of_the_printed_coefficients() -> None:
    """Section 3.4.1: L = [1, 1] / sqrt 2, H = [-1, 1] / sqrt 2; LH is high along y, HL along x."""
    image = picture(6, 6)
    low_pass, high_pass = torch.tensor([1.0, 1.0]).double() / 2**0.5, torch.tensor([-1.0, 1.0]).double() / 2**0.5
    _, (details,) = HaarTransform()(image)
    along = [(low_pass, high_pass), (high_pass, low_pass), (high_pass, high_pass)]
    for band, (x, y) in zip(details.unbind(1), along, strict=True):
        wanted = filter2d(image, torch.outer(y, x)[None], padding="valid", behaviour="conv")[..., ::2, ::2]
        torch.testing.assert_close(band, wanted, atol=1e-12, rtol=0)
    stripes = torch.tensor([0.0, 1.0]).repeat(3).expand(1, 1, 6, 6)  # change along x alone
    _, (details,) = HaarTransform()(stripes)
    assert details[:, 1].abs().min() > 0.5 and details[:, [0, 2]].abs().max() < 1e-6


def test_single_precision_to_1e_6() -> None:
    image = picture(33, 47, torch.float32)
    low, details = HaarTransform(3)(image)
    assert low.dtype == torch.float32
    wanted_low, wanted = by_pywt(image, 3)
    np.testing.assert_allclose(low, wanted_low, atol=2e-6)
    np.testing.assert_allclose(details[0], wanted[0], atol=1e-6)
    torch.testing.assert_close(InverseHaarTransform()(low, details, (33, 47)), image, atol=2e-6, rtol=0)


def test_energy_is_kept_on_even_sides() -> None:
    image = picture(16, 8)
    low, details = HaarTransform(3)(image)
    total = low.square().sum() + sum(level.square().sum() for level in details)
    torch.testing.assert_close(total, image.square().sum())


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_gradients(size: tuple[int, int]) -> None:
    image = picture(*size).requires_grad_()
    transform, inverse = HaarTransform(2), InverseHaarTransform()

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        low, details = transform(image)
        return low, *details

    assert torch.autograd.gradcheck(forward, image)
    low, first, second = (value.detach().requires_grad_() for value in forward(image))
    assert torch.autograd.gradcheck(lambda *parts: inverse(parts[0], list(parts[1:]), size), (low, first, second))


def test_no_level_is_refused() -> None:
    with pytest.raises(ValueError, match="one level or more"):
        HaarTransform(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees() -> None:
    image = picture(31, 20)
    low, details = HaarTransform(2)(image)
    low_there, details_there = HaarTransform(2).cuda()(image.cuda())
    torch.testing.assert_close(low_there.cpu(), low)
    for here, there in zip(details, details_there, strict=True):
        torch.testing.assert_close(there.cpu(), here)
    torch.testing.assert_close(InverseHaarTransform().cuda()(low_there, details_there, (31, 20)).cpu(), image)
