"""The entry: help, exit codes and one-line messages."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from experiments import __main__ as entry
from experiments.__main__ import COMMANDS, TRAINER_COMMANDS, main
from experiments.training.arguments import short_message
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "tests/conf/tiny.yaml")


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a wrong command ends with."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("monoface: error: ")
    assert "Traceback" not in captured.err + captured.out
    return lines[0]


def test_help_lists_every_command_without_torch() -> None:
    code = (
        "import sys; from experiments.__main__ import main; status = main(['--help'])\n"
        "heavy = {'torch', 'lightning', 'numpy', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(status)"
    )
    start = time.process_time(), os.times().children_user
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert os.times().children_user - start[1] < 1.0
    for command in [*TRAINER_COMMANDS, *COMMANDS]:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {command} ")]
        assert len(line.split()) > 3


def test_no_argument_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fti"], "no command 'fti'"),
        (
            ["fit"],
            "fit.model (a configuration names them: --config FILE; shipped: experiments/finegrained/default.yaml",
        ),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--config", "."], "not a file"),
        (["fit", "--config", __file__], "not YAML"),
        (["fit", "--config", CONFIG, "--trainr.max_epochs=1"], "unrecognized arguments: --trainr.max_epochs=1"),
        (["fit", "--config", CONFIG, "--trainer.max_epoch=1"], "unrecognized arguments: --trainer.max_epoch=1"),
        (["fit", "--config", CONFIG, "--trainer.max_epochs=ten"], "trainer.max_epochs: Expected a int"),
        (["fit", "--config", CONFIG, "--trainer.max_epochs", "ten"], "Given value: ten"),
        (["fit", "--config", CONFIG, "--model.init_args.wieghts.color=1"], "unrecognized arguments: --wieghts.color=1"),
        (["fit", "--config", CONFIG, "--model.weights.colour=1"], "unrecognized arguments: --weights.colour=1"),
        (["fit", "--config", CONFIG, "--model.weights.color=red"], "weights.color: Expected a float. Got value: red"),
        (["fit", "--config", CONFIG, "--data.sise=3"], "Option 'sise' is not accepted"),
        (["fit", "--config", CONFIG, "--model=tests.conf.none.Net"], "module 'tests.conf' has no attribute 'none'"),
        (["fit", "--config", CONFIG, "stray"], "unrecognized arguments: stray"),
        (["table"], "which paper's table?"),
        (["table", "mgcnet", "--seeds", "0"], "whole number from 1"),
        (["table", "mgcnet", "--sedes", "1"], "--sedes"),
        (["table", "nowhere"], "no table.yaml"),
        (["table", "mgcnet", "--only", "everything"], "2D only"),
    ],
)
def test_wrong_arguments_answer_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in complaint(capsys, arguments)


def test_wrong_keys_in_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    for text, said in {
        "trainer: {max_epoch: 1}": "does not accept option 'trainer.max_epoch'",
        "modle: {class_path: tests.conf.tiny.TinyModule}": "does not accept option 'modle.class_path'",
        "model: {class_path: tests.conf.tiny.TinyModule, init_args: {hiden: 3}}": "Option 'hiden' is not accepted",
        "- a list": "Unexpected config: - a list",
    }.items():
        path.write_text(text)
        assert said in complaint(capsys, ["fit", "--config", str(path)])


MISSING = [
    ["reconstruct", "--checkpoint=absent.ckpt"],
    ["reconstruct", "absent.jpg"],
    ["evaluate", "--suite=rogue", "--checkpoint=absent.ckpt"],
    ["relight", "--checkpoint=absent.ckpt"],
    ["export", "--onnx=absent.ckpt"],
    ["figures", "rogue", "--checkpoint=absent.ckpt"],
    ["relight", f"--checkpoint={CONFIG}", "--image=absent.jpg"],
    ["ablation", "--photos=absent"],
    ["corruptions", "--image=absent.jpg"],
    ["prepare", "photos", "absent", "--out=out"],
    ["prepare", "shards", "absent", "--out=out"],
]


UNREADABLE = [
    ["reconstruct", "{}.jpg"],
    ["reconstruct", "--checkpoint={}.ckpt"],
    ["evaluate", "--suite=rogue", "--checkpoint={}.ckpt"],
    ["relight", "--checkpoint={}.ckpt"],
    ["export", "--onnx={}.ckpt"],
    ["figures", "rogue", "--checkpoint={}.ckpt"],
    ["relight", f"--checkpoint={CONFIG}", "--image={}.jpg"],
    ["corruptions", "--image={}.jpg"],
]


def test_what_is_missing_or_unreadable_is_told_without_importing_torch(tmp_path: Path) -> None:
    for suffix in ("jpg", "ckpt"):
        (tmp_path / f"text.{suffix}").write_text("Dear diary\n")
    unreadable = [[argument.format(tmp_path / "text") for argument in arguments] for arguments in UNREADABLE]
    code = (
        "import sys; from experiments.__main__ import main\n"
        f"for arguments in {MISSING + unreadable}:\n"
        "    assert main(arguments) == 2, arguments\n"
        "    assert not {'torch', 'lightning'} & set(sys.modules), arguments"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(MISSING) + len(UNREADABLE)
    assert all("absent" in line and "no such" in line for line in lines[: len(MISSING)]), lines
    for (*_, name), line in zip(unreadable, lines[len(MISSING) :], strict=True):
        told = "not an image" if name.endswith("jpg") else "damaged, or not a checkpoint"
        assert name.partition("=")[2] in line and told in line


def test_names_that_look_like_options_and_homes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "own"))
    for name in ("-dash.jpg", "--debug", "--out", "~nobody-here/me.jpg", "a~/me.jpg"):
        assert f"error: {name}: no such file" in complaint(capsys, ["reconstruct", "--", name])
    for arguments in (
        ["reconstruct", "~/absent"], ["reconstruct", "--", "~/absent"], ["reconstruct", "--checkpoint=~/absent"],
        ["relight", "--checkpoint", "~/absent"], ["fit", "--config", CONFIG, "--ckpt_path=~/absent"],
        ["fit", "--config", CONFIG, "--model.init_args.init_weights=~/absent"],
        ["prepare", "photos", "~/absent", "--out=x"],
        ["prepare", "photos", "--out=x", "--", "~/absent"],
    ):  # fmt: skip
        assert f"{tmp_path}/own/absent: no such" in complaint(capsys, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--ckpt_path=absent.ckpt"],
        ["fit", "--resume=absent"],
        ["fit", "--model.init_args.init_weights=absent.ckpt"],
        ["test", "--ckpt_path=absent.ckpt"],
    ],
)
def test_a_missing_checkpoint_of_a_training(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    line = complaint(capsys, [arguments[0], "--config", CONFIG, *arguments[1:]])
    assert "absent" in line and "no such file" in line


def test_short_message_keeps_the_argument_and_the_reason() -> None:
    told = short_message(
        "Parser key \"model\":\n  Does not validate against any of the Union subtypes\n  Subtypes: [<class 'M'>]\n"
        "  Errors:\n    - Problem with given class_path 'm.M':\n        Parser key \"weights.a\":\n"
        "          Expected a <class 'float'>. Got value: x\n    - Expected a <class 'NoneType'>\n"
        "  Given value type: <class 'str'>\n  Given value: NestedArg(key='weights.a', val='x')"
    )
    assert told == "model: Problem with given class_path 'm.M': weights.a: Expected a float. Got value: x"


def stand_in(monkeypatch: pytest.MonkeyPatch, action: object) -> None:
    """Puts `action` in the place of a command."""
    module = types.ModuleType("stand_in")
    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = action  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setitem(entry.COMMANDS, "stand-in", ("for the test", "stand_in"))


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fill(_: object) -> int:
        with open("/dev/full", "w") as file:  # noqa: PTH123
            file.write("x")
        return 0

    stand_in(monkeypatch, fill)
    assert "disk is full" in complaint(capsys, ["stand-in"])


def test_permission_and_place_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/mesh.obj")

    stand_in(monkeypatch, refuse)
    line = complaint(capsys, ["stand-in"])
    assert "/somewhere/mesh.obj: permission denied" in line


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, lambda _: [][0])
    with pytest.raises(IndexError):
        main(["stand-in"])
    stand_in(monkeypatch, lambda _: (_ for _ in ()).throw(OSError("no errno")))
    with pytest.raises(OSError, match="no errno"):
        main(["stand-in"])


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: object) -> int:
        raise UserError("first line\n  second line")

    stand_in(monkeypatch, refuse)
    assert complaint(capsys, ["stand-in"]).endswith("first line second line")
    assert main(["--debug", "stand-in"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("MONOFACE_DEBUG", "1")
    assert main(["stand-in"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_ends_a_command_like_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stand_in(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
    assert main(["stand-in"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        assert f"python -m experiments {command}" in capsys.readouterr().out


def test_what_is_meant_for_the_terminal_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of a file's name, or of what stands in a file: nothing moves the cursor or changes a colour."""
    told = complaint(capsys, ["reconstruct", str(tmp_path / "a\x1b[2Jb\x07é.png")])
    assert "a\\x1b[2Jb\\x07é.png" in told
