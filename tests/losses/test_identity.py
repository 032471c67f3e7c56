"""Identity loss against NumPy and its closed forms."""

from __future__ import annotations

import numpy as np
import torch

from losses.identity import identity_loss


def test_equals_one_minus_the_cosine() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 128)), rng.normal(size=(5, 128))
    expected = [1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    found = identity_loss(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_same_opposite_and_orthogonal_features() -> None:
    a = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
    b = torch.tensor([[0.5, 0.0], [-7.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(identity_loss(a, b), torch.tensor([0.0, 2.0, 1.0]))


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 6, dtype=torch.double, generator=generator, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(identity_loss, (a, b))
