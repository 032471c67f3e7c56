"""One entry for everything: `python -m experiments COMMAND ...`, or `monoface COMMAND ...`.

Nothing heavy is imported here: help and the arguments of commands that train nothing answer at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import itertools
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from experiments.training.allocator import use_large_pages
from experiments.training.threads import let_waiting_threads_sleep
from renderers.io.errors import UserError

# name: (one line for the help, module). The first four are LightningCLI's; every other module offers
# `add_arguments(parser)` and `run(args) -> int`.
TRAINER_COMMANDS = {
    "fit": "train a paper's network (make train-PAPER)",
    "validate": "evaluate a checkpoint on the validation part of a data set",
    "test": "evaluate a checkpoint on the test part of a data set",
    "predict": "regress the images of a data set with a checkpoint and save what comes out",
}
COMMANDS = {
    "prepare": (
        "turn raw data into what training reads, for example photographs",
        "experiments.commands.prepare.command",
    ),
    "reconstruct": (
        "photographs or a video -> textured meshes and a report",
        "experiments.commands.reconstruct.command",
    ),
    "demo": ("a page on this machine: photographs by drag and drop", "experiments.commands.demo.command"),
    "export": ("a network as ONNX or as the one that ships, or a face as USDZ", "experiments.commands.export"),
    "evaluate": ("a checkpoint on a paper's own test, its figures beside", "experiments.commands.evaluate.command"),
    "table": ("a paper's ablation table on the embedded default", "experiments.commands.table"),
    "figures": ("a paper's figures of a checkpoint, the truth beside", "experiments.commands.figures.command"),
    "ablation": ("what each ingredient of drawn heads is worth", "experiments.commands.ablation.command"),
    "sweep": (
        "search a paper's hyperparameters, on W&B or here (make sweep-PAPER)",
        "experiments.commands.sweep.command",
    ),
    "launch": ("a paper's dashboard on W&B, as code", "experiments.commands.launch.command"),
    "bench": ("every part and step timed, as ratios measured in one run", "experiments.commands.bench.command"),
    "sheet": ("draw a contact sheet of random faces", "experiments.commands.sheet"),
    "corruptions": ("draw a picture of every occlusion and noise", "experiments.commands.corruptions"),
    "relight": ("animate a face's highlights under a circling light", "experiments.commands.relight"),
}
USER_ERROR = 2
INTERRUPTED = 130
# What a user's disk, and not our code, does wrong.
DISK_HINTS = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.EFBIG: "the file would be larger than the system allows here",
    errno.EACCES: "permission denied; choose another place, or mend the permissions",
    errno.EPERM: "not permitted; choose another place, or mend the permissions",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "it is already there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
    errno.ENAMETOOLONG: "the name is too long",
}


def help_text() -> str:
    """Every command with one line."""
    lines = {**TRAINER_COMMANDS, **{name: line for name, (line, _) in COMMANDS.items()}}
    listed = "\n".join(f"  {name:<12} {line}" for name, line in lines.items())
    return (
        "usage: python -m experiments COMMAND ... [--debug]\n\n"
        f"commands:\n{listed}\n\n"
        "`COMMAND --help` lists a command's arguments. `--debug`, or MONOFACE_DEBUG=1, shows an error's traceback.\n"
        "Train the embedded default:  python -m experiments fit --config experiments/mgcnet/default.yaml"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 2 for something the user can mend (one line on stderr), 130 after Ctrl-C, 1 otherwise.
    """
    arguments = [_at_home(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    # What follows `--` is a name, whatever it looks like.
    options = list(itertools.takewhile(lambda argument: argument != "--", arguments))
    debug = "--debug" in options or os.environ.get("MONOFACE_DEBUG", "") not in ("", "0")
    arguments = [option for option in options if option != "--debug"] + arguments[len(options) :]
    use_large_pages()
    let_waiting_threads_sleep()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    restored = _terminate_as_interrupt()
    try:
        return run(arguments)
    except UserError as error:
        return _complain(_one_line(str(error)), debug)
    except BrokenPipeError:
        # The reader of our output (a pager, `head`) went away.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.errno not in DISK_HINTS:
            raise
        place = error.filename2 or error.filename
        where = f"{place}: " if place else ""
        return _complain(f"{where}{DISK_HINTS[error.errno]}", debug)
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        told = str(interrupt) or "nothing is left half-written; run the same command again"
        print(f"monoface: interrupted: {told}", file=sys.stderr)
        return INTERRUPTED
    finally:
        if restored is not None:
            signal.signal(signal.SIGTERM, restored)


def _at_home(argument: str) -> str:
    """`~/NAME` and `--OPTION=~/NAME` with the user's home in place of the `~`, as only some shells write them."""
    option, value = re.match(r"((?:--?[\w.+-]+=)?)(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    return option + os.path.expanduser(value) if value == "~" or value.startswith("~/") else argument  # noqa: PTH111


def _terminate_as_interrupt() -> Any:
    """Lets SIGTERM end a command like Ctrl-C does, with its clean-up; what was in force before, where this changed it.

    Clusters send SIGTERM to many processes at once and Lightning answers that itself.
    """
    on_cluster = {"SLURM_JOB_ID", "LOCAL_RANK"} & set(os.environ)
    if on_cluster or threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, signal.default_int_handler)


def run(arguments: list[str]) -> int:
    """Dispatches to a command; errors come out as exceptions."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command in TRAINER_COMMANDS:
            return _run_trainer(command, rest)
        if command in COMMANDS:
            return _run_module(command, rest)
    except SystemExit as stop:
        # argparse leaves this way after --help (0); a text is a message.
        if isinstance(stop.code, str):
            raise UserError(stop.code) from None
        return int(stop.code or 0)
    raise UserError(f"no command {command!r}; there are {', '.join([*TRAINER_COMMANDS, *COMMANDS])}")


def _run_trainer(command: str, arguments: list[str]) -> int:
    cli = importlib.import_module("experiments.training.cli")
    return int(cli.main([command, *arguments]))


class _Parser(argparse.ArgumentParser):
    """argparse that raises a UserError where the original prints its usage and leaves."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see `{self.prog} --help`)")


def _run_module(command: str, arguments: list[str]) -> int:
    line, name = COMMANDS[command]
    module: ModuleType = importlib.import_module(name)
    parser = _Parser(prog=f"python -m experiments {command}", description=line)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)))


def _complain(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"monoface: error: {message}", file=sys.stderr)
    return USER_ERROR


def _one_line(message: str) -> str:
    """A data worker wraps an error into a whole traceback: keep what was said last."""
    if message.startswith("Caught "):
        message = re.split(r"\n[\w.]*UserError: ", message)[-1]
    # What a file says of itself may be meant for the terminal.
    shown = "".join(c if c.isprintable() or c.isspace() else c.encode("unicode_escape").decode() for c in message)
    return " ".join(shown.split())


if __name__ == "__main__":
    sys.exit(main())
