"""`prepare shards` as a user runs it, again and again, and a training on shards that is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from datamodules.preparation.prepared_folder import PhotoIndex
from datamodules.sharding.sharded_faces import ShardedFaces
from datamodules.sharding.shards import ShardFolder
from experiments.__main__ import main
from experiments.commands.prepare import shards
from renderers.io.errors import UserError
from tests.conf.tiny_papers import configuration, curve, write_configuration
from tests.datamodules.test_photo_folder import SIZE, prepared_folder

COUNT = 53


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepared_folder(tmp_path / "prepared", COUNT)
    return tmp_path / "prepared"


def prepare(prepared: Path, *more: str) -> int:
    out = prepared.with_name("shards")
    return main(["prepare", "shards", str(prepared), "--out", str(out), "--samples-per-shard", "10", *more])


def test_what_is_there_is_not_written_again(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepared.with_name("shards")
    assert prepare(prepared) == 0
    folder = ShardFolder.load(out)
    train, val = (folder.parts[part][1] for part in ("train", "val"))
    assert train + val == COUNT and val > 0 and folder.parts["test"] == ("val", val)
    written = sorted(path.name for path in out.iterdir())
    assert written == ["shards.json", *(f"train-{n:06d}.tar" for n in range(-(-train // 10))), "val-000000.tar"]
    assert "all of them new" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    lost = out / "train-000002.tar"
    content = lost.read_bytes()
    lost.write_bytes(content[:700])
    assert prepare(prepared) == 0
    assert f"{len(written) - 2} of them were there already" in capsys.readouterr().err
    assert lost.read_bytes() == content
    unchanged = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert {path.name for path in before.keys() - unchanged} == {"shards.json", lost.name}


def test_an_interrupted_command_goes_on(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = shards.write_shard, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments[0].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(shards, "write_shard", interrupted)
    assert prepare(prepared) == 130
    assert "2 of 6 shards are written; run the same command to go on" in capsys.readouterr().err
    out = prepared.with_name("shards")
    assert not ShardFolder.load(out).complete
    with pytest.raises(UserError, match="not written to the end"):
        ShardedFaces(str(out)).setup()
    (out / ".train-000003-x.tar").touch()  # what a killed process leaves
    assert prepare(prepared) == 0
    assert calls[2:] == ["train-000002.tar", "train-000002.tar", *calls[4:]] and len(calls) == 7
    assert ShardFolder.load(out).complete and not list(out.glob(".*"))


def test_mistakes_are_one_line_and_exit_code_2(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, empty = prepared.with_name("other"), prepared.with_name("empty")
    other.mkdir()
    (other / "letter.txt").touch()
    PhotoIndex(SIZE, "dlib", False, "s").save(empty)
    file = other / "letter.txt"
    cases = [
        ([str(other), "--out", str(empty / "x")], "is not a folder of prepared faces"),
        ([str(empty), "--out", str(empty / "x")], "holds no face"),
        ([str(prepared), "--out", str(prepared)], "is the prepared folder itself"),
        ([str(prepared), "--out", str(other)], "holds something else"),
        ([str(prepared), "--out", str(file)], "is a file, not a folder"),
        ([str(prepared), "--out", str(empty / "x"), "--samples-per-shard", "3"], "from 10 to 100000"),
        ([str(prepared), "--out", str(empty / "x"), "--val-fraction", "1"], "from 0 to below 1"),
    ]
    for arguments, said in cases:
        assert main(["prepare", "shards", *arguments]) == 2, arguments
        told = capsys.readouterr().err.strip()
        assert said in told, told
    assert prepare(prepared) == 0
    assert prepare(prepared, "--val-fraction", "0.3") == 2
    assert "from other faces or with other settings" in capsys.readouterr().err
    (prepared.with_name("shards") / "shards.json").write_text("{")
    assert prepare(prepared) == 2
    assert "shards.json is damaged" in capsys.readouterr().err


def test_a_damaged_face_is_named(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prepared / "skin" / "p7-0.png").unlink()
    assert prepare(prepared) == 2
    assert "p7-0.png is missing or damaged" in capsys.readouterr().err


class Interruption(Callback):
    """Ctrl-C at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_training_goes_on_at_the_next_sample(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch over several windows; the curve is that of a run without a break."""
    assert prepare(prepared) == 0
    monkeypatch.chdir(tmp_path)
    config = configuration("mgcnet", norm=True)
    init = {"root": "shards", "size": 32, "batch_size": 2, "num_workers": 1, "streams": 1}
    config["data"] = {"class_path": "datamodules.sharding.sharded_faces.ShardedFaces", "init_args": init}
    path = write_configuration(tmp_path / "config.yaml", config)
    for run, ends in (("whole", [0]), ("broken", [5, 0])):
        for end in ends:
            arguments = [
                "fit", "--config", path, f"--run_id={run}", "--resume=auto",
                "--trainer.callbacks+=tests.conf.tiny_papers.LossRecord", f"--trainer.callbacks.path={run}",
                f"--trainer.callbacks+={__name__}.Interruption", f"--trainer.callbacks.step={end}",
            ]  # fmt: skip
            assert main(arguments) == (130 if end else 0)
    expected = curve(tmp_path / "whole")
    assert len({loss for _, loss in expected}) == 10
    assert curve(tmp_path / "broken") == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in expected]
