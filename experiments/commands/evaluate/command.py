"""`python -m experiments evaluate --suite NAME --checkpoint FILE`: measures a trained network as a paper does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from experiments.commands.counting import whole_number
from experiments.training.stored_module import Trust, add_trust_arguments
from lightning_modules.components.checkpoint_archive import check_checkpoint
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.commands.evaluate.results import Evaluation, Request
    from lightning_modules.base import FaceModule


class Entry(NamedTuple):
    """A suite as the command lists it. Its module is a `Suite`, which is imported when it is asked for."""

    line: str
    module: str
    subjects: int | None = None  # how many by default; None is all that the data hold


SUITES = {
    "rogue": Entry(
        "shape, texture and identity through occlusions and noise", "experiments.commands.evaluate.rogue", 70
    ),
    "aflw2000": Entry("AFLW2000-3D, landmarks by yaw", "experiments.commands.evaluate.aflw2000"),
    "now": Entry("NoW, scan to mesh", "experiments.commands.evaluate.now"),
    "micc": Entry("MICC Florence, videos against neutral scans", "experiments.commands.evaluate.micc"),
    "facescape": Entry("FaceScape, expressions from many views", "experiments.commands.evaluate.facescape"),
    "bu3dfe": Entry("BU-3DFE, expressions", "experiments.commands.evaluate.bu3dfe"),
    "frgc": Entry("FRGC v2, range images", "experiments.commands.evaluate.frgc"),
    "scans": Entry(
        "people of your own with their scans: the fit, and a checkpoint", "experiments.commands.evaluate.scans"
    ),
    "heads": Entry(
        "held-out synthetic heads by yaw and skin tone; the shipped network, or a checkpoint",
        "experiments.commands.evaluate.heads",
        512,
    ),
    "celeba": Entry("likeness of prepared photographs", "experiments.commands.evaluate.celeba"),
}


WITHOUT_CHECKPOINT = ("scans", "heads")  # suites that measure the shipped network without one


class Suite(Protocol):
    """The functions of a suite's module."""

    def evaluate(self, module: FaceModule | None, request: Request, tell: Callable[[str], None]) -> Evaluation:
        """Measure `module`, None only for `WITHOUT_CHECKPOINT`; `tell` prints one line for the user.

        Raises:
            UserError: data that cannot be read, or a network that answers with values that are not finite.
        """
        ...

    def table(self, evaluation: Evaluation) -> Table:
        """Our figures beside the paper's."""
        ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    listed = "; ".join(f"{name}: {entry.line}" for name, entry in SUITES.items())
    parser.add_argument("--suite", required=True, choices=tuple(SUITES), metavar="NAME", help=listed)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="what `fit` wrote; scans and heads measure the shipped network without one",
    )
    add_trust_arguments(parser)
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="a benchmark's folder as its owner distributes it; for scans PERSON/*.jpg with PERSON/scan.obj or .ply, "
        "neutral and in millimetres, or with *.pts; for celeba and rogue photographs prepared by "
        "`prepare`, to which rogue fits the truth (default: synthetic faces, exact)",
    )  # fmt: skip
    parser.add_argument(
        "--subjects",
        type=whole_number(1),
        metavar="N",
        help="how many at most (default: 70 for rogue, 512 for heads, else all there are)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where results go (default: evaluate/NAME in the checkpoint's run)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="which faces and corruptions (default: %(default)s)"
    )
    parser.add_argument(
        "--fitted_truth",
        action="store_true",
        help="rogue without --data: compare with the face model fitted to the clean pictures, not with the exact truth",
    )
    parser.add_argument("--batch_size", type=whole_number(1), default=10, help="faces at a time (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write the results and print the table; returns the exit code.

    Raises:
        UserError: no such checkpoint, one whose module reconstructs no faces, or what the suite raises.
    """
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    elif args.suite not in WITHOUT_CHECKPOINT:
        raise UserError(f"--suite {args.suite} needs --checkpoint FILE, what `fit` wrote")
    if args.fitted_truth and args.suite != "rogue":
        raise UserError(f"--fitted_truth is of --suite rogue: leave it out for {args.suite}")
    if args.fitted_truth and args.data is not None:
        raise UserError("--fitted_truth is of synthetic faces: the truth of photographs is always fitted, leave it out")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"{args.data}: {'not a folder' if args.data.exists() else 'no such folder'}")
    output: Path = args.output or default_output(args.checkpoint, args.suite + "_fitted" * args.fitted_truth)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: this is a file; name a folder")

    from importlib import import_module

    from rich.console import Console

    from experiments.commands.evaluate.results import EVERYONE, Request, write_results
    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule

    module = None if args.checkpoint is None else load_module(args.checkpoint, Trust.of(args))
    if not isinstance(module, FaceModule | None):
        raise UserError(
            f"checkpoint {args.checkpoint}: holds a {type(module).__name__}, which reconstructs no faces: "
            "give one of a paper's run"
        )
    entry = SUITES[args.suite]
    suite = cast(Suite, import_module(entry.module))
    console = Console()
    subjects = args.subjects or entry.subjects or EVERYONE
    request = Request(args.checkpoint, args.data, subjects, args.seed, args.batch_size, output, args.fitted_truth)
    evaluation = suite.evaluate(module, request, lambda line: console.print(line, highlight=False, markup=False))
    written = write_results(output, args.suite, args.checkpoint, evaluation)
    console.print(suite.table(evaluation))
    for path in written:
        print(f"{path.suffix[1:]:<6}{path}")
    return 0


def default_output(checkpoint: Path | None, suite: str) -> Path:
    """`evaluate/SUITE` in the checkpoint's run folder, or in a folder named like a checkpoint that is outside a run."""
    from experiments.training.run_folder import results_folder

    return Path("runs/evaluate") / suite if checkpoint is None else results_folder(checkpoint) / "evaluate" / suite
