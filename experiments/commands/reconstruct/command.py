"""`python -m experiments reconstruct [IMAGE]`: photographs, a video or a webcam -> textured meshes, overlay, report."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.commands.counting import whole_number
from experiments.training.stored_module import Trust, add_trust_arguments
from lightning_modules.components.checkpoint_archive import check_checkpoint
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from experiments.commands.reconstruct.folder_work import Loader
    from experiments.commands.reconstruct.pipeline import ReconstructionPipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; nothing heavy is imported."""
    parser.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE",
        help="a photograph, a video, or a folder of photographs or video frames (default: scikit-image's astronaut)",
    )  # fmt: skip
    parser.add_argument(
        "--same-person", action="store_true",
        help="all photographs show one person, who gets one shape and one texture",
    )  # fmt: skip
    parser.add_argument(
        "--camera", nargs="?", const="", metavar="NAME",
        help="record what a webcam sees until Ctrl-C, then reconstruct it as a video (default: the first camera)",
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
    parser.add_argument(
        "--workers", type=whole_number(1), default=os.cpu_count() or 1, metavar="N",
        help="processes for a folder, each of which takes about 1 GB (default: one for each core)",
    )  # fmt: skip
    add_trust_arguments(parser)
    parser.add_argument("--no-fit", action="store_true", help="take the checkpoint's answer as it is, do not optimize")


def run(args: argparse.Namespace) -> int:
    """Reconstruct and say where the results are.

    Raises:
        UserError: no such file, not an image, no face, an output folder that is not ours, a checkpoint of another face
            model, or a camera that gives no pictures.
    """
    from experiments.commands.reconstruct.output import check_replaceable, check_results_folder
    from experiments.commands.reconstruct.photo import default_photo, open_photo

    images: list[Path] = args.images
    if args.camera is not None and (images or args.same_person):
        raise UserError("--camera: leave out the photographs and --same-person, or leave out --camera")
    for image in images:
        if not image.exists():
            raise UserError(f"{image}: no such file or folder; give IMAGE=photo.jpg or a folder of photographs")
    if args.checkpoint is not None:
        check_checkpoint(args.checkpoint)
    elif args.detail_size is not None:
        raise UserError("--detail-size: only a checkpoint finds detail; give --checkpoint FILE of finegrained")
    if len(images) > 1 and not args.same_person:
        raise UserError("several photographs: add --same-person if they show one person, else give their folder")
    is_folder = bool(images) and images[0].is_dir() and not args.same_person
    out = args.out or Path("runs") / "reconstruct" / _result_name(args)
    check = check_results_folder if is_folder else check_replaceable
    check(out)
    for image in images:
        if image.resolve().is_relative_to(out.resolve()):
            raise UserError(f"{out}: the output folder would replace the input {image}; choose another OUT")

    if args.camera is not None:
        from experiments.commands.reconstruct.video.clip import reconstruct_clip
        from experiments.commands.reconstruct.video.webcam import find_webcam, record

        recording = out.with_name(f"{out.name}.mp4")
        record(recording, find_webcam(args.camera))
        reconstruct_clip(recording, out, _pipeline(args))
    elif args.same_person:
        from experiments.commands.reconstruct.same_person import reconstruct_person

        if args.no_fit:
            raise UserError("--same-person: photographs are solved together by the fit; leave out --no-fit")
        reconstruct_person(_photographs(images, out), out, _pipeline(args))
    elif is_folder:
        from experiments.commands.reconstruct.folder import look_into, reconstruct_folder

        look_into(images[0], out)  # An empty folder is reported before anything is loaded.
        reconstruct_folder(images[0], out, _pipeline(args), _loader(args), args.workers)
    elif images and _is_video(images[0]):
        from experiments.commands.reconstruct.video.clip import reconstruct_clip

        reconstruct_clip(images[0], out, _pipeline(args))
    else:
        # An unreadable picture is reported before torch is imported, which takes seconds.
        photo = open_photo(images[0]) if images else default_photo()

        from experiments.commands.reconstruct.results import reconstruct_photo

        reconstruct_photo(photo, out, _pipeline(args))
    return 0


def _is_video(path: Path) -> bool:
    try:
        from experiments.commands.reconstruct.video.clip_file import is_video
    except ImportError:
        return False
    return is_video(path)


def _result_name(args: argparse.Namespace) -> str:
    from datamodules.preparation.file_names import printable

    if args.camera is not None:
        return time.strftime("camera_%Y%m%d_%H%M%S")
    name = printable(args.images[0].resolve().stem) if args.images else "astronaut"
    return f"{name}_same_person" if args.same_person else name


def _photographs(images: Sequence[Path], out: Path) -> list[Path]:
    """The files that `--same-person` was given, those of its folders among them."""
    from experiments.commands.reconstruct.folder import look_into

    found = [path for image in images for path in (look_into(image, out).paths if image.is_dir() else [image])]
    if len(found) < 2:
        raise UserError("--same-person needs two photographs or more, or a folder of them")
    return found


def _pipeline(args: argparse.Namespace) -> ReconstructionPipeline:
    return _loader(args)()


def _loader(args: argparse.Namespace) -> Loader:
    from experiments.commands.reconstruct.folder_work import Loader

    return Loader(args.checkpoint, args.face_model, args.detector, not args.no_fit, args.detail_size, Trust.of(args))
