"""The skin classifier against SciPy's densities, on synthetic faces and a photograph, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from scipy.stats import multivariate_normal

from datamodules.preparation import skin
from datamodules.preparation.skin_classifier import (
    DEFAULT_FILE,
    GaussianMixture,
    SkinClassifier,
    color_features,
    fit_mixture,
)
from experiments.commands.prepare.skin import separation, synthetic_samples
from renderers.io.errors import UserError


def mixture(seed: int, components: int = 3) -> GaussianMixture:
    generator = np.random.default_rng(seed)
    factors = generator.normal(0, 0.4, (components, 3, 3))
    return GaussianMixture(
        generator.dirichlet(np.full(components, 3.0)),
        generator.normal(size=(components, 3)),
        factors @ factors.swapaxes(1, 2) + 0.02 * np.eye(3),
    )


def draw(law: GaussianMixture, count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(law.weights), size=count, p=law.weights)
    turned = np.einsum("nij,nj->ni", np.linalg.cholesky(law.covariances)[rows], generator.normal(size=(count, 3)))
    return law.means[rows] + turned


def scipys_density(law: GaussianMixture, values: np.ndarray) -> np.ndarray:
    parts = zip(law.weights, law.means, law.covariances, strict=True)
    return np.sum([w * multivariate_normal(m, c).pdf(values) for w, m, c in parts], axis=0)


def test_density_is_scipys() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    found = mixture(0).log_density(torch.as_tensor(values.T)).exp().numpy()
    np.testing.assert_allclose(found, scipys_density(mixture(0), values), rtol=1e-9)


def test_probability_is_bayes_rule() -> None:
    classifier = SkinClassifier(mixture(0), mixture(1), "")
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = color_features(image.transpose(0, 1).reshape(3, -1)).numpy().T
    one, other = (scipys_density(law, values) for law in (classifier.skin, classifier.other))
    for prior in (0.2, 0.5, 0.9):
        expected = one * prior / (one * prior + other * (1 - prior))
        found = classifier.probability(image, prior)
        assert found.shape == (2, 1, 4, 5) and found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-9)
    for prior in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match="prior"):
            classifier.probability(image, prior)


def test_features_are_those_of_the_per_face_model() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    found = color_features(torch.as_tensor(image / 255).reshape(-1, 3).T).numpy().T.reshape(6, 7, 3)
    np.testing.assert_allclose(found, skin.color_features(image), atol=1e-12)


def test_em_finds_a_mixture_again() -> None:
    law = mixture(3, components=2)
    values = draw(law, 4000, seed=4)
    found = fit_mixture(values, 2, np.random.default_rng(0))
    order = np.argsort(found.weights) if law.weights[0] < law.weights[1] else np.argsort(-found.weights)
    np.testing.assert_allclose(found.weights[order], law.weights, atol=0.03)
    np.testing.assert_allclose(found.means[order], law.means, atol=0.1)
    np.testing.assert_allclose(found.covariances[order], law.covariances, atol=0.15)
    fresh = torch.as_tensor(draw(law, 2000, seed=5))
    gain = float((found.log_density(fresh.T) - law.log_density(fresh.T)).mean())
    assert gain == pytest.approx(0, abs=0.01)


def test_em_survives_one_colour_alone() -> None:
    found = fit_mixture(np.full((30, 3), 0.4), 4, np.random.default_rng(0))
    assert all(np.isfinite(array).all() for array in (found.weights, found.means, found.covariances))
    assert np.linalg.eigvalsh(found.covariances).min() > 0


def test_the_default_tells_skin_on_faces_it_was_not_fitted_to() -> None:
    samples = list(synthetic_samples(32, seed=1234))
    one, other = (np.concatenate([sample[kind] for sample in samples]) for kind in (0, 1))
    assert separation(SkinClassifier.load(), one, other) > 0.95


def test_the_default_tells_a_cheek_from_a_suit_hair_and_a_wall() -> None:
    image = torch.as_tensor(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    probability = SkinClassifier.load().probability(image)[0, 0]
    cheek, forehead = probability[130:150, 185:205], probability[85:95, 205:240]
    assert cheek.mean() > 0.9 and forehead.mean() > 0.9
    suit, hair, black = probability[400:450, 150:250], probability[30:60, 190:270], probability[400:480, 300:340]
    white = probability[215:235, 385:395]  # the shuttle's
    for part in (suit, hair, black, white):
        assert part.mean() < 0.35 and float(part.median()) < 0.5


def test_a_file_gives_the_same_classifier_again(tmp_path: Path) -> None:
    made = SkinClassifier(mixture(0), mixture(1), "noise")
    made.save(tmp_path / "folder" / "skin.json")
    read = SkinClassifier.load(str(tmp_path / "folder" / "skin.json"))
    assert read.source == "noise"
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(read.probability(image), made.probability(image), atol=1e-5, rtol=0)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["skin.json"]


def broken(change: Any) -> bytes:
    stored = json.loads(DEFAULT_FILE.read_text())
    change(stored)
    return json.dumps(stored).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "no skin classifier"),
        (b"\xff\xfe", "no skin classifier"),
        (b"[1, 2]", "no skin classifier"),
        (broken(lambda s: s.pop("other")), "lacks 'other'"),
        (broken(lambda s: s.update(version=9)), "version 9"),
        (broken(lambda s: s["skin"].update(weights=[])), "0 weights"),
        (broken(lambda s: s["skin"]["weights"].__setitem__(0, 0.9)), "the sum 1"),
        (broken(lambda s: s["skin"]["means"].pop()), "means has shape"),
        (broken(lambda s: s["skin"]["means"][0].__setitem__(0, float("nan"))), "not finite"),
        (broken(lambda s: s["other"]["covariances"][0][0].__setitem__(0, -1.0)), "positive definite"),
        (broken(lambda s: s["other"]["covariances"][0][0].__setitem__(1, 0.5)), "not symmetric"),
        (broken(lambda s: s["other"].update(means="many")), "no skin classifier"),
        (broken(lambda s: s.update(skin=3)), "no skin classifier"),
    ],
)
def test_a_bad_file_is_told_with_its_path(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "skin.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        SkinClassifier.load(path)
    assert str(path) in str(caught.value) and "prepare skin" in str(caught.value)
