"""Attribute and robustified losses against NumPy and their closed forms."""

from __future__ import annotations

import numpy as np
import torch

from losses.attribute import attribute_loss
from losses.robust import robustified_loss


def features(*sizes: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, size, generator=generator, dtype=torch.double) for size in sizes]


def test_equals_the_euclidean_distance() -> None:
    a, b = features(7, 7)
    expected = [np.sqrt(sum((x - y) ** 2)) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(attribute_loss(a, b), expected, rtol=1e-12)


def test_gradient_and_none_where_the_features_agree() -> None:
    a, b = (part.requires_grad_() for part in features(5, 5))
    assert torch.autograd.gradcheck(attribute_loss, (a, b))
    (gradient,) = torch.autograd.grad(attribute_loss(a, a.detach()).sum(), a)
    assert torch.equal(gradient, torch.zeros_like(a))


def test_robustified_is_the_sum_of_both() -> None:
    """Equation (9) with the cosine (7) and the distance (8) written out."""
    i, j, k, m = features(6, 6, 3, 3)
    cosine = (i * j).sum(dim=1) / (i.square().sum(dim=1) * j.square().sum(dim=1)).sqrt()
    expected = 1 - cosine + (k - m).square().sum(dim=1).sqrt()
    torch.testing.assert_close(robustified_loss(i, j, k, m), expected)
    torch.testing.assert_close(robustified_loss(i, i, k, k), torch.zeros(4, dtype=torch.double))
