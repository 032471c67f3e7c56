"""Sweeps: what sweep.yaml draws, how a local one trains, stops, goes on, and what it leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from experiments.__main__ import main
from experiments.commands.sweep import local
from experiments.commands.sweep.leaderboard import Entry, Leaderboard, read_history, short_names
from experiments.commands.sweep.local import falling_behind, plan_run, settings_digest, settle, sweep_locally
from experiments.commands.sweep.picture import axes_of, draw_picture, make_axis
from experiments.commands.sweep.spec import SweepSpec, draw, read_spec
from experiments.training import run_pool
from experiments.training.run_folder import write_json
from experiments.training.run_pool import PooledRun
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[3]
PAPERS = sorted(path.parent.name for path in ROOT.glob("experiments/*/default.yaml"))
LR = "model.init_args.optimizer.init_args.lr"
HIDDEN = "model.init_args.hidden"
TREE: dict[str, Any] = {
    "project": "monoface",
    "method": "bayes",
    "metric": {"name": "val/color_error", "goal": "minimize"},
    "command": [
        *("${env}", "python", "-m", "experiments", "fit", f"--config={ROOT / 'tests/conf/tiny.yaml'}"),
        *("--wandb=online", "--trainer.max_epochs=2", "${args}"),
    ],
    "parameters": {
        LR: {"distribution": "log_uniform_values", "min": 1e-3, "max": 0.1},
        HIDDEN: {"values": [4, 8, 16]},
    },
}


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper whose sweep trains the tiny module."""
    folder = tmp_path / "papers" / "tiny"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(TREE, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


def changed(paper: Path, **keys: Any) -> SweepSpec:
    (paper / "sweep.yaml").write_text(yaml.safe_dump({**TREE, **keys}, sort_keys=False))
    return read_spec(str(paper))


def board_of(spec: SweepSpec, *values: float | None) -> Leaderboard:
    """A leaderboard with a finished run for each value, one that failed for None."""
    board = Leaderboard(Path("runs/tiny/sweep"), spec, "settings")
    for index, value in enumerate(values):
        entry = board.add({LR: 1e-3 * 2**index, HIDDEN: 4 * 2 ** (index % 3)})
        entry.state, entry.value = ("failed", None) if value is None else ("finished", value)
    return board


class TestShippedSweeps:
    @pytest.mark.parametrize("name", PAPERS)
    def test_a_drawn_command_is_one_that_fit_takes(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """The first and a later draw, read by the real command line, arrive where they should."""
        spec = read_spec(name)
        table = yaml.safe_load((ROOT / "experiments" / name / "table.yaml").read_text())
        assert spec.metric in [*table["metrics"], "val/nme"]
        drawn = draw(spec, [])
        assert drawn is not None
        assert set(drawn) == set(spec.parameters)
        command = plan_run(spec, Entry("run_001", drawn), Path("runs")).command
        assert main([*command, "--print_config"]) == 0
        config = yaml.safe_load(capsys.readouterr().out)
        for dotted, value in drawn.items():
            found = config
            for part in dotted.split("."):
                found = found[part]
            assert found == value, dotted
        assert config["wandb"] == "disabled"
        assert config["trainer"]["max_steps"] == 200
        assert config["trainer"]["callbacks"][0]["init_args"]["path"] == f"runs/{name}/sweep/run_001/history.jsonl"

    @pytest.mark.parametrize("name", PAPERS)
    def test_draws_stay_within_their_bounds(self, name: str) -> None:
        spec = read_spec(name)
        random_search = SweepSpec(spec.folder, {**spec.tree, "method": "random"}, spec.words, spec.config)
        seen: dict[str, set[Any]] = {parameter: set() for parameter in spec.parameters}
        for index in range(20):
            drawn = draw(random_search, [None] * index)
            assert drawn is not None
            for parameter, value in drawn.items():
                seen[parameter].add(value)
                bounds = spec.tree["parameters"][parameter]
                assert value in bounds["values"] if "values" in bounds else bounds["min"] <= value <= bounds["max"]
        assert all(len(values) > 1 for values in seen.values())


class TestSpec:
    def test_a_command_gets_what_was_drawn(self, paper: Path) -> None:
        spec = read_spec(str(paper))
        words = spec.command({LR: 0.01, HIDDEN: 4})
        assert words[:3] == ("fit", f"--config={ROOT / 'tests/conf/tiny.yaml'}", "--wandb=online")
        assert words[-2:] == (f"--{LR}=0.01", f"--{HIDDEN}=4")

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"metric": None}, "is not of type|None"),
            ({"method": "guess"}, "guess"),
            ({"parameters": {LR: {"min": 2, "max": 1}}}, "max"),
            ({"command": ["python", "train.py", "${args}"]}, "expected ... -m experiments fit"),
            ({"command": ["fit", "--config=nowhere.yaml", "${args}"]}, r"nowhere.yaml: no such file"),
        ],
    )
    def test_a_wrong_sweep_is_named(self, paper: Path, keys: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=said):
            changed(paper, **keys)

    def test_a_file_that_is_no_sweep(self, paper: Path) -> None:
        with pytest.raises(UserError, match=r"no sweep.yaml there; papers with one: finegrained, mgcnet"):
            read_spec("nobody")
        (paper / "sweep.yaml").write_text("[")
        with pytest.raises(UserError, match="not YAML"):
            read_spec(str(paper))
        (paper / "sweep.yaml").write_text("method: random")
        with pytest.raises(UserError, match="expected the keys"):
            read_spec(str(paper))

    def test_the_engine_may_be_missing(self, paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sweeps", None)
        with pytest.raises(UserError, match=r"install the launch extra"):
            read_spec(str(paper))


class TestDraws:
    def test_the_same_again_for_the_same_results(self, paper: Path) -> None:
        spec = read_spec(str(paper))
        runs = board_of(spec, 0.3, 0.2, None).engine_runs()
        first = draw(spec, runs)
        np.random.default_rng().random()
        assert draw(spec, runs) == first != draw(spec, [])

    def test_bayes_goes_where_the_results_are_good(self, paper: Path) -> None:
        spec = changed(paper, parameters={LR: {"distribution": "log_uniform_values", "min": 1e-3, "max": 1.0}})
        board = Leaderboard(Path("runs/tiny/sweep"), spec, "settings")
        for rate in np.geomspace(1e-3, 1.0, 13):
            entry = board.add({LR: float(rate)})
            entry.state, entry.value = "finished", abs(np.log10(rate) + 2.0)
        drawn = draw(spec, board.engine_runs())
        assert drawn is not None
        assert 3e-3 < drawn[LR] < 3e-2

    def test_a_grid_ends(self, paper: Path) -> None:
        spec = changed(paper, method="grid", parameters={HIDDEN: {"values": [4, 8]}})
        board = Leaderboard(Path("runs/tiny/sweep"), spec, "settings")
        seen = []
        while (drawn := draw(spec, board.engine_runs())) is not None:
            board.add(drawn)
            seen.append(drawn[HIDDEN])
        assert sorted(seen) == [4, 8]


class TestLeaderboard:
    def test_the_best_first_by_the_goal(self, paper: Path) -> None:
        board = board_of(read_spec(str(paper)), 0.3, None, 0.1)
        assert [entry.name for entry in board.ranked()] == ["run_003", "run_001", "run_002"]
        board.write()
        again = Leaderboard(board.folder, board.spec, "settings")
        assert again.entries == board.entries
        text = board.markdown.read_text()
        assert text.splitlines()[2] == "| 1 | run_003 | finished | 0.1 | 0.004 | 16 |"
        assert f'make train-tiny ARGS="--{LR}=0.004 --{HIDDEN}=16"' in text
        up = changed(paper, metric={"name": "val/color_error", "goal": "maximize"})
        assert Leaderboard(board.folder, up, "settings").ranked()[0].name == "run_001"

    def test_runs_of_other_settings_are_not_mixed_in(self, paper: Path) -> None:
        spec = read_spec(str(paper))
        before = settings_digest(spec)
        board = board_of(spec, 0.3)
        board.settings = before
        board.write()
        after = settings_digest(changed(paper, method="random"))
        assert after != before
        with pytest.raises(UserError, match=r"holds a sweep with other settings .* move that folder away"):
            Leaderboard(board.folder, spec, after)

    def test_short_names_still_tell_apart(self) -> None:
        names = ["model.optimizer.lr", "model.weights.depth", "model.discriminator.lr", "size"]
        assert list(short_names(names).values()) == ["optimizer.lr", "depth", "discriminator.lr", "size"]

    def test_a_history_leaves_out_a_half_line(self, tmp_path: Path) -> None:
        path = tmp_path / "history.jsonl"
        assert read_history(path) == []
        path.write_text('{"step": 4, "a": 1}\n{"step": 0, "a": 2}\n{"step": 4, "a": 3}\n{"step": 8, "a"')
        assert read_history(path) == [{"step": 0, "a": 2}, {"step": 4, "a": 3}]


class TestPicture:
    def test_axes_keep_order_and_scale(self, paper: Path) -> None:
        logarithmic = make_axis("lr", [1e-3, 1e-1, 1e-2], logarithmic=True)
        assert logarithmic.positions == pytest.approx((0.0, 1.0, 0.5))
        assert [text for _, text in logarithmic.ticks] == ["0.001", "0.00316", "0.01", "0.0316", "0.1"]
        words = make_axis("on", [True, False, True])
        assert words.positions[0] == words.positions[2] != words.positions[1]
        assert make_axis("same", [2.0, 2.0]).positions == (0.5, 0.5)
        axes = axes_of(board_of(read_spec(str(paper)), 0.3, None, 0.1))
        assert [axis.title for axis in axes] == ["lr", "hidden", "val/color_error"]
        assert axes[-1].positions == (0.0, 1.0)

    def test_every_run_with_a_value_is_drawn(self, paper: Path) -> None:
        spec = read_spec(str(paper))
        drawn = []
        for values in ((0.3, 0.1), (0.3, None)):
            path = Path(f"{len(drawn)}.png")
            draw_picture(board_of(spec, *values), path)
            with Image.open(path) as picture:
                drawn.append(np.asarray(picture.convert("RGB")).astype(int))
        colored = [(np.ptp(picture, axis=2) > 40).sum() for picture in drawn]
        assert colored[0] > 1.5 * colored[1] > 0


class TestLocal:
    def test_two_runs_and_a_third_later(
        self, paper: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = ["sweep", str(paper), "--local", "--jobs", "2"]
        assert main([*command, "--runs", "2"]) == 0
        folder = Path("runs/tiny/sweep")
        board = json.loads((folder / "leaderboard.json").read_text())
        assert [run["state"] for run in board["runs"]] == ["finished", "finished"]
        values = [run["value"] for run in board["runs"]]
        assert values == sorted(values)
        for run in board["runs"]:
            metrics = json.loads((folder / run["name"] / "metrics.json").read_text())
            assert metrics["final"]["val/color_error"] == run["value"] == run["metrics"]["val/color_error"]
            saved = yaml.safe_load((folder / run["name"] / "config.yaml").read_text())
            assert saved["model"]["init_args"]["optimizer"]["init_args"]["lr"] == run["parameters"][LR]
            assert saved["model"]["init_args"]["hidden"] == run["parameters"][HIDDEN]
            history = read_history(folder / run["name"] / "history.jsonl")
            assert [validation["step"] for validation in history] == [0, 4, 8]
            assert history[0]["val/color_error"] == metrics["initial"]["val/color_error"]
            assert history[-1]["val/color_error"] == run["value"]
        said = capsys.readouterr().out
        for name in ("leaderboard.md", "leaderboard.json", "parallel_coordinates.png"):
            assert str(folder / name) in said
            assert (folder / name).is_file()
        # Nothing is run again.
        monkeypatch.setattr(local.RunPool, "start", lambda pool, run: pytest.fail(run.name))
        assert main([*command, "--runs", "2"]) == 0

    def fake(self, monkeypatch: pytest.MonkeyPatch, outcomes: list[bool | None]) -> list[str]:
        """Runs end at once: True well, False badly, None with an interrupt. The names of those started."""
        started: list[str] = []

        def start(pool: Any, run: PooledRun) -> None:
            started.append(run.name)
            pool._active[len(started)] = (run, SimpleNamespace())

        def ended(pool: Any) -> list[tuple[PooledRun, bool]]:
            ((run, _),) = pool._active.values()
            outcome = outcomes.pop(0)
            if outcome is None:
                raise KeyboardInterrupt
            pool._active.clear()
            run.path.mkdir(parents=True, exist_ok=True)
            run.log.write_text("monoface: error: the loss is not finite\n")
            write_json(run.folder.metrics, {"final": {"val/color_error": 0.1 * len(started)}} if outcome else {})
            return [(run, outcome)]

        monkeypatch.setattr(local.RunPool, "start", start)
        monkeypatch.setattr(local.RunPool, "ended", ended)
        monkeypatch.setattr(run_pool, "_stop", lambda _: None)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        return started

    def test_an_interrupt_goes_on_with_the_run_that_was_under_way(
        self, paper: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = read_spec(str(paper))
        started = self.fake(monkeypatch, [True, None])
        with pytest.raises(KeyboardInterrupt):
            sweep_locally(spec, 4, 1, Path("runs"))
        assert started == ["run_001", "run_002"]
        interrupted = Leaderboard(Path("runs/tiny/sweep"), spec, settings_digest(spec)).entries[1]
        assert interrupted.state == "running"
        started = self.fake(monkeypatch, [True, True, True])
        board = sweep_locally(spec, 4, 1, Path("runs"))
        assert started == ["run_002", "run_003", "run_004"]
        assert board.entries[1].parameters == interrupted.parameters
        assert {entry.state for entry in board.entries} == {"finished"}

    def test_a_failed_run_does_not_end_the_sweep_and_is_tried_again(
        self, paper: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = read_spec(str(paper))
        self.fake(monkeypatch, [False, True])
        board = sweep_locally(spec, 2, 1, Path("runs"))
        assert [(entry.state, entry.reason) for entry in board.entries] == [
            ("failed", "the loss is not finite"),
            ("finished", ""),
        ]
        assert self.fake(monkeypatch, [True]) == []
        assert sweep_locally(spec, 2, 1, Path("runs")).entries[0].state == "finished"

    def test_a_sweep_in_which_all_fails_stops(self, paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started = self.fake(monkeypatch, [False] * 5)
        with pytest.raises(UserError, match=r"3 runs in a row failed, the last: the loss is not finite"):
            sweep_locally(read_spec(str(paper)), 5, 1, Path("runs"))
        assert len(started) == 3

    def test_a_run_without_the_metric_failed(self, paper: Path) -> None:
        board = board_of(read_spec(str(paper)), 0.3)
        run = plan_run(board.spec, board.entries[0], Path("runs"))
        run.path.mkdir(parents=True)
        write_json(run.folder.metrics, {"final": {"val/other": 1.0, "val/color_error": None}})
        settle(board, board.entries[0], run, "finished")
        assert board.entries[0].state == "failed"
        assert board.entries[0].reason == "it has no finite val/color_error; it has val/other, val/color_error"

    def test_hyperband_stops_the_worse_half(self, paper: Path) -> None:
        """Four runs after their first validation: of those under way the two above the median are stopped."""
        early = {"type": "hyperband", "min_iter": 1, "eta": 2}
        errors = {"run_001": 0.4, "run_002": 0.1, "run_003": 0.3, "run_004": 0.2}
        for spec, wanted in (
            (changed(paper, early_terminate=early), ["run_001"]),
            (read_spec(str(paper)), ["run_001"]),
            (changed(paper), []),
        ):
            shutil.rmtree("runs", ignore_errors=True)
            board = board_of(spec, *errors.values())
            active = []
            for entry in board.entries:
                run = plan_run(spec, entry, Path("runs"))
                run.path.mkdir(parents=True)
                lines = [{"step": 0, "val/color_error": 0.5}, {"step": 4, "val/color_error": errors[entry.name]}]
                local.history_path(run).write_text("\n".join(map(json.dumps, lines)))
                if entry.name in ("run_001", "run_002"):
                    entry.state, entry.value = "running", None
                    active.append(run)
            stopped = falling_behind(board, active)
            assert [run.name for run in stopped] == wanted
            for run in stopped:
                settle(board, board.entries[0], run, "stopped")
                assert (board.entries[0].state, board.entries[0].value) == ("stopped", 0.4)


class TestOnline:
    def test_without_an_account_it_says_what_to_do(
        self, paper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(paper))
        assert main(["sweep", str(paper)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "wandb login" in line and "LOCAL=1" in line

    def test_the_sweep_is_registered_and_an_agent_works_on_it(
        self, paper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import wandb

        sent: dict[str, Any] = {}
        ran: list[Any] = []

        def register(tree: dict[str, Any], entity: str, project: str) -> str:
            sent.update(tree=tree, entity=entity, project=project)
            return "abc123"

        def agent(command: list[str], **options: Any) -> SimpleNamespace:
            ran.append((command, options))
            return SimpleNamespace(returncode=0)

        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_ENTITY", "team")
        monkeypatch.setattr(wandb, "sweep", register)
        monkeypatch.setattr(subprocess, "run", agent)
        assert main(["sweep", str(paper), "--runs", "3"]) == 0
        assert sent == {"tree": TREE, "entity": "team", "project": "monoface"}
        ((command, options),) = ran
        assert command == [sys.executable, "-m", "wandb", "agent", "--count", "3", "team/monoface/abc123"]
        assert options["cwd"] == ROOT
        assert options["env"]["PATH"].split(":")[0] == str(Path(sys.executable).parent)
        assert "wandb agent team/monoface/abc123" in capsys.readouterr().out

    def test_the_agent_would_run_the_command_that_is_tested_here(self, paper: Path) -> None:
        """W&B's own substitution of ${args} gives the words that a local sweep gives."""
        from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

        spec = read_spec(str(paper))
        drawn = {LR: 0.01, HIDDEN: 4}
        arguments = {"args": {name: {"value": value} for name, value in drawn.items()}}
        assert create_sweep_command_args(arguments)["args"] == list(spec.command(drawn)[-2:])


def test_make_hands_over_what_was_asked() -> None:
    def printed(*words: str) -> str:
        command = ["make", "-n", "-o", ".venv/.installed", "--no-print-directory", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    for name in PAPERS:
        assert printed(f"sweep-{name}").rstrip().endswith(f"-m experiments sweep {name}")
    assert 'sweep mgcnet --local --runs="$RUNS"' in printed("sweep-mgcnet", "LOCAL=1", "RUNS=4")
    assert "no paper named nobody; there are" in printed("sweep-nobody")
