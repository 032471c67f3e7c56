"""Runs as processes: what is reused, what goes on from its checkpoint, what is told of them."""

from __future__ import annotations

import argparse
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.training import run_pool
from experiments.training.run_pool import PooledRun, RunPool, is_done, last_line, positive, source_stamp
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "tests/conf/tiny.yaml"
STAMP = "stamp"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PooledRun:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fit = ("fit", "--config", str(CONFIG), "--run_id", "group/a", "--trainer.max_epochs=20")
    return PooledRun("the first", Path("runs/tiny/group/a"), fit)


@pytest.mark.parametrize("damaged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_from_its_checkpoint(run: PooledRun, damaged: bool) -> None:
    """From the one before where the last one is damaged."""

    def interrupted() -> None:
        with RunPool(run.path.parent, STAMP, jobs=1) as pool:
            pool.start(run)
            assert pool.active == [run] and not pool.has_room
            while not run.folder.previous_checkpoint.is_file():
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    reached = torch.load(run.folder.checkpoint, weights_only=True)["global_step"]
    assert 0 < reached < 80
    if damaged:
        run.folder.checkpoint.write_bytes(run.folder.checkpoint.read_bytes()[:1000])
    assert not is_done(run, STAMP)
    marker = run.folder.path / "marker"
    marker.touch()
    with RunPool(run.path.parent, STAMP, jobs=1) as pool:
        pool.start(run)
        while pool.active:
            time.sleep(0.05)
            ended = pool.ended()
    assert ended == [(run, True)]
    assert is_done(run, STAMP)
    assert marker.exists()
    assert torch.load(run.folder.checkpoint, weights_only=True)["global_step"] == 80
    told = "".join(run.log.read_text().split())  # wrapped anywhere
    assert ("tryingtheonebefore" in told) == damaged
    used = run.folder.previous_checkpoint if damaged else run.folder.checkpoint
    assert f"goingonfrom{used}" in told


def test_two_pools_never_work_on_the_same_runs(run: PooledRun) -> None:
    with (
        RunPool(run.path.parent, STAMP, jobs=1),
        pytest.raises(UserError, match="runs/tiny/group: another process is at work on these runs"),
        RunPool(run.path.parent, STAMP, jobs=1),
    ):
        pytest.fail("both work")
    with RunPool(run.path.parent, STAMP, jobs=1):
        pass  # it was given back


def test_a_run_that_outlived_its_pool_is_left_alone(run: PooledRun) -> None:
    run.folder.checkpoint.parent.mkdir(parents=True)
    run.folder.checkpoint.touch()
    with run.folder.held(), pytest.raises(UserError, match="another process is training in it"):
        run_pool.start(run, "another configuration", "1")
    assert run.folder.checkpoint.is_file()


class Started(Exception):
    """Carries the command that would have been run."""


def started(run: PooledRun, stamp: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, str]]:
    def popen(command: list[str], **options: Any) -> None:
        raise Started(command, options["env"])

    with monkeypatch.context() as patched:
        patched.setattr(run_pool, "current_commit", lambda: "abc1234")
        patched.setattr(subprocess, "Popen", popen)
        with pytest.raises(Started) as caught:
            run_pool.start(run, stamp, "1")
    return caught.value.args[0], caught.value.args[1]


def test_a_run_is_reused_only_for_the_same_command(run: PooledRun, monkeypatch: pytest.MonkeyPatch) -> None:
    command, environment = started(run, STAMP, monkeypatch)
    assert command[command.index("--run_id") + 1] == "group/a"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert not is_done(run, STAMP)
    run.folder.checkpoint.parent.mkdir(parents=True)
    run.folder.checkpoint.touch()
    run.folder.metrics.write_text('{"initial": {}}')
    assert not is_done(run, STAMP)
    command, _ = started(run, STAMP, monkeypatch)
    assert command[-2:] == ["--resume", "auto"]
    assert command[command.index("--run_id") + 1] == "group/a"
    run.folder.metrics.write_text('{"initial": {}, "final": {}}')
    assert is_done(run, STAMP)
    # Another command, or another configuration, starts afresh.
    other = replace(run, command=(*run.command, "--trainer.max_epochs=9"))
    assert not is_done(other, STAMP)
    assert not is_done(run, "another")
    command, _ = started(other, STAMP, monkeypatch)
    assert "--resume" not in command
    assert not run.folder.path.exists()


def test_the_stamp_follows_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "paper" / "default.yaml"
    config.parent.mkdir()
    config.write_text(f"{CONFIG.read_text()}\nface_model: ../shared/face_model.yaml\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "face_model.yaml").write_text("class_path: one")
    before = source_stamp(config)
    (shared / "of_another_paper.yaml").write_text("data: {}")
    assert source_stamp(config) == before
    (shared / "face_model.yaml").write_text("class_path: another")
    after = source_stamp(config)
    assert after != before
    config.write_text(config.read_text() + "# changed\n")
    assert source_stamp(config) not in (before, after)


def test_the_last_line_says_why(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("Traceback\nmonoface: error: no such file\n\n")
    assert last_line(log) == "no such file"
    log.write_text("")
    assert last_line(log) == "it ended without a word"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "three", ""])
def test_a_count_is_a_whole_number_from_one_on(text: str) -> None:
    assert positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 1"):
        positive(text)
