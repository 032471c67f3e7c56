"""`python -m experiments figures PAPER`: the paper's figures of a trained network, with the exact truth beside."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from experiments.commands.counting import whole_number
from experiments.training.stored_module import Trust, add_trust_arguments
from lightning_modules.components.checkpoint_archive import check_checkpoint
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from experiments.commands.figures.people import Figures
    from lightning_modules.base import FaceModule

PAPERS = ("finegrained", "mgcnet", "rogue", "self_augmentation", "specular")
COMPARED = ("rogue",)  # papers with figures of two networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("paper", choices=PAPERS, metavar="PAPER", help=f"one of {', '.join(PAPERS)}")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="what `fit` wrote (default: the newest in runs/PAPER)"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="rogue alone: another checkpoint shown beside, such as of guidance alone",
    )
    add_trust_arguments(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the pictures go (default: figures in the checkpoint's run)"
    )
    parser.add_argument(
        "--people", type=whole_number(1, 20), default=3, help="shown in a figure of several (default: %(default)s)"
    )
    parser.add_argument(
        "--first",
        type=whole_number(0, 10_000),
        default=0,
        help="number of the first test person (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Draws the figures; returns the exit code.

    Raises:
        UserError: no checkpoint, or one of another paper or for another face model; or an output that is no folder.
    """
    if args.compare is not None and args.paper not in COMPARED:
        raise UserError(f"--compare: {args.paper} has no figure of two networks; {', '.join(COMPARED)} has")
    checkpoint: Path = args.checkpoint or newest_checkpoint(args.paper)
    for path in (checkpoint, *([args.compare] if args.compare else [])):
        check_checkpoint(path)
    output: Path = args.output or default_output(checkpoint)
    in_the_way = next((path for path in (output, *output.parents) if path.exists() and not path.is_dir()), None)
    if in_the_way is not None:
        raise UserError(f"--output {output}: {in_the_way} is a file; name a folder")

    from datamodules.preparation.file_names import printable
    from experiments.commands.figures.people import Request, people_of
    from renderers.io.atomic_file import written_atomically

    paper = cast("Figures", import_module(f"experiments.commands.figures.{args.paper}"))
    module = load_paper(checkpoint, paper.MODULE, args)
    compared = load_paper(args.compare, paper.MODULE, args) if args.compare else None
    if compared is not None and compared.face_model.fingerprint() != module.face_model.fingerprint():
        raise UserError(
            f"--compare {args.compare}: made for another face model than {checkpoint}; give one of the same"
        )
    faces = people_of(args.paper, module)
    request = Request(module, faces, args.first, args.people, compared)
    for name, picture in list(paper.figures(request)):  # all are drawn before one is written
        path = output / f"{name}.png"
        with written_atomically(path) as temporary:
            picture.save(temporary, format="PNG", optimize=True)
        print(printable(str(path)))
    shown = f"test people from number {args.first} on of experiments/{args.paper}/default.yaml, seed {faces.seed}"
    print(printable(f"{shown}, by {checkpoint}"))
    return 0


def newest_checkpoint(paper: str) -> Path:
    """The newest undamaged checkpoint of the paper's runs.

    Raises:
        UserError: there is none.
    """
    found = sorted(Path("runs").glob(f"{paper}/*/checkpoints/[!.]*.ckpt"), key=lambda path: -path.stat().st_mtime_ns)
    if not found:
        raise UserError(f"no run in runs/{paper}: train one by `make train-{paper}`, or give --checkpoint FILE")

    from experiments.training.checkpoint import newest_whole

    newest = newest_whole(found, print)
    assert newest is not None
    return newest


def load_paper(checkpoint: Path, kind: type[FaceModule], args: argparse.Namespace) -> FaceModule:
    """The module of a checkpoint of this paper.

    Raises:
        UserError: the checkpoint is another paper's.
    """
    from experiments.training.checkpoint import load_module

    module = load_module(checkpoint, Trust.of(args))
    if not isinstance(module, kind):
        raise UserError(
            f"checkpoint {checkpoint}: holds a {type(module).__name__}, and {args.paper}'s figures are drawn from a "
            f"{kind.__name__}: give one of runs/{args.paper}"
        )
    return module


def default_output(checkpoint: Path) -> Path:
    """`figures` in the checkpoint's run folder, or in a folder named like a checkpoint that is outside a run."""
    from experiments.training.run_folder import results_folder

    return results_folder(checkpoint) / "figures"
