"""`export`: writes a checkpoint's network as ONNX or as the network that ships, or a reconstructed face as USDZ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.papers import EXPERIMENTS
from experiments.training.stored_module import Trust, add_trust_arguments

if TYPE_CHECKING:
    from lightning_modules.components.backbones import CoefficientRegressor
    from renderers.face_models.base import MorphableModel

OPSET = 17
INPUT = "image"
SHIPPED = EXPERIMENTS / "default_model" / "weights.safetensors"  # of `training.shipped_model`, which imports torch
SHIPPED_ONNX = Path("runs/default_model.onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument(
        "--onnx", type=Path, nargs="?", const=SHIPPED, metavar="CHECKPOINT",
        help="the trained network to export (default: the one that ships)",
    )  # fmt: skip
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
        help="the file to write (default: beside the checkpoint or the folder; of the network that ships "
        f"{SHIPPED_ONNX}), or the shipped network's folder (default: experiments/default_model)",
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
    ships = args.onnx.resolve() == SHIPPED.resolve()
    if not ships:
        check_checkpoint(args.onnx)
    out = _file(args.out or (SHIPPED_ONNX if ships else args.onnx.with_suffix(".onnx")), ".onnx")

    from renderers.io.atomic_file import written_atomically

    regressor, face_model, size = _shipped() if ships else _trained(args.onnx, Trust.of(args))
    with written_atomically(out) as temporary:
        write_onnx(regressor, face_model, size, temporary)
    print(printable(f"{out}: {INPUT} (batch, 3, {size}, {size}) in [0, 1] -> coefficients"))
    return 0


def _shipped() -> tuple[CoefficientRegressor, MorphableModel, int]:
    """The shipped network, its face model, and the side of its crops."""
    from experiments.training.shipped_model import FOLDER, REMEDY, load_default_model
    from renderers.face_models.default.model import load_default
    from renderers.io.errors import UserError

    face_model = load_default()
    network = load_default_model(face_model)
    if network is None:
        raise UserError(f"{FOLDER}: holds no network for the default face model; {REMEDY}")
    return network, face_model, network.image_size


def _trained(checkpoint: Path, trust: Trust) -> tuple[CoefficientRegressor, MorphableModel, int]:
    """The same of a checkpoint's module."""
    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule
    from renderers.io.errors import UserError

    module = load_module(checkpoint, trust)
    if not isinstance(module, FaceModule):
        raise UserError(
            f"checkpoint {checkpoint}: holds a {type(module).__name__}, which reconstructs no faces: "
            "give one of a paper's run"
        )
    return module.regressor, module.face_model, module.image_size


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


def write_onnx(regressor: CoefficientRegressor, face_model: MorphableModel, size: int, path: Path) -> None:
    """Write a regressor. Its input `image` is (B, 3, S, S), sRGB in [0, 1]; each output (B, n) has a name.

    The file's metadata name the face model of the coefficients, and say where the five points of a face lie in the
    crop. The face model itself is not in the file.

    Args:
        regressor: the network.
        face_model: what its coefficients are of.
        size: S.
        path: the file to write.
    """
    import warnings

    import onnx
    import torch
    from torch import Tensor, nn

    from datamodules.preparation.alignment import model_template

    class Named(nn.Module):
        """The coefficients as a tuple in the layout's order; ONNX has no named fields."""

        def __init__(self) -> None:
            super().__init__()
            self.regressor = regressor

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.regressor(image).named().values())

    names = list(regressor.layout.sizes)
    example = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings():
        # torch's newer exporter needs another package. This one traces, which is right for a network without branches.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Named().eval(), (example,), str(path), dynamo=False, opset_version=OPSET,
            input_names=[INPUT], output_names=names, dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
        )  # fmt: skip
    content = onnx.load(path)
    about = {
        "face_model": f"{face_model.name} ({face_model.fingerprint()})",
        "expression_names": json.dumps(face_model.expression_names),
        "input": "an aligned crop, sRGB in [0, 1], channels first",
        "crop_points": json.dumps(model_template(face_model, size).round(2).tolist()),
    }
    onnx.helper.set_model_props(content, about)
    onnx.save(content, path)
