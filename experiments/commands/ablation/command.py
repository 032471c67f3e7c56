"""`python -m experiments ablation`: what each ingredient of the drawn heads is worth on pictures that nobody drew.

The same small network is trained on the faces alone, in crops without and with a detector's errors, on the whole heads,
and on the heads without one ingredient each. All rows have the same people, poses, steps and seed. A core draws a row's
heads in some six minutes, and trains a network in one and a half.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.commands.counting import counted, whole_number
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from datamodules.camera_effects import CameraRanges
    from datamodules.head_crops import HeadCrops
    from datamodules.synthesis.people import HeadSettings
    from experiments.commands.ablation.faces import Errors, MeasuredFace
    from experiments.commands.ablation.network import SupervisedFace
    from renderers.face_models.linear import LinearModel

MEAN, PLAIN, ALL = "mean face", "faces", "heads"
EXACT = "faces in exact crops"
ROWS = (EXACT, PLAIN, ALL, "without hair", "without camera effects", "without backgrounds", "without things")
IMAGE_SIZE, PICTURE_SIZE = 64, 128  # pixels, of the crops and of the drawn pictures
BATCH = 24
MAX_YAW, LIGHT_CHANGE, ZOOM = 80.0, 0.3, (0.72, 0.95)  # as the shipped network's recipe has them
MEASURES = {"nme": "NME", "inner_nme": "inner NME", "yaw_error_deg": "yaw"}
RESULTS = "results.json"

Told = Callable[[str], None]


class Ingredients(NamedTuple):
    """The data of one row.

    Attributes:
        heads: what whole heads vary over; None draws the face alone, as by default.
        camera_effects: what cameras do to the pictures; None leaves them as they were drawn.
        jittered: crops err as a detector's do; else all are placed by the exact points, as the papers' own data are.
    """

    heads: HeadSettings | None
    camera_effects: CameraRanges | None
    jittered: bool = True


def ingredients() -> dict[str, Ingredients]:
    """The rows by name."""
    from datamodules.camera_effects import CameraRanges
    from datamodules.synthesis.people import HeadSettings

    heads, cameras = HeadSettings(zoom=ZOOM), CameraRanges()
    each = (
        Ingredients(None, None, jittered=False),
        Ingredients(None, None),
        Ingredients(heads, cameras),
        Ingredients(replace(heads, hair=False), cameras),
        Ingredients(heads, None),
        Ingredients(replace(heads, backgrounds=False), cameras),
        Ingredients(replace(heads, things=0.0), cameras),
    )
    return dict(zip(ROWS, each, strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER",
        help="photographs: landmarks are compared with dlib's, yaw with that of the fit from the shipped network",
    )  # fmt: skip
    parser.add_argument(
        "--scans", type=Path, metavar="FOLDER",
        help="PERSON/*.png with poses.txt and their points in *.pts, as tests/conf/photographed_scans.py draws a scan",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW",
        help=f"these alone, and `{ALL}`, with which each is compared (default: all of {', '.join(ROWS)})",
    )  # fmt: skip
    parser.add_argument(
        "--people", type=whole_number(BATCH), default=6000, help="drawn people of each row (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=whole_number(1), default=900, help=f"of {BATCH} pictures each (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the people, weights and crops (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=whole_number(1), default=1,
        help="networks of each row, from the weights and crops of as many seeds, on the same people "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs"),
        help="networks and results go to ablation/ in it; a network that is there is not trained again "
        "(default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Trains the rows whose networks are missing, measures all, writes the results and prints them.

    Raises:
        UserError: no folder or an empty one, or a file that cannot be read.
    """
    folders = {kind: folder for kind in ("photos", "scans") if (folder := getattr(args, kind)) is not None}
    if not folders:
        raise UserError("give pictures to measure on: --photos FOLDER, --scans FOLDER, or both")
    for kind, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"--{kind} {folder}: {'not a folder' if folder.exists() else 'no such folder'}")

    from rich.console import Console

    from experiments.commands.ablation.faces import errors
    from experiments.commands.ablation.network import SupervisedFace
    from experiments.training.run_folder import write_json
    from experiments.training.run_pool import current_commit
    from renderers.face_models.default.model import load_default

    console = Console()

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    model, place = load_default(), args.runs_dir / "ablation"
    faces = faces_of(folders, tell)
    wanted = {row: parts for row, parts in ingredients().items() if row in (ALL, *args.rows)}
    files = train_all(model, wanted, args, place, tell)
    module = SupervisedFace(model, IMAGE_SIZE)  # untrained, it answers the mean face, seen from the front
    rows = {kind: {MEAN: [errors(module, measured)]} for kind, measured in faces.items()}
    for row, paths in files.items():
        for path in paths:
            take_over(module, path)
            for kind, measured in faces.items():
                rows[kind].setdefault(row, []).append(errors(module, measured))
    results = {
        "command": shlex.join(["python", "-m", "experiments", "ablation", *_words(args)]),
        "commit": current_commit(),
        "faces": {kind: [face.name for face in measured] for kind, measured in faces.items()},
        "rows": rows,
    }
    write_json(place / RESULTS, results)
    for kind in faces:
        console.print(table(rows[kind], kind))
    tell(f"results  {place / RESULTS}")
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    given = {name: getattr(args, name) for name in ("photos", "scans", "people", "steps", "seed", "seeds")}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return words if set(args.rows) == set(ROWS) else [*words, "--rows", *args.rows]


def faces_of(folders: Mapping[str, Path], tell: Told) -> dict[str, list[MeasuredFace]]:
    """The faces to measure by kind of folder: `photos`, `scans`.

    Raises:
        UserError: there is none, or a picture cannot be read.
    """
    from experiments.commands.ablation.faces import photographed_faces, scanned_faces
    from experiments.commands.reconstruct.loading import load_pipeline

    pipeline = load_pipeline(detector="dlib")
    faces = {}
    for kind, folder in folders.items():
        found = photographed_faces(folder, pipeline) if kind == "photos" else scanned_faces(folder, pipeline.template)
        faces[kind] = list(found)
        if not faces[kind]:
            raise UserError(f"--{kind} {folder}: no face found")
        tell(f"{kind}: {counted(len(faces[kind]), 'faces')} to measure")
    return faces


def train_all(
    model: LinearModel, rows: Mapping[str, Ingredients], args: argparse.Namespace, place: Path, tell: Told
) -> dict[str, list[Path]]:
    """The files of every row's networks in `place`, one for each seed. Those that are there are not trained again."""
    from safetensors.torch import save_file

    from experiments.commands.ablation.network import trained
    from renderers.io.atomic_file import written_atomically

    data = {row: drawn_data(model, parts, args.people, args.seed) for row, parts in rows.items()}
    names = {row: f"{row.replace(' ', '_')}-{_digest(data[row], args.steps)}" for row in rows}
    seeds = range(args.seed, args.seed + args.seeds)
    files = {(row, seed): place / f"{names[row]}-seed_{seed}.safetensors" for seed in seeds for row in rows}
    missing = [key for key, path in files.items() if not path.is_file()]
    begun = time.monotonic()
    for done, (row, seed) in enumerate(missing):
        rest = len(missing) - done
        left = f", about {(time.monotonic() - begun) / done * rest / 60:.0f} minutes left" if done else ""
        tell(f"{row}, seed {seed}: training; {counted(rest, 'networks')} to go{left}")
        module = trained(model, data[row], IMAGE_SIZE, args.steps, seed)
        weights = {name: value.contiguous() for name, value in module.regressor.state_dict().items()}
        with written_atomically(files[row, seed]) as temporary:
            save_file(weights, temporary)
    return {row: [files[row, seed] for seed in seeds] for row in rows}


def take_over(module: SupervisedFace, path: Path) -> None:
    """Gives a module the weights of a trained network.

    Raises:
        UserError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.regressor.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: damaged; delete it, and the network is trained again") from error


def drawn_data(model: LinearModel, parts: Ingredients, people: int, seed: int) -> HeadCrops:
    """The training pictures of a row."""
    from datamodules.head_crops import CropJitter, HeadCrops
    from datamodules.synthesis.scenes import SceneSettings

    settings = SceneSettings(views=1, max_yaw=MAX_YAW, light_change=LIGHT_CHANGE, heads=parts.heads)
    jitter = CropJitter() if parts.jittered else CropJitter(0.0, 0.0, 0.0, 0.0)
    counts = people, 1, 1
    return HeadCrops(
        model, IMAGE_SIZE, PICTURE_SIZE, BATCH, *counts, seed, settings, jitter, camera_effects=parts.camera_effects
    )


def _digest(data: HeadCrops, steps: int) -> str:
    """Twelve digits that change with what a row's networks are made of, apart from the code."""
    cameras = None if data.camera_effects is None else asdict(data.camera_effects.ranges)
    key: list[Any] = [data.folder("train").name, cameras, asdict(data.crop.jitter), IMAGE_SIZE, BATCH, steps]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


def table(rows: Mapping[str, Sequence[Errors]], kind: str) -> Table:
    """Medians over the faces, and the 95 % interval of each one's difference from that of the row `ALL`.

    Args:
        rows: row -> the errors of each of its networks. Of a face their mean counts.
        kind: of the faces, for the title.
    """
    from rich.table import Table

    measures = [measure for measure in MEASURES if measure in rows[ALL][0]]
    faces, networks = len(rows[ALL][0][measures[0]]), len(rows[ALL])
    view = Table(
        "", *(MEASURES[measure] for measure in measures),
        title=f"{kind}: {counted(faces, 'faces')}, {counted(networks, 'networks')} a row",
        caption=f"Medians; in brackets the 95 % interval of the difference from `{ALL}`, by bootstrap over faces. NME: "
        "percent of the box of the points; yaw: degrees.",
    )  # fmt: skip
    for row, found in rows.items():
        view.add_row(row, *(_cell(found, rows[ALL], measure) for measure in measures))
    return view


def _cell(found: Sequence[Errors], baseline: Sequence[Errors], measure: str) -> str:
    from experiments.commands.evaluate.bootstrap import median_difference

    values, base = (np.mean([errors[measure] for errors in of_row], axis=0) for of_row in (found, baseline))
    medians = [statistics.median(errors[measure]) for errors in found]
    spread = f" ± {statistics.stdev(medians):.1f}" if len(medians) > 1 else ""
    gap = median_difference(values, base)
    between = "" if found is baseline else f" ({gap.low:+.1f} to {gap.high:+.1f})"
    return f"{np.median(values):.1f}{spread}{between}"
