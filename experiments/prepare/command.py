"""`python -m experiments prepare photos DIR --out DIR2`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

MIN_SIZE, MAX_SIZE = 32, 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    photos = kinds.add_parser(
        "photos",
        help="a folder of photographs -> aligned faces with landmarks and skin weights",
        description="Finds, aligns and crops the faces of every photograph in a folder, with 68 landmarks and skin "
        "weights. Run it again to go on where it stopped. To train on the result: "
        "--data=datamodules.photo_folder.PhotoFolder --data.root=DIR2.",
    )
    photos.add_argument("source", type=Path, metavar="DIR", help="photographs, searched recursively")
    photos.add_argument("--out", type=Path, required=True, metavar="DIR2", help="the prepared folder")
    photos.add_argument("--size", type=_size, default=224, help="side of the crops in pixels (default: 224)")
    photos.add_argument(
        "--detector",
        choices=("auto", "dlib", "face-alignment"),
        default="auto",
        help="auto: face-alignment where its weights are at hand, else dlib (default: auto)",
    )
    photos.add_argument("--workers", type=_workers, default=os.cpu_count() or 1, help="processes (default: one a core)")
    photos.add_argument("--largest", action="store_true", help="only the largest face of each photograph")


def run(args: argparse.Namespace) -> int:
    """Runs the command; 0 when at least one face is prepared, else a UserError says why not."""
    from experiments.prepare.photos import prepare_photos

    prepare_photos(args.source, args.out, args.size, args.detector, args.workers, args.largest)
    return 0


def _size(text: str) -> int:
    return _whole(text, MIN_SIZE, MAX_SIZE)


def _workers(text: str) -> int:
    return _whole(text, 1, 256)


def _whole(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)
