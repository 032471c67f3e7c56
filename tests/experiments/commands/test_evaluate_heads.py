"""`evaluate --suite heads`: every head in its groups, and figures that an untrained network makes known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.synthesis.people import nearest_tone
from experiments.__main__ import main
from experiments.commands.evaluate import heads
from experiments.commands.evaluate.results import Request
from lightning_modules.dense_face import DenseFace, ThinResNet
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.default.model import load_default
from renderers.face_models.default.population import load_survey
from renderers.face_models.default.whole_head import load_whole_head
from renderers.io.cache import cache_dir
from renderers.io.errors import UserError
from tests.conf.fake_bfm import write_fake_bfm

COUNT = 16


@pytest.fixture(autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little pictures are drawn fast, and lie in a cache of their own; the face model's is the user's."""
    load_default()
    kept = [path for path in cache_dir().glob("*") if path.is_file()]
    folder = tmp_path_factory.mktemp("cache")
    for path in kept:
        (folder / path.name).symlink_to(path)
    monkeypatch.setenv("MONOFACE_CACHE", str(folder))


def test_an_untrained_network_is_as_far_off_as_the_mean_face() -> None:
    module = DenseFace(load_default(), ThinResNet(8), 48)
    found = heads.evaluate(module, Request(None, None, COUNT, 0, 10), print)
    everyone = found.sets["all"]
    assert len(everyone["nme"]) == COUNT
    np.testing.assert_allclose(everyone["shape_rmse_mm"], everyone["mean_face_shape_rmse_mm"], atol=1e-3)
    assert min(everyone["mean_face_shape_rmse_mm"]) > 1
    for kind in ("yaw", "tone", "like"):
        parts = [metrics["yaw_error_deg"] for name, metrics in found.sets.items() if name.startswith(kind)]
        assert sorted(value for part in parts for value in part) == sorted(everyone["yaw_error_deg"])
    for name, metrics in found.sets.items():
        if name.startswith("yaw"):  # the mean face looks ahead: the error is the head's own yaw
            low, high = int(name.split()[1]), int(name.split()[3])
            assert all(low <= value < high for value in metrics["yaw_error_deg"])
    assert str(COUNT) in heads.table(found).title


def test_the_shipped_network_is_measured_without_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", "--suite", "heads", "--subjects", str(COUNT), "--output", str(out)]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    figures = record["sets"]["all"]
    assert figures["shape_rmse_mm"]["mean"] < 0.9 * figures["mean_face_shape_rmse_mm"]["mean"]
    assert figures["nme"]["mean"] < 6 and 0.3 < record["pooled"]["all"]["mouth_opening_correlation"] <= 1
    assert (out / "evaluation.png").is_file()


def test_what_is_seen_correlates_where_it_agrees() -> None:
    generator = torch.Generator().manual_seed(0)
    true, noise = torch.rand(2, 400, 7, generator=generator)
    found = torch.cat([2 * true[:, :2] + 1, noise[:, 2:5], true[:, 5:]], dim=1)
    seen = torch.rand(400, 3, generator=generator) > 0.3
    found[:, :2][~seen[:, :2]] = 9.0  # hidden eyes do not count, however wrong
    correlations = heads._correlations(torch.stack([true, found]), seen)
    assert correlations["eyes_opening_correlation"] == pytest.approx(1)
    assert correlations["gaze_up_correlation"] == pytest.approx(1)
    assert abs(correlations["mouth_opening_correlation"]) < 0.2 and abs(correlations["gaze_aside_correlation"]) < 0.2
    assert heads._correlations(torch.stack([true, found])[:, :3], seen[:3]) == {}  # three heads tell nothing
    alike = torch.stack([true, torch.ones_like(true)])
    assert heads._correlations(alike, seen) == {}


def test_heads_are_told_apart_by_their_distances() -> None:
    """Half of all people are like men; larger heads are."""
    identity = np.random.default_rng(0).standard_normal((2000, 80))
    men = np.array(heads._like_men(identity))
    assert 0.45 < men.mean() < 0.55
    head, survey = load_whole_head(), load_survey()
    ends = survey.pairs[survey.names.index("face length")]
    first, second = head.mean_shape[ends, :, None] + head.identity_basis[ends] @ identity.T
    length = np.linalg.norm(first - second, axis=0)
    assert 100 * (length[men].mean() - length[~men].mean()) > 5  # millimetres; 9 in the survey


def test_tones_run_from_light_to_dark() -> None:
    gray = np.linspace(0.95, 0.05, 40)[:, None].repeat(3, axis=1)
    tones = nearest_tone(gray)
    assert tones[0] in (0, 1, 2) and tones[-1] == 9
    lighter_three = np.array([tone if tone > 2 else 0 for tone in tones])  # their L* differ by two
    assert (np.diff(lighter_three) >= 0).all()


def test_heads_are_drawn_with_the_default_model_alone(tmp_path: Path) -> None:
    module = DenseFace(load_default(), ThinResNet(8), 48)
    module.face_model = load_bfm2009(write_fake_bfm(tmp_path / "bfm.mat"))
    with pytest.raises(UserError, match="default one alone"):
        heads.evaluate(module, Request(None, None, 2, 0, 10), print)
