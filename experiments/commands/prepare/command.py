"""`python -m experiments prepare KIND ...`: photographs, a data set, shards, a skin classifier or a face model."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from datamodules.datasets.layouts import LAYOUTS, load_layout
from experiments.commands.counting import whole_number
from experiments.commands.prepare import face_model
from renderers.io.errors import UserError

MIN_SIZE, MAX_SIZE = 32, 2048
FEWEST_IN_SHARD, MOST_IN_SHARD = 10, 100_000
MOST_SYNTHETIC, MOST_COMPONENTS, MOST_SEED = 100_000, 64, 2**31 - 1


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
    _add_preparation_arguments(photos)
    photos.add_argument("--largest", action="store_true", help="only the largest face of each photograph")
    photos.set_defaults(prepare=_photos)
    for name, (_, line) in LAYOUTS.items():
        _add_dataset_arguments(kinds, name, line)
    _add_shards_arguments(kinds)
    _add_skin_arguments(kinds)
    models = kinds.add_parser("face-model", help="a face model's own files -> one cached file that every paper reads")
    face_model.add_arguments(models)
    models.set_defaults(prepare=face_model.run)


def _add_preparation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR2", help="the prepared folder")
    parser.add_argument(
        "--size", type=whole_number(MIN_SIZE, MAX_SIZE), default=224, help="side of the crops in pixels (default: 224)"
    )
    parser.add_argument(
        "--detector",
        choices=("auto", "dlib", "face-alignment"),
        default="auto",
        help="auto: face-alignment where its weights are at hand, else dlib (default: auto)",
    )
    parser.add_argument(
        "--workers", type=whole_number(1, 256), default=os.cpu_count() or 1, help="processes (default: one a core)"
    )


def _add_dataset_arguments(kinds: argparse._SubParsersAction, name: str, line: str) -> None:
    dataset = kinds.add_parser(
        name,
        help=line,
        description=f"{line}. Aligns and crops its faces, one of each photograph, with 68 landmarks and skin weights, "
        "the owner's where there are some, and keeps the owner's splits. Run it again to go on where it stopped. To "
        "train on the result: --data=datamodules.photo_folder.PhotoFolder --data.root=DIR2.",
    )
    dataset.add_argument("source", type=Path, metavar="DIR", help="the data set's folder, as its owner distributes it")
    _add_preparation_arguments(dataset)
    dataset.set_defaults(prepare=partial(_dataset, name))


def _add_shards_arguments(kinds: argparse._SubParsersAction) -> None:
    shards = kinds.add_parser(
        "shards",
        help="prepared faces -> large files for data sets of millions",
        description="Writes the faces of a prepared folder, as they are, into shards: tar files that are read from end "
        "to end. Run it again to go on where it stopped. To train on the result: "
        "--data=datamodules.sharding.sharded_faces.ShardedFaces --data.root=SHARDS.",
    )
    shards.add_argument("source", type=Path, metavar="PREPARED", help="a folder that `prepare` made")
    shards.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="the folder of shards")
    shards.add_argument(
        "--samples-per-shard",
        type=whole_number(FEWEST_IN_SHARD, MOST_IN_SHARD),
        default=1000,
        metavar="N",
        help="samples of a shard (default: 1000)",
    )
    shards.add_argument(
        "--val-fraction",
        type=_fraction,
        default=0.1,
        metavar="X",
        help="share kept for validation where the owner keeps none (default: 0.1)",
    )
    shards.add_argument(
        "--views", action="store_true", help="a training face takes with it those that show it from both sides"
    )
    shards.set_defaults(prepare=_shards)


def _add_skin_arguments(kinds: argparse._SubParsersAction) -> None:
    skin = kinds.add_parser(
        "skin",
        help="labelled pixels -> a skin classifier",
        description="Fits a skin classifier (naive Bayes over Gaussian mixtures of colour) to photographs whose skin "
        "is labelled: beside NAME.jpg a NAME_skin.png of the same size, white where skin is. Or, with --synthetic, to "
        "synthetic faces, whose skin is known; so the classifier that comes along was made.",
    )
    skin.add_argument("source", type=Path, nargs="?", metavar="DIR", help="labelled photographs, searched recursively")
    skin.add_argument(
        "--synthetic",
        type=whole_number(1, MOST_SYNTHETIC),
        metavar="N",
        help="fit to N synthetic faces instead of a folder",
    )
    skin.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the classifier")
    skin.add_argument(
        "--components", type=whole_number(1, MOST_COMPONENTS), default=8, help="Gaussians a mixture (default: 8)"
    )
    skin.add_argument(
        "--seed", type=whole_number(0, MOST_SEED), default=0, help="of everything that is drawn (default: 0)"
    )
    skin.set_defaults(prepare=_skin)


def run(args: argparse.Namespace) -> int:
    """Runs the command; 0 when its output is written, else a UserError says why not."""
    source: Path | None = getattr(args, "source", None)
    if source is not None and not source.is_dir():
        raise UserError(f"{source}: {'not a folder' if source.exists() else 'no such folder'}")
    args.prepare(args)
    return 0


def _photos(args: argparse.Namespace) -> None:
    from experiments.commands.prepare.photos import prepare_photos

    prepare_photos(args.source, args.out, args.size, args.detector, args.workers, args.largest)


def _dataset(name: str, args: argparse.Namespace) -> None:
    from experiments.commands.prepare.photos import prepare_dataset

    prepare_dataset(load_layout(name), args.source, args.out, args.size, args.detector, args.workers)


def _shards(args: argparse.Namespace) -> None:
    from experiments.commands.prepare.shards import prepare_shards

    prepare_shards(args.source, args.out, args.samples_per_shard, args.val_fraction, args.views)


def _skin(args: argparse.Namespace) -> None:
    if (args.source is None) == (args.synthetic is None):
        raise UserError("prepare skin: give either a folder of labelled photographs or --synthetic N")
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder: name a file")
    from experiments.commands.prepare.skin import prepare_skin

    prepare_skin(args.source, args.out, args.synthetic or 0, args.components, args.seed)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value
