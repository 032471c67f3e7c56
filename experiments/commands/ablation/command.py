"""`python -m experiments ablation`: what each ingredient of the drawn heads is worth on pictures that nobody drew.

The same small network is trained on the faces alone, on the whole heads, and on the heads without one ingredient each.
All rows have the same people, poses, steps and seed. It takes a core some eight minutes a row.
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

PLAIN, ALL = "faces", "heads"
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
    """

    heads: HeadSettings | None
    camera_effects: CameraRanges | None


def ingredients() -> dict[str, Ingredients]:
    """The rows by name."""
    from datamodules.camera_effects import CameraRanges
    from datamodules.synthesis.people import HeadSettings

    heads, cameras = HeadSettings(zoom=ZOOM), CameraRanges()
    return {
        PLAIN: Ingredients(None, None),
        ALL: Ingredients(heads, cameras),
        "without hair": Ingredients(replace(heads, hair=False), cameras),
        "without camera effects": Ingredients(heads, None),
        "without backgrounds": Ingredients(replace(heads, backgrounds=False), cameras),
        "without things": Ingredients(replace(heads, things=0.0), cameras),
    }


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
        "--people", type=whole_number(BATCH), default=6000, help="drawn people of each row (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=whole_number(1), default=900, help=f"of {BATCH} pictures each (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the people, weights and crops (default: %(default)s)"
    )
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs"),
        help="trained networks and results go to ablation/ in it; a row whose network is there is not trained again "
        "(default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Trains the rows whose networks are missing, measures all, writes the results and prints them.

    Raises:
        UserError: no folder or an empty one, or pictures that cannot be read.
    """
    folders = {kind: folder for kind in ("photos", "scans") if (folder := getattr(args, kind)) is not None}
    if not folders:
        raise UserError("give pictures to measure on: --photos FOLDER, --scans FOLDER, or both")
    for kind, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"--{kind} {folder}: {'not a folder' if folder.exists() else 'no such folder'}")

    from rich.console import Console

    from experiments.commands.ablation.faces import errors
    from experiments.training.run_folder import write_json
    from experiments.training.run_pool import current_commit
    from renderers.face_models.default.model import load_default

    console = Console()

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    model, place = load_default(), args.runs_dir / "ablation"
    faces = faces_of(folders, tell)
    networks = train_all(model, ingredients(), args, place, tell)
    rows = {
        row: {kind: errors(network, measured) for kind, measured in faces.items()} for row, network in networks.items()
    }
    results = {
        "command": shlex.join(["python", "-m", "experiments", "ablation", *_words(args)]),
        "commit": current_commit(),
        "faces": {kind: [face.name for face in measured] for kind, measured in faces.items()},
        "rows": rows,
    }
    write_json(place / RESULTS, results)
    for kind in faces:
        console.print(table({row: found[kind] for row, found in rows.items()}, kind, args.seed))
    tell(f"results  {place / RESULTS}")
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    given = {name: getattr(args, name) for name in ("photos", "scans", "people", "steps", "seed")}
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


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
) -> dict[str, SupervisedFace]:
    """The network of every row, from `place` where it was trained before.

    Raises:
        UserError: a network's file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    from experiments.commands.ablation.network import SupervisedFace, trained
    from renderers.io.atomic_file import written_atomically

    networks: dict[str, SupervisedFace] = {}
    seconds: list[float] = []
    data = {row: drawn_data(model, parts, args.people, args.seed) for row, parts in rows.items()}
    paths = {row: place / f"{row.replace(' ', '_')}-{_digest(data[row], args)}.safetensors" for row in rows}
    missing = [row for row in rows if not paths[row].is_file()]
    for row, path in paths.items():
        if row in missing:
            left = f", about {sum(seconds) / len(seconds) * len(missing) / 60:.0f} minutes left" if seconds else ""
            tell(f"{row}: training; {counted(len(missing), 'rows')} to go{left}")
            clock = time.monotonic()
            networks[row] = trained(model, data[row], IMAGE_SIZE, args.steps, args.seed)
            weights = {name: value.contiguous() for name, value in networks[row].regressor.state_dict().items()}
            with written_atomically(path) as temporary:
                save_file(weights, temporary)
            seconds.append(time.monotonic() - clock)
            missing.remove(row)
        else:
            networks[row] = SupervisedFace(model, IMAGE_SIZE)
            try:
                networks[row].regressor.load_state_dict(load_file(path))
            except (SafetensorError, RuntimeError) as error:
                raise UserError(f"{path}: damaged; delete it, and its row is trained again") from error
    return networks


def drawn_data(model: LinearModel, parts: Ingredients, people: int, seed: int) -> HeadCrops:
    """The training pictures of a row."""
    from datamodules.head_crops import HeadCrops
    from datamodules.synthesis.scenes import SceneSettings

    settings = SceneSettings(views=1, max_yaw=MAX_YAW, light_change=LIGHT_CHANGE, heads=parts.heads)
    return HeadCrops(
        model, IMAGE_SIZE, PICTURE_SIZE, BATCH, people, 1, 1, seed, settings, camera_effects=parts.camera_effects
    )


def _digest(data: HeadCrops, args: argparse.Namespace) -> str:
    """Twelve digits that change with what a row's network is made of, apart from the code."""
    cameras = None if data.camera_effects is None else asdict(data.camera_effects.ranges)
    key: list[Any] = [data.folder("train").name, cameras, asdict(data.crop.jitter), IMAGE_SIZE, BATCH, args.steps]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]


def table(rows: Mapping[str, Errors], kind: str, seed: int) -> Table:
    """Medians over the faces, and the 95 % interval of each one's difference from that of the row `ALL`."""
    from rich.table import Table

    measures = [measure for measure in MEASURES if measure in rows[ALL]]
    count = len(rows[ALL][measures[0]])
    view = Table(
        "", *(MEASURES[measure] for measure in measures), title=f"{kind}: {counted(count, 'faces')}",
        caption=f"Medians; in brackets the 95 % interval of the difference from `{ALL}`, by bootstrap over faces. NME: "
        "percent of the box of the points; yaw: degrees.",
    )  # fmt: skip
    for row, found in rows.items():
        cells = [_cell(found[measure], rows[ALL][measure], seed, row == ALL) for measure in measures]
        view.add_row(row, *cells)
    return view


def _cell(values: Sequence[float], baseline: Sequence[float], seed: int, alone: bool) -> str:
    from experiments.commands.evaluate.bootstrap import median_difference

    gap = median_difference(values, baseline, seed)
    between = "" if alone else f" ({gap.low:+.1f} to {gap.high:+.1f})"
    return f"{statistics.median(values):.1f}{between}"
