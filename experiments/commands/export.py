"""`export`: writes a checkpoint's network as ONNX or as the network that ships, or a reconstructed face as USDZ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.training.stored_module import Trust, add_trust_arguments

if TYPE_CHECKING:
    from lightning_modules.base import FaceModule

OPSET = 17
INPUT = "image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--onnx", type=Path, metavar="CHECKPOINT", help="the trained network to export")
    kinds.add_argument(
        "--default-model", type=Path, metavar="CHECKPOINT",
        help="the trained dense-landmark network that becomes the shipped one",
    )  # fmt: skip
    kinds.add_argument(
        "--usdz", type=Path, metavar="RESULT",
        help="the folder of a reconstructed face, whose mesh becomes a USDZ file; needs the package usd-core",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="PATH",
        help="the file to write (default: beside the checkpoint or the folder), or the shipped network's folder "
        "(default: experiments/default_model)",
    )  # fmt: skip
    add_trust_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the file or the files; returns the exit code.

    Raises:
        UserError: the checkpoint cannot be read, or holds no network that reconstructs faces; no mesh, or no usd-core.
    """
    from datamodules.preparation.file_names import printable
    from lightning_modules.components.checkpoint_archive import check_checkpoint

    if args.default_model is not None:
        return _ship(args)
    if args.usdz is not None:
        from experiments.commands.reconstruct.usdz import write_usdz

        out = _file(args.out or args.usdz.resolve().with_name(f"{args.usdz.resolve().name}.usdz"), ".usdz")
        write_usdz(args.usdz, out)
        print(printable(f"{out}: the face in metres, with its texture"))
        return 0
    check_checkpoint(args.onnx)
    out = _file(args.out or args.onnx.with_suffix(".onnx"), ".onnx")

    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule
    from renderers.io.atomic_file import written_atomically
    from renderers.io.errors import UserError

    module = load_module(args.onnx, Trust.of(args))
    if not isinstance(module, FaceModule):
        raise UserError(
            f"checkpoint {args.onnx}: holds a {type(module).__name__}, which reconstructs no faces: "
            "give one of a paper's run"
        )
    with written_atomically(out) as temporary:
        write_onnx(module, temporary)
    print(printable(f"{out}: {INPUT} (batch, 3, {module.image_size}, {module.image_size}) in [0, 1] -> coefficients"))
    return 0


def _file(out: Path, ending: str) -> Path:
    from renderers.io.errors import UserError

    if out.suffix.lower() != ending:
        raise UserError(f"export: --out {out}: give a name that ends in {ending}")
    return out


def _ship(args: argparse.Namespace) -> int:
    from datamodules.preparation.file_names import printable
    from datamodules.synthetic import HEADS_VERSION
    from experiments.training.checkpoint import load_module
    from experiments.training.shipped_model import FOLDER, write_default_model
    from lightning_modules.components.checkpoint_file import read_checkpoint
    from lightning_modules.dense_face import DenseFace
    from renderers.io.errors import UserError

    module = load_module(args.default_model, Trust.of(args))
    if not isinstance(module, DenseFace):
        raise UserError(
            f"checkpoint {args.default_model}: holds a {type(module).__name__}; the shipped network is a DenseFace"
        )
    folder: Path = args.out or FOLDER
    if not folder.is_dir():
        raise UserError(f"export: --out {folder}: no such folder")
    steps = int(read_checkpoint(args.default_model)["global_step"])
    write_default_model(module.network, module.face_model, {"steps": steps, "heads_version": HEADS_VERSION}, folder)
    print(printable(f"{folder}: the weights of the shipped network after {steps} steps"))
    return 0


def write_onnx(module: FaceModule, path: Path) -> None:
    """Write a module's regressor. Its input `image` is (B, 3, S, S), sRGB in [0, 1]; each output (B, n) has a name.

    The file's metadata name the face model of the coefficients. The face model itself is not in the file.
    """
    import warnings

    import onnx
    import torch
    from torch import Tensor, nn

    class Named(nn.Module):
        """The coefficients as a tuple in the layout's order; ONNX has no named fields."""

        def __init__(self) -> None:
            super().__init__()
            self.regressor = module.regressor

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.regressor(image).named().values())

    names = list(module.regressor.layout.sizes)
    example = torch.zeros(2, 3, module.image_size, module.image_size)
    with warnings.catch_warnings():
        # torch's newer exporter needs another package. This one traces, which is right for a network without branches.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Named().eval(), (example,), str(path), dynamo=False, opset_version=OPSET,
            input_names=[INPUT], output_names=names, dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
        )  # fmt: skip
    content = onnx.load(path)
    face_model = module.face_model
    about = {
        "face_model": f"{face_model.name} ({face_model.fingerprint()})",
        "expression_names": json.dumps(face_model.expression_names),
        "input": "an aligned crop, sRGB in [0, 1], channels first",
    }
    onnx.helper.set_model_props(content, about)
    onnx.save(content, path)
