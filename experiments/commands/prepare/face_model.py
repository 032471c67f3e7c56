"""`python -m experiments prepare face-model KIND PATH`: any face model's files -> one checked `.npz`, and a picture."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from renderers.io.errors import UserError
from renderers.units import MILLIMETRES

if TYPE_CHECKING:
    import numpy as np

    from renderers.face_models.base import MorphableModel

KINDS = {
    "bfm2009": "BFM_model_front.mat, or the folder of its raw files (01_MorphableModel.mat, Exp_Pca.bin ...)",
    "bfm2017": "model2017-1_*.h5",
    "bfm2019": "model2019_*.h5",
    "ict": "ICT-FaceKit's repository, or its folder FaceXModel",
    "flame": "the folder of FLAME 2020's or 2023's files (generic_model.pkl, landmark_embedding.npy ...)",
}
BASEL = "The Basel Face Model's licence covers what was written too: research only, and not to be passed on."
LICENCES = {
    "bfm2009": f"{BASEL} So does that of FaceWarehouse's expressions.",
    "bfm2017": BASEL,
    "bfm2019": BASEL,
    "ict": "ICT-FaceKit is under the MIT licence: its notice goes with what was written.",
    "flame": "FLAME's licence covers what was written too: see its owner's page for what it may be used for.",
}
ALBEDO_LICENCE = "AlbedoMM's licence covers its albedo: research only, and not to be passed on."
# Vertices and faces of the published files; the two h5 kinds look alike in all else.
PUBLISHED = {
    "bfm2009": {(35_709, 70_789): "the front model"},
    "bfm2017": {(28_588, 56_572): "face12"},
    "bfm2019": {(27_657, 55_040): "face12", (47_439, 94_464): "bfm", (58_203, 116_160): "fullHead"},
    "ict": {},
    "flame": {(5_023, 9_976): "the whole head"},
}
ICT_REPOSITORY, ICT_FOLDER = "https://github.com/ICT-VGL/ICT-FaceKit", "FaceXModel"
_UNASKED = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}  # a repository that is not there would ask for a password
FOLDERS, H5_KINDS = ("ict", "flame"), ("bfm2017", "bfm2019")
PEOPLE, COLUMNS, SIDE = 6, 4, 224
TURN = 0.6  # radians of the mean's second view
LIGHT = (-0.2, 0.2, 0.15)  # from above, the front and the subject's left: spherical harmonics 1 to 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model", choices=tuple(KINDS), metavar="KIND", help=f"what PATH is: {', '.join(KINDS)}")
    known = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    parser.add_argument(
        "path", type=Path, nargs="?", metavar="PATH", help=f"{known} (default, for ict alone: fetched by git)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.npz", help="the prepared model (default: data/face_model_KIND.npz)"
    )
    parser.add_argument("--albedo", type=Path, metavar="FILE.h5", help="AlbedoMM, for bfm2017 and bfm2019")
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE.txt",
        help="68 vertex indices from 0 in iBUG order, for bfm2017 and bfm2019 (default: found by themselves)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 0 when its output is written, else a UserError says why not."""
    kind = arguments.model
    out = arguments.out or Path("data") / f"face_model_{kind}.npz"
    path = arguments.path
    if path is None:
        if kind != "ict":
            raise UserError(f"give the PATH of {kind}, which is {KINDS[kind]}; only ict can be fetched")
        path = fetched(ICT_REPOSITORY, Path("data") / "ICT-FaceKit", ICT_FOLDER)
    prepare_face_model(kind, path, out, arguments.albedo, arguments.landmarks)
    return 0


def fetched(repository: str, place: Path, folder: str) -> Path:
    """One folder of a repository, cloned by git where it is not yet here.

    Args:
        repository: its address.
        place: where the clone goes, whole or not at all.
        folder: of the repository; nothing else of it is fetched.

    Raises:
        UserError: git is absent, or the repository cannot be reached.
    """
    found = place / folder
    if found.is_dir():
        return found
    by_hand = f"bring the folder {folder} of {repository} yourself, and run: make face-model-ict DIR=FOLDER"
    if shutil.which("git") is None:
        raise UserError(f"git is not installed; {by_hand}")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as temporary:
        clone = Path(temporary) / "clone"
        print(f"fetching {repository}", file=sys.stderr)
        for words in (
            ["clone", "--quiet", "--depth=1", "--filter=blob:none", "--sparse", "--", repository, str(clone)],
            ["-C", str(clone), "sparse-checkout", "set", folder],
        ):
            done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, env=_UNASKED)
            if done.returncode != 0:
                told = (done.stderr.strip() or "no word of git").splitlines()[-1]
                raise UserError(f"{repository} cannot be fetched ({told}); {by_hand}")
        if not (clone / folder).is_dir():
            raise UserError(f"{repository}: holds no folder {folder}; {by_hand}")
        clone.rename(place)
    return found


def prepare_face_model(
    kind: str, path: Path, out: Path, albedo: Path | None = None, landmarks: Path | None = None
) -> MorphableModel:
    """Reads a face model, tells what it found, and writes it as one `.npz` with a picture beside it.

    Args:
        kind: of KINDS.
        path: the model's file or folder.
        out: the `.npz` to write; its picture has the suffix `.png`.
        albedo: AlbedoMM, for a `.h5` model.
        landmarks: 68 vertex indices, for a `.h5` model.

    Returns:
        The model as `load_face_model` reads it from `out`.

    Raises:
        UserError: files that are not of that kind, damaged or hostile, or `out` cannot be written. Nothing is then
            written.
    """
    from rich.console import Console

    from renderers.face_models.prepared import load_prepared, save_prepared
    from renderers.io.atomic_file import write_bytes

    console = Console(stderr=True)
    if out.suffix.lower() != ".npz" or out.is_dir():
        raise UserError(f"--out {out}: name a file that ends with .npz")
    model = read_kind(kind, path, albedo, landmarks)
    for line in findings(kind, model):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    picture = draw_faces(model)
    save_prepared(model, out)
    write_bytes(out.with_suffix(".png"), picture)
    prepared = load_prepared(out)
    told = f"{out} ({out.stat().st_size / 1e6:.0f} MB): a configuration names it as face_model.init_args.spec"
    console.print(told, soft_wrap=True)
    console.print(f"look at {out.with_suffix('.png')}", soft_wrap=True)
    console.print(LICENCES[kind] + (f" {ALBEDO_LICENCE}" if albedo else ""), style="yellow")
    return prepared


def read_kind(kind: str, path: Path, albedo: Path | None = None, landmarks: Path | None = None) -> MorphableModel:
    """The model of that kind at `path`.

    Raises:
        UserError: the path names another kind, or files that their reader refuses.
    """
    from renderers.face_models.load import HDF5, load_face_model

    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {kind} is {KINDS[kind]}")
    if kind == "ict" and (path / ICT_FOLDER).is_dir():
        path = path / ICT_FOLDER
    fits = {
        "bfm2009": path.is_dir() or path.suffix.lower() == ".mat",
        **dict.fromkeys(FOLDERS, path.is_dir()),
    }.get(kind, path.is_file() and path.suffix.lower() in HDF5)
    if not fits:
        raise UserError(f"{path}: not of the kind {kind}, which is {KINDS[kind]}")
    if (albedo or landmarks) and kind in ("bfm2009", *FOLDERS):
        raise UserError("--albedo and --landmarks go with bfm2017 and bfm2019 alone; leave them out")
    first, second = (None if file is None else str(file) for file in (albedo, landmarks))
    model = load_face_model(str(path), 0, first, second)
    size = (model.vertex_count, len(model.faces))
    other = next((name for name, sizes in PUBLISHED.items() if size in sizes and name != kind), None)
    named = {"bfm2009": "bfm2009", "ict-facekit": "ict", "flame": "flame"}.get(model.name)
    if other or (named != kind if named or kind not in H5_KINDS else False):
        found = other or named or "a .h5 model"
        raise UserError(f"{path}: this is {found}, not {kind}: name it by its own kind")
    return model


def findings(kind: str, model: MorphableModel) -> list[str]:
    """What was found, line by line: counts, modes, units, sizes, landmarks."""
    from renderers.landmarks68 import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS

    points = MILLIMETRES * model.mean_shape.numpy()
    size = (model.vertex_count, len(model.faces))
    published = PUBLISHED[kind].get(size)
    known = f", as published ({published})" if published else ""
    if PUBLISHED[kind] and not published:
        known = ", which is none of the published files"
    width, height, depth = points.max(axis=0) - points.min(axis=0)
    marks = points[model.landmark_indices.numpy()]
    eyes = float(((marks[RIGHT_EYE_CORNERS[0]] - marks[LEFT_EYE_CORNERS[1]]) ** 2).sum() ** 0.5)
    color = "linear, encoded where it is decoded" if model.linear_albedo else "sRGB"
    unit = "blend weights from 0 to 1" if model.expression_names else "standard deviations"
    regions = ", ".join(f"{name} {len(members)}" for name, members in model.regions.items())
    return [
        f"{model.name}: {size[0]} vertices, {size[1]} faces{known}",
        f"{model.identity_size} identity modes (standard deviations), {model.expression_size} expressions ({unit}), "
        f"{model.albedo_size} albedo modes ({color}), {'a' if model.has_specular else 'no'} specular albedo",
        f"mean face {width:.0f} x {height:.0f} x {depth:.0f} mm (width, height, depth), {eyes:.0f} mm between the "
        f"outer corners of the eyes; a random person lies {identity_motion(model):.1f} mm from it (root mean square)",
        f"{len(set(model.landmark_indices.tolist()))} different vertices for 68 landmarks; regions: {regions}",
        f"fingerprint {model.fingerprint()}",
    ]


def identity_motion(model: MorphableModel) -> float:
    """How far the vertices of a random person lie from those of the mean face: millimetres, root mean square."""
    return MILLIMETRES * float((model.arrays()["identity_basis"] ** 2).sum(axis=(1, 2)).mean() ** 0.5)


def draw_faces(model: MorphableModel) -> bytes:
    """The mean from the front with its landmarks, the mean turned, and random people: a PNG file's content."""
    import cv2
    import numpy as np
    import torch

    from experiments.commands.prepare.preview import draw_landmarks
    from renderers.coefficients import Coefficients
    from renderers.face_models.sampling import sample_shape_coefficients
    from renderers.face_renderer import FaceRenderer, mean_coefficients

    people = sample_shape_coefficients(model, PEOPLE, np.random.default_rng(0))
    named = mean_coefficients(model, PEOPLE + 2).named()
    for name, values in people.items():
        named[name][2:] = torch.from_numpy(values)
    named["angles"][1, 1] = TURN
    named["illumination"].unflatten(1, (3, 9))[:, :, 1:4] = torch.tensor(LIGHT)
    with torch.no_grad():
        rendering = FaceRenderer(model, SIDE)(Coefficients.from_named(named))
        images = rendering.image.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    cells: list[np.ndarray] = [draw_landmarks(images[0], rendering.landmarks[0].numpy()), *images[1:]]
    sheet = np.vstack([np.hstack(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)])
    _, encoded = cv2.imencode(".png", sheet[..., ::-1])
    return encoded.tobytes()
