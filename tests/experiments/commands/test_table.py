"""The ablation table: what it runs, what it reuses, what it writes."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import pytest
import yaml

from experiments.__main__ import main
from experiments.commands import table
from experiments.commands.table import (
    TableSpec,
    markdown,
    plan_run,
    read_spec,
    replace_block,
    summary,
    with_face_model,
)
from renderers.face_models.prepared import save_prepared
from renderers.io.errors import UserError
from tests.conf.scenes import small_face_model

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "tests/conf/tiny.yaml"


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper with two rows that differ in a weight."""
    folder = tmp_path / "papers" / "tiny"
    folder.mkdir(parents=True)
    rows = [
        {"name": "A: plain", "overrides": [], "paper": {"published": 1.5}},
        {"name": "B: prior", "overrides": ["--model.init_args.weights.prior=0.5"], "paper": {"published": 1.25}},
    ]
    spec = {"config": "default.yaml", "overrides": ["--trainer.max_epochs=2"], "metrics": ["val/color_error"]}
    (folder / "table.yaml").write_text(yaml.safe_dump({**spec, "rows": rows}))
    (folder / "default.yaml").write_text(CONFIG.read_text())
    (folder / "README.md").write_text("Before.\n<!-- table:tiny -->\nold\n<!-- /table:tiny -->\nAfter.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


def first_run(paper: Path) -> tuple[TableSpec, table.Run]:
    spec = read_spec(str(paper))
    return spec, plan_run(spec, spec.rows[0], 0, spec.config, spec.overrides, Path("runs"))


def test_table_runs_once_and_writes_what_it_measured(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    finals = {}
    for slug in ("a-plain", "b-prior"):
        folder = Path("runs/tiny/table") / slug / "seed_0"
        finals[slug] = json.loads((folder / "metrics.json").read_text())["final"]["val/color_error"]
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert saved["model"]["init_args"]["weights"]["prior"] == (0.5 if slug == "b-prior" else 0.0)
        assert saved["trainer"]["max_epochs"] == 2
    assert finals["a-plain"] != finals["b-prior"]
    written = json.loads((paper / "table.json").read_text())
    assert set(written) == {"command", "commit", "code", "settings", "rows"}
    assert written["settings"] == {"overrides": ["--trainer.max_epochs=2"], "warm_start": []}
    assert [row["name"] for row in written["rows"]] == ["A: plain", "B: prior"]
    first, second = written["rows"]
    assert first["ours"] == {
        "val/color_error": {"mean": finals["a-plain"], "std": 0.0, "seeds": [finals["a-plain"]]},
    }
    assert second["paper"] == {"published": 1.25}
    assert second["overrides"] == ["--model.init_args.weights.prior=0.5"]
    readme = (paper / "README.md").read_text()
    assert readme.startswith("Before.\n<!-- table:tiny -->\n| row |")
    assert "old" not in readme
    assert readme.endswith("<!-- /table:tiny -->\nAfter.\n")
    assert "B: prior" in capsys.readouterr().out

    assert "warm-start" not in {path.name for path in Path("runs/tiny/table").iterdir()}
    # Again: nothing runs, and the same comes out.
    stamps = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.json")}
    assert main(["table", str(paper), "--seeds", "1", "--only", "b-prior"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.json")} == stamps
    assert json.loads((paper / "table.json").read_text()) == written

    # Older than the code is what other code, or another configuration, would make.
    capsys.readouterr()
    assert main(["table", str(paper), "--check"]) == 0
    assert capsys.readouterr().out == "tiny: made by this code\n"
    (paper / "default.yaml").write_text(f"{CONFIG.read_text()}# other\n")
    (paper / "table.json").write_text(json.dumps({**written, "code": {**written["code"], "losses": "0" * 12}}))
    assert main(["table", str(paper), "--check"]) == 0
    assert capsys.readouterr().out.endswith("changed losses, configuration\n")
    (paper / "table.json").write_text(json.dumps({"commit": "abc", "rows": []}))
    assert main(["table", str(paper), "--check"]) == 0
    assert "before tables recorded theirs (commit abc)" in capsys.readouterr().out


def test_rows_with_other_settings_do_not_stand_beside_each_other(
    paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    tree = yaml.safe_load((paper / "table.yaml").read_text())
    other = {**tree["rows"][1], "overrides": ["--model.init_args.weights.prior=0.25"]}
    (paper / "table.yaml").write_text(yaml.safe_dump({**tree, "rows": [tree["rows"][0], other, {"name": "C"}]}))
    capsys.readouterr()
    assert main(["table", str(paper), "--check"]) == 0
    assert capsys.readouterr().out.endswith("changed row 'B: prior'; 1 of 3 rows have not been run\n")

    (paper / "table.yaml").write_text(yaml.safe_dump({**tree, "overrides": ["--trainer.max_epochs=1"]}))
    assert main(["table", str(paper), "--check"]) == 0
    assert capsys.readouterr().out.endswith("changed what all rows of table.yaml share\n")
    assert main(["table", str(paper), "--seeds", "1", "--only", "A: plain"]) == 0
    assert "left out, because they were made with other settings: B: prior\n" in capsys.readouterr().out
    assert [row["name"] for row in json.loads((paper / "table.json").read_text())["rows"]] == ["A: plain"]

    (paper / "table.yaml").write_text(yaml.safe_dump(tree))
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    assert main(["table", str(paper), "--seeds", "1", "--only", "B: prior", "--override=seed_everything=5"]) == 0
    written = json.loads((paper / "table.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["B: prior"]
    assert written["settings"]["overrides"] == ["--trainer.max_epochs=2", "--seed_everything=5"]


def test_settings_that_nobody_recorded_are_not_invented(paper: Path) -> None:
    """Tables of before 0.2 do not say with which settings their rows were made."""
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    old = json.loads((paper / "table.json").read_text())
    del old["settings"]
    (paper / "table.json").write_text(json.dumps(old))
    assert main(["table", str(paper), "--seeds", "1", "--only", "A: plain"]) == 0
    written = json.loads((paper / "table.json").read_text())
    assert len(written["rows"]) == 2 and "settings" not in written
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    assert "settings" in json.loads((paper / "table.json").read_text())


def test_a_table_needs_a_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table"]) == 2
    assert "which paper's table? finegrained, mgcnet" in capsys.readouterr().err


def test_a_failed_row_is_named(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(paper), "--seeds", "1", "--only", "A: plain", "--override=trainer.max_epoch=1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monoface: error")]
    assert "row 'A: plain', seed 0" in line
    assert "unrecognized arguments: --trainer.max_epoch=1" in line
    assert not (paper / "table.json").exists()


def test_a_missing_metric_is_named(paper: Path) -> None:
    spec, run = first_run(paper)
    assert run.command[run.command.index("--run_id") + 1] == "table/a-plain/seed_0"
    assert run.command[run.command.index("--seed_everything") + 1] == "0"
    run.folder.metrics.parent.mkdir(parents=True)
    run.folder.metrics.write_text('{"final": {"val/other": 1.0, "val/color_error": null}}')
    arguments = argparse.Namespace(seeds=1, config=None, override=[])
    with pytest.raises(UserError, match="no finite val/color_error; they have val/other"):
        table.collect(spec, spec.rows[:1], [run], arguments)


def test_summary_is_the_sample_mean_and_deviation() -> None:
    values = [1.0, 2.0, 4.0]
    assert summary(values) == {"mean": pytest.approx(7 / 3), "std": statistics.stdev(values), "seeds": values}
    assert summary([3.0])["std"] == 0.0


def test_markdown_keeps_three_digits() -> None:
    ours = {
        "val/nme": summary([3.01, 3.05, 3.03]),
        "val/psnr": summary([21.26, 21.34]),
        "val/long": summary([1234.5]),
        "val/small": summary([0.012345]),
    }
    rows = [
        {"name": "2D only", "overrides": [], "paper": {"MICC": 1.8}, "ours": ours},
        {"name": "later", "overrides": [], "paper": {}, "ours": {}},
    ]
    text = markdown({"command": "python -m experiments table x", "commit": "abc1234", "rows": rows})
    header, rule, first, second, _, footer = text.splitlines()
    assert header.startswith("| row | MICC (paper) | val/nme (ours) |")
    assert rule.count("---:") == 5
    assert first == "| 2D only | 1.8 | 3.03 ± 0.02 | 21.3 ± 0.1 | 1234 | 0.0123 |"
    assert second == "| later |  |  |  |  |  |"
    assert footer == "`python -m experiments table x` at commit abc1234."


def test_rows_are_compared_with_the_first_by_seed() -> None:
    """The interval of the differences -.3, -.2, -.4 by hand: -.3 -+ 4.3027 x .1 / sqrt(3)."""
    rows = [
        {"name": "first", "overrides": [], "paper": {}, "ours": {"val/nme": summary([3.0, 4.0, 5.0])}},
        {"name": "second", "overrides": [], "paper": {}, "ours": {"val/nme": summary([2.7, 3.8, 4.6, 9.0, 9.0])}},
        {"name": "third", "overrides": [], "paper": {}, "ours": {"val/nme": summary([2.7])}},
    ]
    first, second, third = (line[-1] for line in table.cells({"rows": rows})[1:])
    assert (first, third) == ("4.00 ± 1.00", "2.70")
    assert second.endswith("(-0.55 to -0.05)")


def test_a_row_may_want_more_seeds(paper: Path) -> None:
    spec = yaml.safe_load((paper / "table.yaml").read_text())
    spec["rows"][1]["seeds"] = 2
    (paper / "table.yaml").write_text(yaml.safe_dump(spec))
    assert main(["table", str(paper), "--seeds", "1"]) == 0
    first, second = json.loads((paper / "table.json").read_text())["rows"]
    assert [len(row["ours"]["val/color_error"]["seeds"]) for row in (first, second)] == [1, 2]


def test_only_the_marked_block_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    replace_block(readme, "table:x", "new")
    assert not readme.exists()
    readme.write_text("a <!-- table:y -->keep<!-- /table:y -->\n")
    replace_block(readme, "table:x", "new")
    assert readme.read_text() == "a <!-- table:y -->keep<!-- /table:y -->\n"
    replace_block(readme, "table:y", r"back\slash")
    assert readme.read_text() == "a <!-- table:y -->\nback\\slash\n<!-- /table:y -->\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: []", "KeyError"),
        ("config: a.yaml\nmetrics: [x]\nrows: [{name: a b}, {name: a-b}]", "differ"),
        ("config: [", "not YAML"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_spec(str(tmp_path))


def test_shipped_tables_override_arguments_that_exist() -> None:
    for path in sorted((ROOT / "experiments").glob("*/table.yaml")):
        spec = read_spec(path.parent.name)
        assert all(metric.startswith("val/") for metric in spec.metrics)
        overrides = [*spec.overrides, *(word for row in spec.rows for word in row.overrides)]
        assert main(["fit", "--config", str(spec.config), *overrides, "--print_config"]) == 0


def test_mgcnet_table_is_table_3() -> None:
    spec = read_spec("mgcnet")
    off = {
        row.name: {word.split("=")[0].rpartition(".")[2] for word in row.overrides if word.endswith(("=0", "=false"))}
        for row in spec.rows
    }
    # The columns of table 3 without a tick; without pixel and depth terms the covisible map is not used.
    assert list(off.values()) == [
        {"pixel", "depth", "epipolar"},
        {"depth", "epipolar"},
        {"pixel", "epipolar"},
        {"pixel", "depth", "covisible"},
        {"epipolar"},
        {"covisible"},
        set(),
    ]
    assert [list(row.paper.values()) for row in spec.rows] == [
        [1.83, 1.82, 1.81],
        [1.80, 1.80, 1.80],
        [1.77, 1.79, 1.80],
        [1.79, 1.81, 1.77],
        [1.76, 1.81, 1.81],
        [1.80, 1.81, 1.82],
        [1.73, 1.78, 1.75],
    ]


def test_rogue_tables_are_1_to_8() -> None:
    spec = read_spec("rogue")
    names = ("occlusion", "noise", "consistency")
    on = [
        "".join("ONC"[i] for i, name in enumerate(names) if f"--model.init_args.weights.{name}=0" not in row.overrides)
        for row in spec.rows
    ]
    # The rows of the three tables with a tick; table 8 prints the last but one and the one before in the other order.
    assert on[:8] == ["", "O", "N", "C", "ON", "OC", "NC", "ONC"]
    assert all("-like" in row.name for row in spec.rows[8:10])  # of the tables 1 to 3
    # Tables 5 and 6 print the full method between their first and their last rows.
    told = [row.paper["delusional shape"] for row in spec.rows[10:]]
    assert told == [0.334, 0.305, 0.093, 0.101, 0.367, 0.189, 0.180]
    assert all(f"table {5 if number < 5 else 6}" in row.name for number, row in enumerate(spec.rows[10:]))
    shape = {
        kind: [row.paper[f"{kind} shape"] for row in spec.rows[:8]] for kind in ("rational", "delusional", "noisy")
    }
    assert shape == {
        "rational": [0.308, 0.253, 0.298, 0.245, 0.236, 0.052, 0.243, 0.048],
        "delusional": [0.385, 0.279, 0.359, 0.194, 0.262, 0.067, 0.183, 0.061],
        "noisy": [0.186, 0.181, 0.094, 0.081, 0.089, 0.080, 0.054, 0.054],
    }


def test_parts_print_their_own_columns() -> None:
    ours = {f"val/{name}/x": {"mean": 1.0, "std": 0.0, "seeds": [1.0]} for name in ("rain", "snow")}
    row = {"name": "r", "paper": {"rain x": 3, "snow x": 4}, "ours": ours}
    text = markdown({"command": "c", "commit": "d", "rows": [row]}, (("First", "rain"), ("Second", "snow x")))
    first, second = text.split("Second:")
    assert "First:" in first and "val/rain/x" in first and "rain x (paper)" in first and "snow" not in first
    assert "snow x (paper)" in second and "val/snow/x" not in second and "rain" not in second


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_every_row_goes_on_from_the_warm_start_of_its_seed(paper: Path, shared: bool) -> None:
    """Or, with `warm_starts: 1`, from the one that all seeds share."""
    tree = yaml.safe_load((paper / "table.yaml").read_text()) | {"warm_start": ["--trainer.max_epochs=3"]}
    (paper / "table.yaml").write_text(yaml.safe_dump(tree | ({"warm_starts": 1} if shared else {})))
    assert main(["table", str(paper), "--seeds", "2"]) == 0
    runs = Path("runs/tiny/table")
    warm = [json.loads(file.read_text()) for file in sorted(runs.glob("warm-start/seed_*/metrics.json"))]
    assert len(warm) == (1 if shared else 2)
    for seed in range(2):
        start = warm[0 if shared else seed]["final"]["val/color_error"]
        for slug in ("a-plain", "b-prior"):
            row = json.loads((runs / slug / f"seed_{seed}/metrics.json").read_text())
            assert row["initial"]["val/color_error"] == pytest.approx(start)
    assert [row["name"] for row in json.loads((paper / "table.json").read_text())["rows"]] == ["A: plain", "B: prior"]


def test_another_face_models_table_stands_apart(paper: Path) -> None:
    save_prepared(small_face_model(), Path("mine.npz"))
    spec = with_face_model(read_spec(str(paper)), Path("mine.npz"), Path("runs"))
    run = plan_run(spec, spec.rows[0], 0, spec.config, spec.overrides, Path("runs"))
    assert "--model.init_args.face_model.init_args.spec=mine.npz" in run.command
    assert run.folder.path == Path("runs/tiny/table_mine/a-plain/seed_0")
    before = (paper / "README.md").read_text()
    rows = [{"name": "A: plain", "overrides": [], "paper": {}, "ours": {"val/color_error": summary([1.0])}}]
    table._write(spec, {"command": "", "commit": "", "code": {}, "rows": rows})
    assert json.loads(Path("runs/tiny/table_mine/table.json").read_text())["rows"] == rows
    assert (paper / "README.md").read_text() == before and not (paper / "table.json").exists()
    with pytest.raises(UserError, match="make face-model-ict"):
        with_face_model(spec, Path("data/face_model_ict.npz"), Path("runs"))
