"""The picture grid and the guard against NaN, apart from a run."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.training.callbacks import (
    HEADER,
    FiniteGuard,
    MetricsRecord,
    NonFiniteError,
    TimeLeft,
    panel_grid,
    validation_metrics,
)
from experiments.training.random_state import random_state, restore_random_state
from renderers.io.errors import UserError


def test_grid_puts_samples_in_rows_and_panels_in_columns() -> None:
    panels = {"input": torch.rand(3, 3, 32, 64), "render": torch.rand(3, 3, 32, 64)}
    grid = np.asarray(panel_grid(panels, rows=2))
    scale = 2  # 128 / 64
    assert grid.shape == (HEADER + 2 * 32 * scale, 2 * 64 * scale, 3)
    for column, panel in enumerate(panels.values()):
        for row in range(2):
            top, left = HEADER + row * 32 * scale, column * 64 * scale
            cell = grid[top : top + 32 * scale : scale, left : left + 64 * scale : scale]
            expected = (panel[row].permute(1, 2, 0) * 255).round().numpy()
            np.testing.assert_allclose(cell, expected, atol=1)


def test_grid_names_every_column() -> None:
    panels = {"input": torch.zeros(1, 3, 128, 128), "depth": torch.zeros(1, 3, 128, 128)}
    header = np.asarray(panel_grid(panels, rows=4))[:HEADER].astype(int)
    for column in range(2):
        assert (header[:, column * 128 : (column + 1) * 128] < 128).any()
    swapped = np.asarray(panel_grid({"depth": panels["depth"], "input": panels["input"]}, rows=4))[:HEADER]
    np.testing.assert_array_equal(swapped[:, :128], header[:, 128:])


def test_grid_takes_any_values() -> None:
    wild = torch.tensor([-3.0, 7.0, torch.nan])[None, :, None, None].expand(1, 3, 128, 128)
    cell = np.asarray(panel_grid({"wild": wild}, rows=1))[HEADER:]
    assert (cell == [0, 255, 0]).all()


def test_grid_refuses_different_sizes() -> None:
    with pytest.raises(ValueError, match="common size"):
        panel_grid({"a": torch.zeros(1, 3, 8, 8), "b": torch.zeros(1, 3, 9, 8)}, rows=1)


def test_only_validation_metrics_are_recorded() -> None:
    metrics = {"val/nme": torch.tensor(3.5), "train/loss": torch.tensor(1.0), "val/delusional/psnr": torch.tensor(20.0)}
    assert validation_metrics(metrics) == {"val/nme": 3.5, "val/delusional/psnr": 20.0}


@dataclass
class Nested:
    image: Tensor
    names: list[str]
    truth: dict[str, Tensor] | None = None


def trainer(step: int = 0, **metrics: float) -> Any:
    named = {f"train/{name}": torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(global_step=step, callback_metrics=named)


def test_guard_names_the_field_and_the_sample() -> None:
    batch = Nested(torch.zeros(4, 3, 2, 2), ["a"], {"depth": torch.zeros(4, 1)})
    guard: Any = FiniteGuard()
    guard.on_train_batch_start(trainer(), None, batch, 0)
    assert batch.truth is not None
    batch.truth["depth"][2] = torch.inf
    with pytest.raises(NonFiniteError, match=r"step 7: truth\.depth of the training batch 5, sample 2, holds NaN"):
        guard.on_train_batch_start(trainer(7), None, batch, 5)
    with pytest.raises(NonFiniteError, match=r"truth\.depth of the validation batch 1, sample 2"):
        guard.on_validation_batch_start(trainer(7), None, batch, 1)


def test_guard_names_the_term() -> None:
    guard: Any = FiniteGuard()
    guard.on_before_backward(trainer(3, pixel=1.0), None, torch.tensor(2.0))
    with pytest.raises(NonFiniteError, match=r"step 3: the loss is not finite \(terms: train/depth\)"):
        guard.on_before_backward(trainer(3, pixel=1.0, depth=torch.nan), None, torch.tensor(torch.nan))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_guard_reads_an_accelerator_only_now_and_then() -> None:
    guard: Any = FiniteGuard(every=4)
    for step in range(1, 4):
        loss = torch.tensor(torch.nan if step == 2 else 1.0, device="cuda")
        guard.on_before_backward(trainer(step), None, loss)
        guard.on_train_batch_end(trainer(step), None, None, None, step)
    with pytest.raises(NonFiniteError, match="step 2: the loss"):
        guard.on_train_batch_end(trainer(4), None, None, None, 4)


@pytest.mark.parametrize("initial", [None, [1], {"val/x": "text"}, {"val/x": float("inf")}, {1: 0.5}, {"a": True}])
def test_first_metrics_of_a_file_are_numbers(initial: Any, capsys: pytest.CaptureFixture[str]) -> None:
    record = MetricsRecord()
    record.load_state_dict({"initial": initial})
    assert record.initial == {} and "first metrics are unreadable" in capsys.readouterr().err
    record.load_state_dict({"initial": {"val/x": 0.5}})
    assert record.initial == {"val/x": 0.5} and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("place", "value"), [(0, "PCG64"), (1, torch.zeros(3, dtype=torch.int64)), (1, torch.zeros(624)), (2, 2**30),
                         (2, -1), (2, "1"), (3, 2), (4, "x")],
)  # fmt: skip
def test_a_random_state_is_within_its_bounds(place: int, value: Any) -> None:
    """NumPy draws from wherever the position says."""
    state = random_state()
    held = list(state["numpy"])
    held[place] = value
    with pytest.raises(UserError, match="its random state cannot be read"):
        restore_random_state({**state, "numpy": tuple(held)})
    restore_random_state(state)


def test_the_time_left_is_that_of_the_steps_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on at step 40 and takes 6 seconds a step; lines after 1, 10 and 20 steps."""
    told: list[str] = []
    trainer: Any = SimpleNamespace(global_step=40, estimated_stepping_batches=100, print=told.append)
    clock = [1000.0]
    monkeypatch.setattr("experiments.training.callbacks.time.monotonic", lambda: clock[0])
    callback, module = TimeLeft(every=10), cast(Any, None)
    callback.on_train_start(trainer, module)
    for _ in range(20):
        trainer.global_step += 1
        clock[0] += 6
        callback.on_train_batch_end(trainer, module, None, None, 0)
    assert told == [
        f"step {step} of 100: about {minutes} minutes left" for step, minutes in ((41, 6), (50, 5), (60, 4))
    ]
