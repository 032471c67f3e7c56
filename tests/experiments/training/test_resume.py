"""A run that is killed goes on as if it had never stopped; what is damaged is passed over."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from experiments.__main__ import main
from experiments.training.resuming import other_training
from renderers.io import atomic_file
from tests.conf.tiny_papers import PAPERS, Processes, configuration, curve, write_configuration

ROOT = Path(__file__).parents[3]
TINY = str(ROOT / "tests/conf/tiny.yaml")
STEPS = 10
RECORD = "tests.conf.tiny_papers.LossRecord"


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


def command(config: str, record: Path, *more: str, **arguments: int) -> list[str]:
    given = [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
    return [
        "fit", "--config", config, f"--trainer.callbacks+={RECORD}", f"--trainer.callbacks.path={record}", *given,
        *more,
    ]  # fmt: skip


def only_run(folder: Path, paper: str) -> Path:
    (run,) = (folder / "runs" / paper).iterdir()
    return run


def contents_of(checkpoint: Path) -> dict[str, Any]:
    contents: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return contents


def assert_same_end(first: Path, second: Path) -> None:
    """Weights, optimizers, schedules and random state of two checkpoints."""
    one, other = contents_of(first), contents_of(second)
    assert one["global_step"] == other["global_step"] == STEPS
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    for mine, its in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert mine["state"].keys() == its["state"].keys()
        for index, held in mine["state"].items():
            for name, value in held.items():
                torch.testing.assert_close(its["state"][index][name], value, rtol=1e-4, atol=1e-7)
    assert one["lr_schedulers"] == other["lr_schedulers"]
    for mine, its in zip(one["monoface_random"], other["monoface_random"], strict=True):
        assert torch.equal(mine["torch"], its["torch"])


@pytest.mark.parametrize("paper", PAPERS)
def test_a_killed_run_equals_one_that_was_not(tmp_path: Path, processes: Processes, paper: str) -> None:
    """SIGKILL in the middle of a step; the same command again."""
    config = write_configuration(tmp_path / "config.yaml", configuration(paper, norm=True))
    cache = {"MONOFACE_CACHE": str(tmp_path / "cache")}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    every = ["--checkpoint_every=2"]
    assert processes.run(whole, command(config, whole / "curve", *every), 1, **cache) == [0], (
        whole / "log0"
    ).read_text()
    kill_at = random.Random(paper).randrange(2, STEPS - 1)
    again = [*every, "--resume=auto"]
    died = processes.run(broken, command(config, broken / "curve", *again, kill_at=kill_at), 1, **cache)
    assert died == [-signal.SIGKILL], (broken / "log0").read_text()
    before = curve(broken / "curve")
    assert [step for step, _ in before] == list(range(1, kill_at + 1))
    assert processes.run(broken, command(config, broken / "curve", *again), 1, **cache) == [0], (
        broken / "log0"
    ).read_text()
    after = curve(broken / "curve")[len(before) :]
    # Checkpoints: every second step, the validations after steps 4 and 8, the ends of the epochs after 3, 6 and 9.
    last = max(step for step in (2, 3, 4, 6, 8, 9) if step <= kill_at)
    assert [step for step, _ in after] == list(range(last + 1, STEPS + 1))
    expected = dict(curve(whole / "curve"))
    assert len(set(expected.values())) == STEPS
    for step, loss in before + after:
        assert loss == pytest.approx(expected[step], rel=1e-5), step
    ends = [only_run(folder, paper) / "checkpoints/last.ckpt" for folder in (whole, broken)]
    assert_same_end(*ends)
    assert sorted(path.name for path in ends[1].parent.iterdir()) == ["last.ckpt", "previous.ckpt"]
    metrics = [yaml.safe_load((end.parents[1] / "metrics.json").read_text()) for end in ends]
    assert metrics[0].keys() == metrics[1].keys() == {"initial", "final"}
    for part, values in metrics[0].items():
        assert metrics[1][part] == pytest.approx(values, rel=1e-4, abs=1e-6), part
    assert "not resumable" not in (broken / "log0").read_text()


@pytest.mark.parametrize("first", [{"interrupt_at": 3}, {"interrupt_at": 4}, {"interrupt_at": 5}, 3, 4, 5])
def test_a_run_that_ended_early_goes_on_as_if_it_had_not(
    tmp_path: Path, processes: Processes, first: dict[str, int] | int
) -> None:
    """By Ctrl-C or by max_steps: at the end of an epoch (3, 6), at a validation (4) and in between (5)."""
    contents = configuration("mgcnet", norm=True)
    contents["model"]["init_args"]["schedule"] = "constant"  # the other one is made for a number of steps
    config = write_configuration(tmp_path / "config.yaml", contents)
    cache = {"MONOFACE_CACHE": str(tmp_path / "cache")}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert processes.run(whole, command(config, whole / "curve"), 1, **cache) == [0]
    resumed = ["--resume=auto", "--run_id=one"]
    if isinstance(first, dict):
        steps, begun, code = first["interrupt_at"] + 1, command(config, broken / "curve", *resumed, **first), 130
    else:
        steps, begun, code = first, command(config, broken / "curve", *resumed, f"--trainer.max_steps={first}"), 0
    assert processes.run(broken, begun, 1, **cache) == [code], (broken / "log0").read_text()
    assert [step for step, _ in curve(broken / "curve")] == list(range(1, steps + 1))
    assert processes.run(broken, command(config, broken / "curve", *resumed), 1, **cache) == [0]
    expected = dict(curve(whole / "curve"))
    lived = curve(broken / "curve")
    assert [step for step, _ in lived] == list(range(1, STEPS + 1))
    for step, loss in lived:
        assert loss == pytest.approx(expected[step], rel=1e-5), step
    assert_same_end(*(only_run(folder, "mgcnet") / "checkpoints/last.ckpt" for folder in (whole, broken)))


@pytest.mark.slow
def test_nothing_is_lost_in_twenty_kills(tmp_path: Path, processes: Processes) -> None:
    config = configuration("mgcnet", norm=True)
    config["trainer"] |= {"max_steps": 60, "val_check_interval": 25}
    path = write_configuration(tmp_path / "config.yaml", config)
    cache = {"MONOFACE_CACHE": str(tmp_path / "cache")}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert processes.run(whole, command(path, whole / "curve"), 1, **cache) == [0]
    chance = random.Random(0)
    for _ in range(20):
        life = command(path, broken / "curve", "--checkpoint_every=2", "--resume=auto", lives=chance.randrange(3, 5))
        assert processes.run(broken, life, 1, **cache) == [-signal.SIGKILL]
    assert processes.run(broken, command(path, broken / "curve", "--resume=auto"), 1, **cache) == [0]
    expected, lived = dict(curve(whole / "curve")), curve(broken / "curve")
    assert {step for step, _ in lived} == set(expected) == set(range(1, 61))
    assert len(lived) > 60  # what was killed between two checkpoints was done again
    for step, loss in lived:
        assert loss == pytest.approx(expected[step], rel=1e-5), step


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments: str) -> int:
    return main(["fit", "--config", TINY, *arguments])


def step_of(checkpoint: Path) -> int:
    return int(contents_of(checkpoint)["global_step"])


def test_auto_means_the_newest_run_of_this_configuration(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--resume=auto", "--run_id=a") == 0
    assert "nothing to go on from yet" in capsys.readouterr().err
    assert fit("--run_id=b", "--model.init_args.hidden=5") == 0
    assert fit("--run_id=c", "--seed_everything=4") == 0
    assert fit("--resume=auto", "--trainer.max_epochs=2") == 0
    assert "going on from runs/tiny/a/checkpoints/last.ckpt" in capsys.readouterr().err
    runs = Path("runs/tiny")
    assert {run.name: step_of(run / "checkpoints/last.ckpt") for run in runs.iterdir()} == {"a": 8, "b": 4, "c": 4}
    # A run that is named is gone on with whatever it holds.
    assert fit("--resume=auto", "--run_id=c", "--trainer.max_epochs=3") == 0
    assert step_of(runs / "c/checkpoints/last.ckpt") == 12
    assert fit("--resume=runs/tiny/b", "--model.init_args.hidden=5", "--trainer.max_epochs=2") == 0
    assert step_of(runs / "b/checkpoints/last.ckpt") == 8
    assert fit("--resume=auto", "--seed_everything=9") == 0
    assert len(list(runs.iterdir())) == 4


def test_a_run_goes_on_by_the_name_that_it_printed(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    name = Path(line.split()[1]).name
    for resume, epochs in ((name, 2), (f"runs/tiny/{name}", 3), (f"runs/tiny/{name}/checkpoints/last.ckpt", 4)):
        assert fit(f"--resume={resume}", f"--trainer.max_epochs={epochs}") == 0
        assert step_of(Path("runs/tiny") / name / "checkpoints/last.ckpt") == 4 * epochs
    assert [run.name for run in Path("runs/tiny").iterdir()] == [name]


def test_a_run_that_ended_is_left_as_it_is(elsewhere: Path) -> None:
    assert fit("--run_id=a", "--trainer.max_epochs=2") == 0
    weights = contents_of(Path("runs/tiny/a/checkpoints/last.ckpt"))["state_dict"]
    metrics = Path("runs/tiny/a/metrics.json").read_text()
    assert fit("--resume=auto", "--trainer.max_epochs=2") == 0
    assert [run.name for run in Path("runs/tiny").iterdir()] == ["a"]
    torch.testing.assert_close(
        contents_of(Path("runs/tiny/a/checkpoints/last.ckpt"))["state_dict"], weights, rtol=0, atol=0
    )
    again = yaml.safe_load(Path("runs/tiny/a/metrics.json").read_text())
    assert again["final"] == pytest.approx(yaml.safe_load(metrics)["final"])


def test_a_named_run_without_a_checkpoint_starts_over(elsewhere: Path) -> None:
    folder = Path("runs/tiny/a")
    folder.mkdir(parents=True)
    (folder / "left.over").touch()
    assert fit("--resume=auto", "--run_id=a") == 0
    assert step_of(folder / "checkpoints/last.ckpt") == 4
    assert not (folder / "left.over").exists()


@pytest.mark.parametrize("damage", ["half", "nothing", "a changed byte"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    assert fit("--run_id=a", "--trainer.max_epochs=3") == 0
    last = Path("runs/tiny/a/checkpoints/last.ckpt")
    whole = contents_of(last)
    assert step_of(last.with_name("previous.ckpt")) == 8
    spoil(last, damage)
    capsys.readouterr()
    assert fit("--resume=auto", "--trainer.max_epochs=3") == 0
    told = capsys.readouterr().err
    (warning,) = [line for line in told.splitlines() if "warning" in line]
    assert "last.ckpt: damaged" in warning and "trying the one before" in warning
    assert "going on from runs/tiny/a/checkpoints/previous.ckpt" in told
    again = contents_of(last)
    assert again["global_step"] == 12
    torch.testing.assert_close(dict(again["state_dict"]), dict(whole["state_dict"]), rtol=1e-5, atol=1e-7)


def spoil(path: Path, damage: str) -> None:
    held = bytearray(path.read_bytes())
    if damage == "a changed byte":
        weight = contents_of(path)["state_dict"]["network.1.weight"].numpy().tobytes()
        held[bytes(held).index(weight) + 5] ^= 255
    path.write_bytes(bytes(held) if damage == "a changed byte" else bytes(held)[: len(held) // 2 * (damage == "half")])


def test_every_checkpoint_damaged_is_said(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run_id=a", "--trainer.max_epochs=2") == 0
    for path in Path("runs/tiny/a/checkpoints").iterdir():
        path.write_bytes(b"")
    assert fit("--resume=auto") == 2
    assert "every checkpoint in it is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume=nowhere"], "nowhere: no such file"),
        (["--resume=."], "--resume .: there is no checkpoint in it"),
        (["--resume=auto", "--ckpt_path=a.ckpt"], "give one of them"),
    ],
)
def test_a_wrong_resume_is_one_line(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert fit(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def test_the_training_of_an_older_version_is_refused_with_a_remedy(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--run_id=a") == 0
    last, config = Path("runs/tiny/a/checkpoints/last.ckpt"), Path("runs/tiny/a/config.yaml")
    spoil_training(last, lambda held: held["optimizer_states"].pop())
    before = last.read_bytes(), config.read_text()
    capsys.readouterr()
    assert fit("--resume=a", "--trainer.max_epochs=2") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "the states of 0 optimizers, and this run has 1" in line
    assert f"--model.init_args.init_weights={last}" in line
    assert (last.read_bytes(), config.read_text()) == before
    assert fit(f"--model.init_args.init_weights={last}", "--run_id=b") == 0  # the remedy


def spoil_training(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    held = contents_of(checkpoint)
    change(held)
    torch.save(held, checkpoint)


def test_weights_of_an_older_version_are_refused_with_a_remedy(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--run_id=a") == 0
    spoil_training(
        Path("runs/tiny/a/checkpoints/last.ckpt"), lambda held: held["state_dict"].update(old=torch.zeros(3))
    )
    capsys.readouterr()
    assert fit("--resume=auto", "--trainer.max_epochs=2") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert 'Unexpected key(s) in state_dict: "old"' in line and "leave out --resume" in line


def stepped(kind: type[torch.optim.Optimizer], *shapes: tuple[int, ...]) -> torch.optim.Optimizer:
    """An optimizer of parameters of these shapes after a step."""
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = kind(parameters, lr=0.1)  # type: ignore[call-arg]
    torch.stack([parameter.square().sum() for parameter in parameters]).sum().backward()
    optimizer.step()
    return optimizer


def test_training_states_that_do_not_fit_are_told() -> None:
    adam, sgd = torch.optim.Adam, torch.optim.SGD
    run = [stepped(adam, (3,), (2, 2)), stepped(adam, (4,))]
    whole = {"optimizer_states": [one.state_dict() for one in run], "lr_schedulers": [{}], "loops": {}}

    def told(*written: torch.optim.Optimizer, **more: Any) -> str | None:
        return other_training({**whole, "optimizer_states": [one.state_dict() for one in written], **more}, run, 1)

    assert told(*run) is None
    assert "states of 1 optimizers, and this run has 2" in str(told(run[0]))
    assert "states of 3 optimizers, and this run has 2" in str(told(*run, run[0]))
    assert "0 schedules of the learning rate, and this run has 1" in str(told(*run, lr_schedulers=[]))
    for other in (stepped(adam, (4,), (4,)), stepped(adam, (5,)), stepped(sgd, (4,))):
        assert "optimizer 2 is of another optimizer, or of other parameters" in str(told(run[0], other))
    assert "weights alone" in str(other_training({"state_dict": {}}, run, 1))
    for group in whole["optimizer_states"][1]["param_groups"]:  # as an older torch writes it
        del group["fused"]
    assert other_training(whole, run, 1) is None


def test_auto_says_why_it_goes_on_with_no_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--run_id=a") == 0
    config = Path("runs/tiny/a/config.yaml")
    config.write_text(config.read_text().replace("    diverge_at: null\n", ""))  # an argument that came later
    assert fit("--resume=auto", "--model.init_args.hidden=5") == 0
    told = capsys.readouterr().err
    assert "the newest one, runs/tiny/a, was trained with model.init_args.hidden=8, the command says 5" in told
    assert "go on with it by --resume runs/tiny/a" in told


def test_a_save_that_is_cut_off_leaves_both_checkpoints(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a save: what was there is there still."""
    assert fit("--run_id=a", "--trainer.max_epochs=2") == 0
    folder = Path("runs/tiny/a/checkpoints")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save = torch.save

    def cut_off(contents: object, file: Any, *rest: Any, **options: Any) -> None:
        if "optimizer_states" in dict(contents):  # type: ignore[call-overload]
            raise OSError(28, "No space left on device")
        save(contents, file, *rest, **options)

    monkeypatch.setattr(torch, "save", cut_off)
    assert fit("--resume=auto", "--trainer.max_epochs=3") == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_save_left_is_cleared_away(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit("--run_id=a") == 0
    half = Path(f"runs/tiny/a/checkpoints/.last{atomic_file.MARK}half.ckpt")
    half.write_bytes(b"half")
    os.utime(half, (1e9, 1e9))
    monkeypatch.setattr(atomic_file, "_cleared", set())  # as in a new process
    assert fit("--resume=auto", "--trainer.max_epochs=2") == 0
    assert not half.exists()


def test_numpy_and_python_go_on_where_they_were(elsewhere: Path) -> None:
    from experiments.training.random_state import part_random_state, random_state, restore_random_state

    def draws() -> tuple[float, float, float, float]:
        uniform, normal = np.random.rand(), np.random.standard_normal()  # noqa: NPY002
        return float(torch.rand(())), float(uniform), float(normal), random.random()

    draws()
    torch.save(random_state(), "state")
    first = draws()
    draws()
    restore_random_state(torch.load("state", weights_only=True))
    assert draws() == first
    restore_random_state(torch.load("state", weights_only=True))
    part_random_state(1)
    assert all(mine != its for mine, its in zip(draws(), first, strict=True))
