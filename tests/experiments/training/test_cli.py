"""fit | validate | test | predict on a tiny module: what a run leaves, how it ends, how it goes on."""

from __future__ import annotations

import builtins
import getpass
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from experiments.__main__ import main
from experiments.training.checkpoint import load_module
from experiments.training.cli import wandb_mode
from experiments.training.resuming import differences
from experiments.training.stored_module import Trust
from renderers.io.errors import UserError
from tests.conf.tiny import TinyModule

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "tests/conf/tiny.yaml")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MONOFACE_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def fit(*arguments: str, run_id: str = "a") -> int:
    return main(["fit", "--config", CONFIG, *([f"--run_id={run_id}"] if run_id else []), *arguments])


def run(run_id: str = "a") -> Path:
    return Path("runs/tiny") / run_id


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("monoface: error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert "usage:" not in captured.err
    return lines[0]


def test_a_run_leaves_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_epochs=3") == 0
    assert {path.name for path in run().iterdir()} == {"config.yaml", "metrics.json", "preview.png", "checkpoints"}
    assert {path.name for path in (run() / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}
    metrics = json.loads((run() / "metrics.json").read_text())
    assert set(metrics) == {"initial", "final"}
    assert 0 < metrics["final"]["val/color_error"] < metrics["initial"]["val/color_error"]
    assert step_of(run() / "checkpoints/last.ckpt") == 12
    with Image.open(run() / "preview.png") as preview:
        assert preview.size[0] >= 2 * 100
    said = capsys.readouterr().out
    for name in ("config.yaml", "metrics.json", "preview.png", "checkpoints/last.ckpt"):
        assert str(run() / name) in said
    (row,) = [line for line in said.splitlines() if "val/color_error" in line]
    assert [float(number) for number in re.findall(r"\d\.\d+", row)] == pytest.approx(
        [metrics["initial"]["val/color_error"], metrics["final"]["val/color_error"]], rel=1e-3
    )


def test_final_metrics_are_those_of_the_last_step() -> None:
    # Validation runs after steps 3 and 6; training ends after step 7.
    assert fit("--trainer.max_steps=7", "--trainer.max_epochs=5", "--trainer.val_check_interval=3") == 0
    checkpoint = run() / "checkpoints/last.ckpt"
    assert step_of(checkpoint) == 7
    assert main(["validate", "--config", CONFIG, "--ckpt_path", str(checkpoint), "--run_id=b"]) == 0
    again = json.loads((run("b") / "metrics.json").read_text())["validate"]
    final = json.loads((run() / "metrics.json").read_text())["final"]
    assert again["val/color_error"] == pytest.approx(final["val/color_error"], rel=1e-5)


def test_the_saved_configuration_runs_the_same_again() -> None:
    assert fit("--trainer.max_epochs=2", "--model.init_args.weights.prior=0.01") == 0
    saved = yaml.safe_load((run() / "config.yaml").read_text())
    assert saved["model"]["init_args"]["weights"]["prior"] == 0.01
    assert saved["seed_everything"] == 0
    assert main(["fit", "--config", str(run() / "config.yaml"), "--run_id=b"]) == 0
    assert (run("b") / "metrics.json").read_text() == (run() / "metrics.json").read_text()


def test_the_run_id_is_the_time_by_default() -> None:
    assert fit(run_id="") == 0
    assert fit(run_id="") == 0
    names = [path.name for path in Path("runs/tiny").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{8}-\d{6}(-\d+)?", name) for name in names)


def test_data_size_reaches_the_model() -> None:
    assert fit("--data.init_args.size=6") == 0
    weight = torch.load(run() / "checkpoints/last.ckpt", weights_only=True)["state_dict"]["network.1.weight"]
    assert weight.shape == (8, 3 * 6 * 6)


def test_a_part_may_come_from_a_function(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("class_path: tests.conf.tiny.make_part\ninit_args: {prefix: ab, count: 2}\n")
    assert fit("--model.init_args.part=part.yaml", "--model.init_args.part.count=3") == 0
    part = yaml.safe_load((run() / "config.yaml").read_text())["model"]["init_args"]["part"]
    assert part == {"class_path": "tests.conf.tiny.make_part", "init_args": {"prefix": "ab", "count": 3}}
    module = load_module(run() / "checkpoints/last.ckpt", Trust(modules=("tests.conf.tiny",)))
    assert isinstance(module, TinyModule)
    assert module.part is not None
    assert module.part.name == "ababab"


def test_fast_dev_run_writes_nothing() -> None:
    assert fit("--trainer.fast_dev_run=true", run_id="") == 0
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.init_args.weights=3"], "weights"),
        (["--seed_everything=soon"], "seed_everything"),
        (["--trainer.devices=4096", "--trainer.accelerator=cuda"], "CUDA"),
        (["--model.init_args.face_model=missing"], "error: missing: no such face model"),
        (["--run_id=../../outside"], "--run_id"),
        (["--paper=null"], "--paper"),
        (["--wandb=maybe"], "wandb"),
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such file"),
        (["--runs_dir=/dev/null"], "/dev/null"),
        (["--data.init_args.unreadable=3"], "error: 3.jpg: not an image"),
        (["--data.init_args.unreadable=2", "--data.init_args.num_workers=1"], "error: 2.jpg: not an image"),
        (["--data.init_args.bad=2"], "step 0: image of the training batch 0, sample 2, holds NaN"),
        (["--model.init_args.diverge_at=0"], "step 0: the loss is not finite (terms: train/color)"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    unwritten = [] if any(argument.startswith("--run_id") for argument in arguments) else ["--run_id=a"]
    assert main(["fit", "--config", CONFIG, *unwritten, *arguments]) == 2
    assert said in complaint(capsys)
    assert not list(Path().iterdir())


def test_divergence_later_keeps_the_last_good_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--trainer.max_epochs=3", "--model.init_args.diverge_at=6") == 2
    assert "step 6: the loss is not finite (terms: train/color)" in complaint(capsys)
    contents = torch.load(run() / "checkpoints/last.ckpt", weights_only=True)
    assert contents["global_step"] == 4
    assert all(value.isfinite().all() for value in contents["state_dict"].values())
    assert set(json.loads((run() / "metrics.json").read_text())) == {"initial"}


def test_a_folder_with_a_run_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    before = (run() / "metrics.json").stat().st_mtime_ns
    assert fit() == 2
    assert "holds a run already" in complaint(capsys)
    assert (run() / "metrics.json").stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    assert fit("--trainer.max_epochs=3", "--model.init_args.interrupt_at=6") == 130
    assert signal.getsignal(signal.SIGINT) is handler
    told = capfd.readouterr().err
    assert "ends after this step" in told
    assert step_of(run() / "checkpoints/last.ckpt") == 7  # the step was done first
    initial = json.loads((run() / "metrics.json").read_text())["initial"]
    (line,) = [line for line in told.splitlines() if "go on with: " in line]
    command = line.split("python -m experiments ")[1].split()
    assert main([*command, "--model.init_args.interrupt_at=null"]) == 0
    assert "interrupt_at=6, the command says None" in capfd.readouterr().err
    assert [path.name for path in Path("runs/tiny").iterdir()] == ["a"]
    assert step_of(run() / "checkpoints/last.ckpt") == 12
    metrics = json.loads((run() / "metrics.json").read_text())
    assert metrics["initial"] == initial
    assert metrics["final"]["val/color_error"] < initial["val/color_error"]


def test_a_second_interrupt_ends_the_step_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step is in no checkpoint."""

    def insist(module: TinyModule, batch: Any, batch_idx: int) -> None:
        if module.global_step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            pytest.fail("the step went on")

    monkeypatch.setattr(TinyModule, "on_train_batch_start", insist)
    assert fit("--trainer.max_epochs=3") == 130
    assert step_of(run() / "checkpoints/last.ckpt") == 4


def test_an_interrupt_before_the_first_step_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyModule, "on_validation_start", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert fit() == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_weights_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    checkpoint = f"--ckpt_path={run() / 'checkpoints/last.ckpt'}"
    capsys.readouterr()
    assert fit(checkpoint, "--model.init_args.hidden=5", run_id="b") == 2
    captured = capsys.readouterr().err
    assert "trained with hidden=8, the command says 5" in captured
    assert "its weights do not fit this module: size mismatch" in captured
    assert fit(checkpoint, "--model.init_args.face_model=second", run_id="b") == 2
    assert "made for first, this run uses second" in complaint(capsys)
    assert not run("b").exists()


def test_evaluation_and_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    checkpoint = f"--ckpt_path={run() / 'checkpoints/last.ckpt'}"
    assert main(["test", "--config", CONFIG, checkpoint, "--run_id=t"]) == 0
    assert set(json.loads((run("t") / "metrics.json").read_text())["test"]) == {"test/color_error"}
    assert main(["predict", "--config", CONFIG, checkpoint, "--run_id=p"]) == 0
    with np.load(run("p") / "predictions.npz") as predictions:
        assert predictions["color"].shape == (16, 3)
    assert str(run("p") / "predictions.npz") in capsys.readouterr().out
    assert main(["validate", "--config", CONFIG]) == 0
    assert "never learnt anything" in capsys.readouterr().err
    (folder,) = Path("runs/tiny").glob("validate-*")
    assert set(json.loads((folder / "metrics.json").read_text())["validate"]) == {"val/color_error"}


def test_wandb_is_offline_and_never_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*_: object, **__: object) -> str:
        raise AssertionError("a prompt")

    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.setattr(getpass, "getpass", asked)
    assert fit("--wandb=null") == 0
    (folder,) = (run() / "wandb").glob("offline-run-*")
    # W&B's own process opens and closes the file.
    deadline = time.monotonic() + 20
    contents = b""
    while b"panels" not in contents and time.monotonic() < deadline:
        contents = b"".join(records.read_bytes() for records in folder.glob("run-*.wandb"))
        time.sleep(0.1)
    for name in (b"val/color_error", b"train/prior", b"lr-Adam", b"panels"):
        assert name in contents
    assert str(folder) in capsys.readouterr().out
    assert fit("--wandb=online", run_id="b") == 2
    assert "wandb login" in complaint(capsys)
    assert not run("b").exists()


def test_wandb_mode_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode(None) == "offline"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_mode(None) == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_mode(None) == "online"
    assert wandb_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="sometimes"):
        wandb_mode(None)


def test_differences_are_named_with_their_path() -> None:
    stored = {"part": "B", "arguments": {"x": 1, "weights": {"depth": 0.5, "pixel": 1}}}
    given = {"part": "B", "arguments": {"x": 2, "weights": {"depth": 0.5, "pixel": 2}, "new": True}}
    assert list(differences(stored, stored)) == []
    assert list(differences(stored, given)) == [
        "trained with x=1, the command says 2",
        "trained with weights.pixel=1, the command says 2",
        "trained with new=None, the command says True",
    ]


def test_help_of_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--run_id" in said
    assert "--trainer.max_epochs" in said
