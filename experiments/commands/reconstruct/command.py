"""`python -m experiments reconstruct [IMAGE]`: photographs -> textured meshes, overlay, report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.training.stored_module import Trust, add_trust_arguments
from lightning_modules.components.checkpoint_archive import check_checkpoint
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from experiments.commands.reconstruct.pipeline import Reconstructor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; nothing heavy is imported."""
    parser.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE",
        help="a photograph, or a folder of photographs or video frames (default: scikit-image's astronaut)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: runs/reconstruct/NAME)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained network, where the fit starts")
    parser.add_argument(
        "--face-model", metavar="default|PATH",
        help="the embedded model or the path of a BFM_model_front.mat (default: the checkpoint's, or the embedded one)",
    )  # fmt: skip
    parser.add_argument(
        "--detector", default="auto", metavar="NAME", help="landmark detector: auto (default), dlib or face-alignment"
    )
    parser.add_argument(
        "--detail-size", type=int, choices=(256, 512, 1024), metavar="256|512|1024",
        help="texels of the albedo, normal and displacement maps, of a checkpoint that finds detail (default: 512)",
    )  # fmt: skip
    add_trust_arguments(parser)
    parser.add_argument("--no-fit", action="store_true", help="take the checkpoint's answer as it is, do not optimize")


def run(args: argparse.Namespace) -> int:
    """Reconstruct and say where the results are.

    Raises:
        UserError: no such file, not an image, no face, an output folder that is not ours, a checkpoint of another face
            model.
    """
    from datamodules.preparation.file_names import printable
    from experiments.commands.reconstruct.output import check_replaceable, check_results_folder
    from experiments.commands.reconstruct.photo import default_photo, open_photo

    image: Path | None = args.image
    if image is not None and not image.exists():
        raise UserError(f"{image}: no such file or folder; give IMAGE=photo.jpg or a folder of photographs")
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    elif args.detail_size is not None:
        raise UserError("--detail-size: only a checkpoint finds detail; give --checkpoint FILE of finegrained")
    is_folder = image is not None and image.is_dir()
    out = args.out or Path("runs") / "reconstruct" / (printable(image.resolve().stem) if image else "astronaut")
    check = check_results_folder if is_folder else check_replaceable
    check(out)
    if image is not None and image.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out}: the output folder would replace the input {image}; choose another OUT")

    if image is not None and is_folder:
        from experiments.commands.reconstruct.folder import look_into, reconstruct_folder

        look_into(image, out)  # An empty folder is told before anything is loaded.
        reconstruct_folder(image, out, _reconstructor(args))
        return 0
    # A picture that cannot be read is told before torch is imported.
    photo = default_photo() if image is None else open_photo(image)

    from experiments.commands.reconstruct.results import reconstruct_photo

    reconstruct_photo(photo, out, _reconstructor(args))
    return 0


def _reconstructor(args: argparse.Namespace) -> Reconstructor:
    from experiments.commands.reconstruct.detail import DEFAULT_SIZE
    from experiments.commands.reconstruct.pipeline import Reconstructor
    from renderers.face_models.load import load_face_model

    if args.checkpoint is None:
        from experiments.training.shipped_model import load_default_model

        face_model = load_face_model(args.face_model or "default")
        shipped = load_default_model(face_model)
        return Reconstructor(face_model, None, args.detector, not args.no_fit, shipped=shipped)
    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule

    module = load_module(args.checkpoint, Trust.of(args))
    if not isinstance(module, FaceModule):
        raise UserError(f"checkpoint {args.checkpoint}: holds a {type(module).__name__}, which reconstructs no faces")
    if args.face_model is not None:
        asked = load_face_model(args.face_model)
        if asked.fingerprint() != module.face_model.fingerprint():
            raise UserError(
                f"checkpoint {args.checkpoint}: made for face model {module.face_model.name} "
                f"({module.face_model.fingerprint()}), not for {args.face_model} ({asked.fingerprint()})"
            )
    if args.detail_size is not None and not module.finds_detail:
        raise UserError(
            f"--detail-size: checkpoint {args.checkpoint} holds a {type(module).__name__}, which finds no detail; "
            "give one of finegrained, self_augmentation or specular"
        )
    size = args.detail_size or DEFAULT_SIZE
    return Reconstructor(
        module.face_model, module, args.detector, not args.no_fit, str(args.checkpoint), detail_size=size
    )
