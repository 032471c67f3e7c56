"""A run's folder is one run's alone, whoever else starts, goes on or kills at the same moment."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.training import run_folder
from experiments.training.callbacks import SharedFolder
from experiments.training.run_folder import RunFolder, choose_folder, make_folder
from renderers.io.errors import UserError
from tests.conf.tiny import TinyModule

CONFIG = str(Path(__file__).parents[2] / "conf/tiny.yaml")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_many_runs_of_one_second_get_a_folder_each() -> None:
    wanted = RunFolder(Path("runs/tiny/20260101-000000"))
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: make_folder(wanted, may_differ=True).path.name, range(64)))
    expected = {wanted.path.name, *(f"{wanted.path.name}-{count}" for count in range(2, 65))}
    assert len(made) == 64 and set(made) == expected


def test_a_name_that_was_given_is_had_once() -> None:
    wanted = RunFolder(Path("runs/tiny/a"))

    def make(_: int) -> bool:
        try:
            return make_folder(wanted, may_differ=False) == wanted
        except UserError as error:
            assert "holds a run already" in str(error)
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(make, range(64))) == 1


def test_a_folder_that_cannot_be_made_is_no_endless_search(elsewhere: Path) -> None:
    (elsewhere / "runs").symlink_to("nowhere")
    with pytest.raises(UserError, match="runs/tiny: no folder of a new name"):
        make_folder(RunFolder(Path("runs/tiny/a")), may_differ=True)


def test_the_folder_is_kept_while_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built, and against a second process that would go on with a run that has not ended."""
    told = []
    build = TinyModule.__init__

    @functools.wraps(build)
    def build_and_try(self: TinyModule, *arguments: Any, **named: Any) -> None:
        (folder,) = Path("runs/tiny").iterdir()
        with pytest.raises(UserError) as caught, RunFolder(folder).held():
            pytest.fail("two processes hold one folder")
        told.append(str(caught.value))
        build(self, *arguments, **named)

    monkeypatch.setattr(TinyModule, "__init__", build_and_try)
    assert main(["fit", "--config", CONFIG]) == 0
    (folder,) = Path("runs/tiny").iterdir()
    assert told == [f"{folder}: another process is training in it: wait until it ends, or stop it"]
    assert not (folder / run_folder.LOCK).exists()


def test_a_run_that_goes_on_elsewhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", CONFIG, "--run_id=a"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs/tiny/a").rglob("*.*")}
    with RunFolder(Path("runs/tiny/a")).held():
        assert main(["fit", "--config", CONFIG, "--resume=auto", "--trainer.max_epochs=2"]) == 2
    assert "runs/tiny/a: another process is training in it" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(["fit", "--config", CONFIG, "--resume=auto", "--trainer.max_epochs=2"]) == 0


def test_what_is_kept_and_stays_empty_goes_away() -> None:
    folder = make_folder(RunFolder(Path("runs/tiny/group/a")), may_differ=False)
    with pytest.raises(KeyboardInterrupt), folder.held():
        raise KeyboardInterrupt
    assert not Path("runs").exists()


def test_clearing_leaves_what_a_link_leads_to(elsewhere: Path) -> None:
    (elsewhere / "photos").mkdir()
    (elsewhere / "photos/me.jpg").touch()
    folder = make_folder(RunFolder(Path("runs/tiny/a")), may_differ=False)
    with folder.held():
        (folder.path / "link").symlink_to(elsewhere / "photos")
        (folder.path / "wandb/run").mkdir(parents=True)
        folder.clear()
        assert [path.name for path in folder.path.iterdir()] == [run_folder.LOCK]
    assert (elsewhere / "photos/me.jpg").exists()


def test_every_process_learns_the_folder_of_the_first() -> None:
    first, other = (choose_folder(Path("runs"), "tiny", None, prefix) for prefix in ("a-", "b-"))

    def broadcast(mine: str) -> str:
        return str(first.path)  # as torch.distributed does from rank 0

    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(broadcast=broadcast))
    for folder in (first, other):
        SharedFolder(folder).setup(trainer, SimpleNamespace(), "fit")  # type: ignore[arg-type]
    assert other.checkpoint == first.checkpoint
