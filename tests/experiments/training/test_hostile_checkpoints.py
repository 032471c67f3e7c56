"""Checkpoints that strangers made: whatever they name, nothing of it is imported, built or run, by any door."""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning import LightningModule

from experiments.__main__ import main
from experiments.commands.sweep.leaderboard import Leaderboard, read_history
from experiments.commands.sweep.spec import SweepSpec
from experiments.training.checkpoint import CONFIG_KEY, load_module
from experiments.training.cli import _tell
from experiments.training.plain_yaml import read_yaml
from experiments.training.resuming import differences
from experiments.training.stored_module import PARTS, Builder, Trust, describe, plain_plan
from renderers.io.errors import UserError
from tests.experiments.test_main import complaint

ROOT = Path(__file__).parents[3]
PAPERS = ("mgcnet", "rogue", "self_augmentation", "specular", "finegrained")
NEVER_IMPORTED = {"hostile", "antigravity", "this"}
TINY = str(ROOT / "tests/conf/tiny.yaml")


@functools.cache
def section(paper: str) -> dict[str, Any]:
    """The `model` section of a paper's default.yaml, as checkpoints of before held it."""
    read: dict[str, Any] = read_yaml(ROOT / "experiments" / paper / "default.yaml")["model"]
    read["init_args"]["face_model"] = read_yaml(ROOT / "experiments/shared/face_model_default.yaml")
    return read


@functools.cache
def plan(paper: str = "mgcnet") -> dict[str, Any]:
    return describe(section(paper), paper)


def saved(path: Path, told: Any, **more: Any) -> Path:
    torch.save({"state_dict": {}, "face_model": {"name": "a", "fingerprint": "b"}, CONFIG_KEY: told, **more}, path)
    return path


@pytest.fixture(scope="module", autouse=True)
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint; all that a harmless one needs is imported by now, and whatever comes later a hostile one named."""
    runs = tmp_path_factory.mktemp("runs")
    for part in PARTS.values():
        import_module(part.module)
    for command in ("reconstruct.pipeline", "reconstruct.results", "reconstruct.detail", "evaluate.results"):
        import_module(f"experiments.commands.{command}")
    import_module("experiments.training.cli")
    assert main(["fit", "--config", TINY, f"--runs_dir={runs}", "--run_id=a"]) == 0
    return runs / "tiny/a/checkpoints/last.ckpt"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current one, with a module in it that would leave a trace; afterwards there is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hostile.py").write_text("import pathlib\npathlib.Path('trace').touch()\nclass Encoder: pass\n")
    yield tmp_path
    assert not (tmp_path / "trace").exists()
    assert set(sys.modules) & NEVER_IMPORTED == set()


RUNS = {"class_path": "subprocess.Popen", "init_args": {"args": "touch trace", "shell": True}}
OPENS = {"class_path": "pathlib.Path.touch", "init_args": {"self": "trace"}}
IMPORTS = {"class_path": "hostile.Encoder"}
LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1, "device": RUNS}}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something else may be put into a section."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    whole = copy.deepcopy(tree)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return whole


@pytest.mark.parametrize("paper", PAPERS)
def test_a_class_in_the_place_of_any_argument(folder: Path, paper: str) -> None:
    """In the old form and in the present one, at every place of every paper."""
    for tree in (section(paper), plan(paper)):
        for path in places(tree):
            training = any(isinstance(key, str) and key.endswith(("optimizer", "init_weights")) for key in path)
            for hostile in (RUNS, IMPORTS, LINEAR, describe(RUNS, ""), describe(LINEAR, "")):
                told = put(tree, path, hostile)
                try:
                    held = describe(told, "it") if "class_path" in told else plain_plan(told, "it")
                    Builder("it").check(held, LightningModule, "")
                except UserError as error:
                    assert "\n" not in str(error)
                else:
                    assert training, path  # of training nothing is read


@pytest.mark.parametrize(
    "told",
    [
        put(section("self_augmentation"), ("init_args", "corruption"), LINEAR),
        put(section("self_augmentation"), ("init_args", "judges", "more"), RUNS),
        put(section("mgcnet"), ("init_args", "backbone", "init_args", "mixed_precision"), RUNS),
        {**section("mgcnet"), "dict_kwargs": {"backbone": RUNS, "more": RUNS}},
        {**section("mgcnet"), "class_path": "lightning_modules.mgcnet.MGCNet.load_from_checkpoint"},
        put(section("mgcnet"), ("init_args", "identity_encoder", "class_path"), "hostile.DlibEncoder"),
        put(section("mgcnet"), ("init_args", "identity_encoder"), "hostile.Encoder"),
        put(section("mgcnet"), ("init_args", "face_model", "class_path"), "renderers.face_models.load.Path"),
        put(section("mgcnet"), ("init_args", "identity_encoder", "class_path"), "losses.encoders.FileEncoder"),
        put(section("mgcnet"), ("init_args", "image_size"), "__import__('pathlib').Path('trace').touch()"),
        RUNS,
        OPENS,
        IMPORTS,
        {"class_path": "experiments.training.run_folder.write_text", "init_args": {"path": "trace", "text": ""}},
        {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": ".", "model": "hostile", "source": "local"}},
        {"class_path": "hostile", "init_args": {}},
        {"class_path": ".hostile.Encoder"},
        "model: !!python/object/apply:os.system ['touch trace']",
        "class_path: !!python/name:hostile.Encoder\n",
        "class_path: lightning_modules.mgcnet.MGCNet\ninit_args: !!python/module:hostile\n",
        {"part": "hostile.Encoder", "arguments": {}},
        {"part": "hostile", "arguments": {}},
        {"part": "os.system", "arguments": {"command": "touch trace"}},
        put(plan(), ("arguments", "backbone"), {"part": "hostile.Encoder", "arguments": {}}),
    ],
)
def test_nothing_that_a_file_names_is_run(folder: Path, told: Any) -> None:
    texts = [told] if isinstance(told, str) or "part" in told else [told, yaml.safe_dump(told)]
    before = set(sys.modules)
    for text in texts:
        path = saved(folder / "a.ckpt", text)
        for trust in (Trust(), Trust(modules=("tests.conf",))):
            with pytest.raises(UserError) as raised:
                load_module(path, trust)
            assert "\n" not in str(raised.value)
    assert set(sys.modules) == before


def test_every_door_is_closed(folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verified way in, and a module of the current folder."""
    run = folder / "runs/tiny/a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": RUNS, "data": IMPORTS}))
    path = run / "checkpoints/last.ckpt"
    hyper = {"_instantiator": "hostile.Encoder", "_class_path": "hostile.Encoder", **RUNS}
    more = {"hyper_parameters": hyper, "hparams_type": "hostile.Encoder", "datamodule_hyper_parameters": hyper}
    harmless = torch.load(trained, weights_only=True)
    for told in (LINEAR, put(section("self_augmentation"), ("init_args", "corruption"), LINEAR), IMPORTS):
        hostile = {**harmless, **more, CONFIG_KEY: yaml.safe_dump(told)}
        torch.save(hostile, path)
        for command in (["reconstruct"], ["relight"], ["evaluate", "--suite", "rogue"]):
            assert "which no checkpoint may name" in complaint(capsys, [*command, "--checkpoint", str(path)])
    fit, last = ["fit", "--config", TINY, "--trainer.max_epochs=2"], f"--ckpt_path={path}"
    for arguments in (
        [*fit, last, "--run_id=b"],
        [*fit, f"--resume={run}", "--run_id=c"],
        [*fit, f"--model.init_args.init_weights={path}", "--run_id=d"],
        [*fit, "--resume=auto", "--run_id=e"],
        ["validate", "--config", TINY, last, "--run_id=f"],
    ):
        # The command's own module is built, the file gives weights, and what else it names is only spoken of.
        torch.save(hostile, path)
        assert main(arguments) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "key", ["pytorch-lightning_version", "loops", "optimizer_states", "callbacks", "monoface_random"]
)
@pytest.mark.parametrize("value", [None, {"fit_loop": 3}])
def test_a_damaged_state_of_training_is_one_line(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    torch.save({**torch.load(trained, weights_only=True), key: value}, "damaged.ckpt")
    code = main(["fit", "--config", TINY, "--trainer.max_epochs=2", "--ckpt_path=damaged.ckpt", "--run_id=a"])
    told = capsys.readouterr().err
    assert code in (0, 2) and "Traceback" not in told
    if code:
        (line,) = [line for line in told.splitlines() if line.startswith("monoface: error: ")]
        assert "is damaged" in line


KNOWN = ["subprocess.Popen", "os.system", "builtins.exec", "torch.load", "hostile.Encoder", "torch.nn.Linear", "this.s"]
MODULES, ATTRIBUTES = (
    [*sorted(NEVER_IMPORTED), *sorted(sys.modules)[:400]],
    ["Path", "run", "load", "Module", "main", "eval"],
)
NAMES = st.one_of(
    st.sampled_from(KNOWN),
    st.from_regex(r"\A[a-zA-Z_.]{1,30}\Z"),
    st.builds(lambda module, name: f"{module}.{name}", st.sampled_from(MODULES), st.sampled_from(ATTRIBUTES)),
    st.text(max_size=30),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), NAMES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
        st.fixed_dictionaries({"part": NAMES, "arguments": st.dictionaries(NAMES, inner, max_size=2)}),
        st.fixed_dictionaries({"class_path": NAMES, "init_args": st.dictionaries(NAMES, inner, max_size=2)}),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_anywhere_is_checked_or_refused(folder: Path, data: st.DataObject) -> None:
    tree = data.draw(st.sampled_from([plan(paper) for paper in PAPERS] + [section("self_augmentation")]))
    told = put(tree, data.draw(st.sampled_from(list(places(tree)))), data.draw(VALUES))
    try:
        held = describe(told, "it") if isinstance(told, dict) and "class_path" in told else plain_plan(told, "it")
        Builder("it").check(held, LightningModule, "")
    except UserError as error:
        assert "\n" not in str(error)


def test_files_are_told_and_read_from_where_they_may_lie(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def message(spec: str, trust: Trust = Trust()) -> str:  # noqa: B008
        told = put(plan(), ("arguments", "face_model", "arguments", "spec"), spec)
        with pytest.raises(UserError) as raised:
            load_module(saved(folder / "a.ckpt", told), trust)
        return str(raised.value)

    (folder / "elsewhere").mkdir()
    for spec in ("/etc/passwd", "elsewhere/model.npz", "data/../elsewhere/model.npz", "~/model.npz", "data2/model.npz"):
        assert "files that a checkpoint names are read from data/ here" in message(spec)
    assert capsys.readouterr().out == ""
    assert "data/model.npz: no such face model" in message("data/model.npz")
    assert f"checkpoint {folder / 'a.ckpt'} names data/model.npz, which is read" in capsys.readouterr().out
    spec = str(folder / "elsewhere/model.npz")
    assert f"{spec}: no such face model" in message(spec, Trust(folders=(Path("elsewhere"),)))
    told = put(plan(), ("arguments", "identity_encoder", "arguments", "weights"), "/dev/zero")
    with pytest.raises(UserError, match="'/dev/zero' as weights"):
        load_module(saved(folder / "a.ckpt", told))


def test_a_name_that_cannot_be_printed_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = put(plan(), ("arguments", "face_model", "arguments", "spec"), "data/\x1b]0;name\x07\nall good.npz")
    with pytest.raises(UserError, match=r"names 'data/\\x1b.*' as spec, which cannot be printed"):
        load_module(saved(folder / "a.ckpt", told))
    assert capsys.readouterr().out == ""
    lines = list(differences({"part": "A", "arguments": {"\x1b[31m": 1}}, {"part": "A", "arguments": {}}))
    assert len(lines) == 1
    _tell(lines[0])
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "part"),
    [("corruption", "VGG"), ("corruption", "SelfAugmentation"), ("corruption", "DlibEncoder"), ("segmentation", "VGG")],
)
def test_no_network_stands_for_an_occlusion(argument: str, part: str) -> None:
    told = put(plan("self_augmentation"), ("arguments", argument), {"part": part, "arguments": {}})
    with pytest.raises(UserError, match=f"{argument} is {part}, which is no Module"):
        Builder("it").check(told, LightningModule, "")
    for known in ("RationalOcclusion", "Noise"):
        told = put(plan("self_augmentation"), ("arguments", "corruption"), {"part": known, "arguments": {}})
        Builder("it").check(told, LightningModule, "")


def test_a_plan_has_no_more_parts_than_a_paper(folder: Path) -> None:
    judges = {f"judge{number}": {"part": "DlibEncoder", "arguments": {}} for number in range(100)}
    told = put(plan("self_augmentation"), ("arguments", "judges"), judges)
    with pytest.raises(UserError, match="more than 24 parts"):
        load_module(saved(folder / "a.ckpt", told))


def test_what_lies_beside_a_checkpoint_is_plain_too(folder: Path) -> None:
    from experiments.commands.evaluate.subjects import scene_settings, training_data
    from experiments.training.run_folder import read_json

    (folder / "checkpoints").mkdir()
    checkpoint = folder / "checkpoints/last.ckpt"
    for text in ("data: &a {init_args: {data: *a}}", "data: !!python/name:hostile.Encoder", "[" * 5000, "a: " * 50):
        (folder / "config.yaml").write_text(text)
        assert training_data(checkpoint) == {}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"settings": {"max_yaw": RUNS}}}}))
    with pytest.raises(UserError, match=r"max_yaw is .* which is no float"):
        scene_settings(training_data(checkpoint))
    for text in ("[" * 100_000, '{"a":' * 100_000, "", "[1]"):
        (folder / "leaderboard.json").write_text(text)
        assert read_json(folder / "leaderboard.json") == {}
    (folder / "history.jsonl").write_text("\n".join(["[" * 100_000, "[]", '{"step": {}}', '{"step": 3}']))
    assert read_history(folder / "history.jsonl") == [json.loads('{"step": 3}')]


def test_all_that_the_papers_configurations_name_can_be_told() -> None:
    for paper in PAPERS:
        assert plan(paper)["part"] in PARTS
        Builder(paper).check(plan(paper), LightningModule, "")
    for part in PARTS:
        assert describe({"class_path": f"{PARTS[part].module}.some.older.place.{part}"}, "")["part"] == part
        assert describe({"class_path": f"elsewhere.{part}"}, "")["part"] == f"elsewhere.{part}"


@pytest.mark.parametrize(
    "run",
    [
        {"name": "../../../home", "parameters": {"model.init_args.hidden": 3}},
        {"name": "run_001", "parameters": {"model": "hostile.Encoder"}},
        {"name": "run_001", "parameters": {"model.init_args.hidden": 3, "trainer.callbacks": "hostile.Encoder"}},
        {"name": "run_001", "parameters": {"model.init_args.hidden": "hostile.Encoder"}},
        {"name": "run_001", "parameters": {"model.init_args.hidden": RUNS}},
        {"name": "run_001"},
        {"name": 5, "parameters": {}},
        {"name": "run_001", "parameters": {"model.init_args.hidden": 3}, "value": "1"},
        {"name": "run_001", "parameters": {"model.init_args.hidden": 3}, "more": 1},
        "text",
    ],
)
def test_a_leaderboard_tells_runs_of_its_sweep_alone(folder: Path, run: Any) -> None:
    """Its names become folders that are emptied, and its parameters a command."""
    tree = {"parameters": {"model.init_args.hidden": {"values": [3, "auto"]}}, "metric": {"name": "a"}}
    spec = SweepSpec(folder, tree, ("fit",), folder / "config.yaml")
    whole = {"name": "run_002", "parameters": {"model.init_args.hidden": "auto"}, "value": 0.5}
    (folder / "leaderboard.json").write_text(json.dumps({"settings": "s", "runs": [whole]}))
    assert [entry.name for entry in Leaderboard(folder, spec, "s").entries] == ["run_002"]
    for runs in ([whole, run], run):
        (folder / "leaderboard.json").write_text(json.dumps({"settings": "s", "runs": runs}))
        with pytest.raises(UserError, match=r"leaderboard\.json"):
            Leaderboard(folder, spec, "s")
