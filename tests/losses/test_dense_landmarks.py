"""The Gaussian likelihood of dense landmarks, against its closed form and scipy's density."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import multivariate_normal

from losses.dense_landmarks import gaussian_landmark_loss


def test_it_is_the_densitys_logarithm_but_for_a_constant() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 3, 5, 2, generator=generator, dtype=torch.float64)
    log_deviation = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    found = gaussian_landmark_loss(predicted, target, log_deviation) + np.log(2 * np.pi)
    for face in range(3):
        for point in range(5):
            covariance = np.eye(2) * np.exp(2 * float(log_deviation[face, point]))
            density = multivariate_normal(predicted[face, point].numpy(), covariance)
            np.testing.assert_allclose(found[face, point], -density.logpdf(target[face, point].numpy()))


def test_the_best_variance_is_half_the_squared_distance() -> None:
    distance, log_deviation = 0.3, torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[distance, 0.0]]], dtype=torch.float64)
    optimizer = torch.optim.LBFGS([log_deviation], line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = gaussian_landmark_loss(torch.zeros_like(target), target, log_deviation).sum()
        value.backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose(torch.exp(2 * log_deviation).item(), distance**2 / 2, rtol=1e-4)
    np.testing.assert_allclose(loss().item(), np.log(distance**2 / 2) + 1, rtol=1e-6)
