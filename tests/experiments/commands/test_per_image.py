"""A table's rows by optimization of each picture's coefficients: what the loss allows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datamodules.batch import MultiViewBatch
from experiments.__main__ import main
from experiments.commands.per_image import compared, optimize
from experiments.commands.table import per_image_cells
from lightning_modules.components.backbones import CoefficientRegressor
from lightning_modules.mgcnet import MGCNet, MGCNetWeights
from tests.conf.parts import SmallEncoder, Told
from tests.conf.scenes import exact_batch, small_face_model
from tests.conf.tiny_papers import SmallBackbone, configuration, write_configuration

SIZE = 32


def test_free_coefficients_go_down_to_the_loss_of_the_truth() -> None:
    torch.manual_seed(0)
    model = small_face_model()
    batch, truth = exact_batch(model, faces=1, size=SIZE)
    weights = MGCNetWeights(landmark=0.01, identity=0.0, regularization=1e-4, pixel=2.0, depth=0.02, epipolar=1e-4)
    module = MGCNet(model, SmallBackbone(), SmallEncoder(), SIZE, weights)
    module.regressor = Told(truth)  # type: ignore[assignment]
    reachable = loss_of(module, batch)
    start = model.layout().join(truth)
    start = start + 0.1 * torch.randn(start.shape, generator=torch.manual_seed(1))
    losses = []
    for steps in (0, 40):
        module.regressor = CoefficientRegressor(SmallBackbone(), model.layout())
        optimize(module, batch, start, steps)
        losses.append(loss_of(module, batch))
    # Most of what there is to gain, in few steps.
    assert losses[1] - reachable < 0.2 * (losses[0] - reachable)


def loss_of(module: MGCNet, batch: MultiViewBatch) -> float:
    with torch.no_grad():
        return float(module.training_step(batch, 0))


def test_differences_are_paired_by_person() -> None:
    """Of errors that differ between people far more than between rows the interval is narrow; NaN is left out."""
    baseline = {"val/x": [1.0, 10.0, 100.0, math.nan]}
    found = compared({"val/x": [0.9, 9.9, 99.9, 5.0]}, baseline, ["val/x"])["val/x"]
    assert found["people"] == [0.9, 9.9, 99.9]
    assert found["difference"] == pytest.approx({"mean": -0.1, "low": -0.1, "high": -0.1})


def test_the_command_keeps_what_networks_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mgcnet"
    folder.mkdir()
    write_configuration(folder / "default.yaml", configuration("mgcnet"))
    rows = [{"name": "2D only", "overrides": ["--model.init_args.weights.pixel=0"]}, {"name": "all"}]
    spec: dict[str, Any] = {"config": "default.yaml", "metrics": ["val/nme", "val/yaw_error_deg"], "rows": rows}
    starts = ["identity_start", "multi_view_start"]
    spec["per_image"] = [f"--model.init_args.{name}=0" for name in starts]
    (folder / "table.yaml").write_text(yaml.safe_dump(spec))
    learned = {"name": "all", "overrides": [], "paper": {}, "ours": {}}
    (folder / "table.json").write_text(json.dumps({"command": "c", "commit": "abc", "code": {}, "rows": [learned]}))
    assert main(["table", str(folder), "--per-image", "--people", "2", "--steps", "3"]) == 0
    table = json.loads((folder / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["2D only", "all"]
    assert (table["commit"], table["rows"][1]["ours"]) == ("abc", {})
    header, first, second = per_image_cells(table)
    assert header[1:] == ["val/nme", "val/yaw_error_deg"]
    assert "to" not in first[1] and " to " in second[1]
    for row in table["rows"]:
        for metric in row["per_image"].values():
            assert len(metric["people"]) == 2 and metric["mean"] == pytest.approx(sum(metric["people"]) / 2)
    write_configuration(folder / "default.yaml", configuration("rogue"))
    (folder / "table.yaml").write_text(yaml.safe_dump({**spec, "per_image": [], "rows": rows[1:]}))
    assert main(["table", str(folder), "--per-image", "--steps", "1", "--people", "1"]) == 2
    assert "what networks teach each other" in capsys.readouterr().err
