"""Constants are made once, and can be used in training whoever asked first."""

from __future__ import annotations

import torch

from renderers.constants import constant


def test_constant_is_made_once_for_a_device_and_a_precision() -> None:
    like = torch.zeros(1)
    first = constant((1.5, 2.0), like)
    assert first.tolist() == [1.5, 2.0]
    assert first is constant((1.5, 2.0), like + 1)
    assert constant((1.5, 2.0), like.double()).dtype == torch.float64
    assert constant(((1, 2), (3, 4)), like).tolist() == [[1, 2], [3, 4]]


def test_constant_from_inference_serves_training() -> None:
    with torch.inference_mode():
        constant((7.25,), torch.zeros(1))
    leaf = torch.ones(1, requires_grad=True)
    (leaf * constant((7.25,), leaf)).backward()
    assert leaf.grad is not None and leaf.grad.item() == 7.25
