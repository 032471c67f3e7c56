"""The curve between linear light and display values: its formula, its inverse, its slope near 0."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renderers.color import TOE, decode, encode, encoding_slope

NUMBERS = st.lists(st.floats(-2, 4), min_size=1, max_size=8)


@pytest.mark.parametrize(("linear", "display"), [(0.264, 0.545874), (1.0, 1.0), (0.0, 0.0), (4.0, 1.87786)])
def test_is_the_paper_s_gamma(linear: float, display: float) -> None:
    assert float(encode(torch.tensor(linear))) == pytest.approx(display, abs=1e-5)


@settings(deadline=None)
@given(NUMBERS)
def test_each_is_the_other_s_inverse(values: list[float]) -> None:
    numbers = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(decode(encode(numbers)), numbers)
    torch.testing.assert_close(encode(decode(numbers)), numbers)


def test_is_without_a_jump_and_always_rises() -> None:
    light = torch.linspace(-0.1, 0.1, 20_001, dtype=torch.float64)
    steps = encode(light).diff()
    assert (steps > 0).all() and steps.max() < 24 * 1e-5 * 1.001


def test_the_slope_is_bounded_never_0_and_the_derivative() -> None:
    light = torch.tensor([-0.5, -1e-6, 0.0, 1e-9, 1e-3, 0.9 * TOE, 1.1 * TOE, 0.2, 1.5], requires_grad=True)
    encode(light).sum().backward()
    assert light.grad is not None
    assert (light.grad >= 0.3).all() and (light.grad < 25).all()
    inner = light.detach() != 0  # a corner has two
    torch.testing.assert_close(encoding_slope(light.detach())[inner], light.grad[inner])
