"""Skin probability from a pixel's colour alone: Bayes' rule over two mixtures of Gaussians (specular paper, 4.1.2).

It is naive, because it judges each pixel by itself. `datamodules.preparation.skin` fits a model to each face anew. This
one is fitted once, to labelled pixels, and needs no landmarks. The default is fitted to the known skin of synthetic
faces under diffuse light. A highlight's colour is therefore unlikely to be skin.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.skin import FLOOR
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError

DEFAULT_FILE = Path(__file__).with_name("skin_classifier.json")
VERSION = 1
CHANNELS = 3
MOST_COMPONENTS = 64
SLACK = 1e-6  # how far the weights' sum may be from 1, and a covariance from symmetric
ITERATIONS = 200
CONVERGED = 1e-5  # gain of the mean log-likelihood that ends the fit
SPREAD = 0.02  # its square is added to every variance, so that no Gaussian becomes narrower than the pixels' noise


@dataclass(frozen=True)
class GaussianMixture:
    """K Gaussians in the space of `color_features`.

    Attributes:
        weights: (K,) above 0, summing to 1.
        means: (K, 3).
        covariances: (K, 3, 3) positive definite.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_density(self, values: Tensor) -> Tensor:
        """(3, N) -> (N,), on the values' device and in their precision."""
        return torch.logsumexp(self.log_parts(values), dim=0)

    def log_parts(self, values: Tensor) -> Tensor:
        """(3, N) -> (K, N) log of each component's share of the density."""
        matrix, shift, offset = (
            torch.as_tensor(array, dtype=values.dtype, device=values.device) for array in self._whitening
        )
        whitened = torch.addmm(shift, matrix, values).unflatten(0, (CHANNELS, -1))
        return offset - whitened.square().sum(dim=0) / 2

    @cached_property
    def _whitening(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(3 K, 3) and (3 K, 1), which turn each component into a standard normal, and the (K, 1) logs of the peaks."""
        whitening = np.linalg.inv(np.linalg.cholesky(self.covariances))
        peak = np.log(self.weights) + np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
        shift = -np.einsum("kij,kj->ik", whitening, self.means)
        return (
            whitening.transpose(1, 0, 2).reshape(-1, CHANNELS),
            shift.reshape(-1, 1),
            (peak - CHANNELS / 2 * np.log(2 * np.pi))[:, None],
        )


@dataclass(frozen=True)
class SkinClassifier:
    """Tells skin from everything else by its colour.

    Attributes:
        skin: density of skin's colours.
        other: density of all other colours.
        source: in words, what it was fitted to.
    """

    skin: GaussianMixture
    other: GaussianMixture
    source: str

    def probability(self, image: Tensor, prior: float = 0.5) -> Tensor:
        """p = p(colour | skin) prior / (p(colour | skin) prior + p(colour | other) (1 - prior)).

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            prior: share of skin among the pixels that are asked about, in (0, 1).

        Returns:
            (B, 1, H, W) in [0, 1], on the image's device.

        Raises:
            UserError: a prior that is no such share.
        """
        if not 0 < prior < 1:
            raise UserError(f"skin prior {prior}: give a share between 0 and 1")
        values = color_features(image.movedim(1, 0).reshape(CHANNELS, -1))
        odds = self.skin.log_density(values) - self.other.log_density(values) + float(np.log(prior / (1 - prior)))
        return torch.sigmoid(odds).view(len(image), 1, *image.shape[-2:])

    def save(self, path: Path) -> None:
        """Writes the numbers as JSON, in one step.

        Raises:
            UserError: the file cannot be written.
        """
        mixtures = {name: _as_lists(mixture) for name, mixture in (("skin", self.skin), ("other", self.other))}
        content = json.dumps({"version": VERSION, "source": self.source, **mixtures}, indent=1)
        write_bytes(path, content.encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path | None = None) -> SkinClassifier:
        """Read a file that `save` wrote; by default that of the default classifier.

        Raises:
            UserError: no such file, no JSON, another version, or numbers that make no mixture of Gaussians.
        """
        file = DEFAULT_FILE if path is None else Path(path)
        again = "make it with `python -m experiments prepare skin`"
        try:
            stored: dict[str, Any] = json.loads(file.read_bytes())
            if stored["version"] != VERSION:
                raise UserError(f"{file}: version {stored['version']}, this program reads {VERSION}: {again}")
            return cls(_mixture(stored, "skin"), _mixture(stored, "other"), str(stored["source"]))
        except OSError as error:
            raise UserError(f"{file}: {error.strerror or error}: {again}") from None
        except KeyError as error:
            raise UserError(f"{file} is no skin classifier (it lacks {error}): {again}") from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} is no skin classifier ({error}): {again}") from None


def color_features(colors: Tensor) -> Tensor:
    """(3, N) RGB in [0, 1] -> (3, N): log R/G, log B/G, half the log brightness, as in `preparation.skin`."""
    red, green, blue = colors + FLOOR
    brightness = 0.5 * (0.299 * red + 0.587 * green + 0.114 * blue).log()
    return torch.stack([(red / green).log(), (blue / green).log(), brightness])


def fit_classifier(skin: np.ndarray, other: np.ndarray, components: int, seed: int, source: str) -> SkinClassifier:
    """Both mixtures by EM.

    Args:
        skin: (N, 3) RGB of skin pixels in [0, 1], at least as many as components.
        other: (M, 3) RGB of other pixels, likewise.
        components: Gaussians in each mixture.
        seed: of the starting points.
        source: in words, where the pixels come from.
    """
    generator = np.random.default_rng(seed)
    mixtures = [
        fit_mixture(color_features(torch.as_tensor(colors.T, dtype=torch.float64)).numpy().T, components, generator)
        for colors in (skin, other)
    ]
    return SkinClassifier(mixtures[0], mixtures[1], source)


def fit_mixture(values: np.ndarray, components: int, generator: np.random.Generator) -> GaussianMixture:
    """Expectation-maximization from starting points that lie far apart (k-means++).

    Args:
        values: (N, 3), N at least `components`.
        components: K.
        generator: draws the starting points.
    """
    points = torch.as_tensor(values.T)
    mixture, likelihood = _begin(values, components, generator), -np.inf
    for _ in range(ITERATIONS):
        parts = mixture.log_parts(points)
        total = torch.logsumexp(parts, dim=0)
        share = (parts - total).exp().T.numpy()
        before, likelihood = likelihood, float(total.mean())
        if likelihood - before < CONVERGED:
            break
        mixture = _maximize(values, share)
    return mixture


def _begin(values: np.ndarray, components: int, generator: np.random.Generator) -> GaussianMixture:
    """K components, each of the points nearest to one of K that k-means++ (Arthur and Vassilvitskii, 2007) picks."""
    picked = [values[generator.integers(len(values))]]
    squared = ((values - picked[0]) ** 2).sum(axis=1)
    nearest = np.zeros(len(values), dtype=np.int64)
    for index in range(1, components):
        total = squared.sum()
        odds = squared / total if total > 0 else None
        picked.append(values[generator.choice(len(values), p=odds)])
        candidate = ((values - picked[-1]) ** 2).sum(axis=1)
        nearest[candidate < squared] = index
        squared = np.minimum(squared, candidate)
    return _maximize(values, np.eye(components)[nearest])


def _maximize(values: np.ndarray, share: np.ndarray) -> GaussianMixture:
    """The mixture of (N, 3) values that belong to K components by (N, K) shares."""
    counts = share.sum(axis=0) + 1e-9
    means = share.T @ values / counts[:, None]
    offsets = values[:, None] - means
    covariances = np.einsum("nk,nki,nkj->kij", share, offsets, offsets, optimize=True) / counts[:, None, None]
    return GaussianMixture(counts / counts.sum(), means, covariances + SPREAD**2 * np.eye(CHANNELS))


def _as_lists(mixture: GaussianMixture) -> dict[str, list]:
    return {name: np.round(array, 9).tolist() for name, array in asdict(mixture).items()}


def _mixture(stored: dict[str, Any], name: str) -> GaussianMixture:
    """One mixture of a file, checked.

    Raises:
        ValueError: its numbers make no mixture of Gaussians.
    """
    arrays = {key: np.asarray(stored[name][key], np.float64) for key in ("weights", "means", "covariances")}
    weights, covariances = arrays["weights"], arrays["covariances"]
    count = weights.size
    if not 1 <= count <= MOST_COMPONENTS:
        raise ValueError(f"{name}: {count} weights, expected 1 to {MOST_COMPONENTS}")
    shapes = {"weights": (count,), "means": (count, CHANNELS), "covariances": (count, CHANNELS, CHANNELS)}
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ValueError(f"{name}: {key} has shape {arrays[key].shape}, expected {shape}")
        if not np.isfinite(arrays[key]).all():
            raise ValueError(f"{name}: {key} holds values that are not finite")
    if (weights <= 0).any() or abs(weights.sum() - 1) > SLACK:
        raise ValueError(f"{name}: weights are not above 0 with the sum 1")
    if np.abs(covariances - covariances.swapaxes(1, 2)).max() > SLACK or (np.linalg.eigvalsh(covariances) <= 0).any():
        raise ValueError(f"{name}: a covariance is not symmetric and positive definite")
    return GaussianMixture(**arrays)
