"""The default model's people against the survey that they are calibrated on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from experiments.__main__ import main
from renderers.face_models.default.population import Survey, calibration, load_survey, transport
from renderers.face_models.default.whole_head import load_whole_head

FRESH = 3000


@pytest.fixture(scope="module")
def survey() -> Survey:
    return load_survey()


def test_fresh_heads_measure_as_the_survey(survey: Survey) -> None:
    """People drawn from the model's own coefficients, not those that it was made of."""
    head = load_whole_head()
    ends = survey.pairs.ravel()
    coefficients = np.random.default_rng(7).standard_normal((FRESH, head.identity_basis.shape[-1]))
    points = head.mean_shape[ends] + np.einsum("vik,bk->bvi", head.identity_basis[ends], coefficients)
    arms = points[:, 0::2] - points[:, 1::2]
    distances = 100 * np.sqrt((arms**2).sum(axis=-1))
    assert np.abs(distances.mean(axis=0) / survey.mean - 1).max() < 0.02
    assert np.abs(distances.std(axis=0) / survey.deviation - 1).max() < 0.15
    wanted = survey.covariance / np.outer(survey.deviation, survey.deviation)
    assert np.abs(np.corrcoef(distances.T) - wanted).max() < 0.1


def test_both_sexes_count_alike(survey: Survey) -> None:
    """The moments of the mixture are those of many people drawn from it, half men and half women."""
    face_length = survey.names.index("face length")
    generator = np.random.default_rng(0)
    men, women = generator.normal(123.19, 7.16, 200_000), generator.normal(114.23, 6.47, 200_000)
    both = np.concatenate([men, women])
    assert survey.mean[face_length] == pytest.approx(both.mean(), abs=0.05)
    assert survey.deviation[face_length] == pytest.approx(both.std(), abs=0.05)
    assert np.linalg.eigvalsh(survey.covariance).min() > 0


def test_men_and_women_are_told_apart_as_well_as_two_gaussians_can_be(survey: Survey) -> None:
    generator = np.random.default_rng(1)
    for sign in (1, -1):
        drawn = generator.multivariate_normal(survey.mean + sign * survey.apart, survey.within, size=20_000)
        share = (survey.like_men(drawn) == (sign > 0)).mean()
        # Half the Mahalanobis distance between the means is how many deviations each lies from the border.
        reach = np.sqrt(survey.apart @ np.linalg.inv(survey.within) @ survey.apart)
        assert share == pytest.approx(norm.cdf(reach), abs=0.01)


def test_distances_end_at_mirrored_vertices_or_on_the_middle(survey: Survey) -> None:
    head = load_whole_head()
    points = head.mean_shape[survey.pairs]
    for (first, second), (here, there) in zip(survey.pairs, points, strict=True):
        in_the_middle = abs(here[0]) < 1e-3 and abs(there[0]) < 1e-3
        assert in_the_middle or head.mirror[first] == second
        assert not in_the_middle or first != second


def test_calibration_moves_the_moments_and_little_else() -> None:
    """Boxes whose widths are measured: their heights, which go with the widths, follow; unmeasured noise shrinks."""
    generator = np.random.default_rng(3)
    width = generator.normal(1.5, 0.05, 500)
    height = 2 + 0.8 * (width - 1.5) + generator.normal(0, 0.02, 500)
    points = np.zeros((500, 3, 3))
    points[:, 1, 0], points[:, 2, 1] = width, height
    survey = Survey(("width",), np.array([[0, 1]]), np.array([140.0]), np.zeros(1), np.array([[9.0]]))
    weights = calibration(points, survey)
    assert np.allclose(weights.sum(axis=1), 1)
    moved = (weights @ points.reshape(500, -1)).reshape(500, 3, 3)
    assert moved[:, 1, 0].mean() == pytest.approx(1.40, abs=1e-6)
    assert moved[:, 1, 0].std(ddof=1) == pytest.approx(0.03, abs=1e-6)
    slope = np.polyfit(width, height, 1)[0]
    assert moved[:, 2, 1].mean() == pytest.approx(height.mean() + slope * (1.40 - width.mean()), abs=1e-6)
    assert np.corrcoef(moved[:, 1, 0], width)[0, 1] == pytest.approx(1)


def test_transport_maps_one_covariance_to_the_other() -> None:
    generator = np.random.default_rng(1)
    first, second = (np.cov(generator.standard_normal((4, 30)) * np.arange(1, 5)[:, None]) for _ in range(2))
    moved = transport(first, second)
    assert np.allclose(moved, moved.T) and np.linalg.eigvalsh(moved).min() > 0
    assert np.allclose(moved @ first @ moved, second)


def test_the_table_shows_ours_beside_the_surveys(survey: Survey, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sheet", "--distances"]) == 0
    said = capsys.readouterr().out
    for name, mean in zip(survey.names, survey.mean, strict=True):
        line = next(line for line in said.splitlines() if name in line)
        ours, theirs = (float(cell.split("±")[0]) for cell in line.split("│")[2:4])
        assert theirs == pytest.approx(mean, abs=0.06) and ours == pytest.approx(mean, rel=0.02)
