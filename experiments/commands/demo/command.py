"""`python -m experiments demo`: a page on this machine alone, where photographs become faces by drag and drop."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from lightning_modules.components.checkpoint_archive import check_checkpoint
from renderers.io.errors import UserError

ADDRESS = "127.0.0.1"  # nobody else's machine reaches it
HIGHEST_PORT = 65_535
# Gradio and the libraries under it count their users over the network unless they are told not to.
SILENCE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; nothing heavy is imported."""
    parser.add_argument("--port", type=int, help="of the page's address (default: the first free one from 7860)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained network, where the fit starts")
    parser.add_argument(
        "--face-model", metavar="default|PATH",
        help="the embedded model or a file's path (default: the checkpoint's, or the embedded one)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Shows the page until it is stopped with Ctrl-C.

    Raises:
        UserError: Gradio is not installed, a port that is taken, or what `reconstruct` says of its arguments.
    """
    if args.port is not None and not 1 <= args.port <= HIGHEST_PORT:
        raise UserError(f"--port {args.port}: choose a number from 1 to {HIGHEST_PORT}")
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio: .venv/bin/python -m pip install -c constraints.txt -e '.[demo]'")
    # What is uploaded and made lies here while the page is open, and is deleted with it.
    with tempfile.TemporaryDirectory(prefix="monoface-demo-") as folder:
        os.environ.update(SILENCE, GRADIO_TEMP_DIR=str(Path(folder, "uploads")))
        print("loading the face model, the landmark detector and the network", file=sys.stderr)
        from experiments import Reconstructor

        reconstructor = Reconstructor(args.checkpoint, face_model=args.face_model)
        print("building the page", file=sys.stderr)
        from experiments.commands.demo.page import show
        from experiments.commands.demo.studio import Studio

        show(Studio(reconstructor, Path(folder, "results")), ADDRESS, args.port)
    return 0
