"""`corruptions`: a labelled picture of every occlusion and noise, on turned faces of the embedded default; or a
photograph whose faces wear one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.commands.counting import counted
from experiments.commands.sheet import STEP_BACK, SUPERSAMPLE, portrait, studio_light

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from renderers.face_models.base import MorphableModel

FOLDER = Path("runs/corruptions")
YAWS = (-60, -25, 0, 25, 60)  # degrees
COVERAGES = ((0.05, 0.2), (0.2, 0.4), (0.4, 0.55), (0.55, 0.7))
DENSITY = 1  # of the face model's mesh
MARGIN = 0.1  # of a tile's width, cut off on both sides: nothing is worn there
BLOCKS = 2  # of rows, side by side
BACKGROUND = 0.85  # plain, so that the palette is the faces'
SAMPLED_COLORS = 20_000  # from which the palette is made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.png",
        help=f"the picture to write (default: sheet.png or PHOTO-KIND.png in {FOLDER})",
    )
    parser.add_argument("--size", type=int, default=224, help="pixels a face (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which faces and corruptions (default: %(default)s)")
    parser.add_argument(
        "--image", type=Path, metavar="PHOTO",
        help="no sheet, but this photograph with something on its faces (`astronaut`: scikit-image's)",
    )  # fmt: skip
    parser.add_argument("--kind", default="sunglasses", help="what the photograph's faces wear (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Draws the picture; returns the exit code.

    Raises:
        UserError: a size that makes no picture, or a path that cannot be written.
    """
    from renderers.io.errors import UserError

    if args.image is not None:
        return _dress_photograph(args)
    if args.size < 16:
        raise UserError(f"corruptions: --size {args.size} makes no picture; use at least 16")

    from renderers.face_models.default.model import load_default
    from renderers.io.atomic_file import written_atomically

    output = args.output or FOLDER / "sheet.png"
    sheet = draw_sheet(load_default(DENSITY), args.size, args.seed)
    reduced = reduce_colors(sheet, args.size)
    try:
        with written_atomically(output) as temporary:
            reduced.save(temporary, format="PNG", optimize=True)
    except OSError as reason:
        raise UserError(f"corruptions: cannot write {output}: {reason}") from reason
    print(f"{output}: {len(corruptions())} corruptions of {len(YAWS)} faces, seed {args.seed}")
    return 0


def _dress_photograph(args: argparse.Namespace) -> int:
    """Writes `args.image` with `args.kind` on every face; returns the exit code.

    Raises:
        UserError: no such photograph or occlusion, or no face in it.
    """
    from renderers.io.errors import UserError

    given = str(args.image) != "astronaut"
    if given and not args.image.is_file():
        raise UserError(f"{args.image}: no such file; name a photograph")

    from PIL import Image
    from skimage.data import astronaut

    from datamodules.preparation.landmarks import best_detector
    from datamodules.preparation.photo_file import read_photo
    from renderers.io.atomic_file import written_atomically

    photograph = read_photo(args.image) if given else astronaut()
    faces = [face.landmarks for face in best_detector().detect(photograph) if face.doubt is None]
    if not faces:
        raise UserError(f"{args.image}: no face found whose landmarks are sure enough to put {args.kind} on")
    output = args.output or FOLDER / f"{args.image.stem}-{args.kind}.png"
    with written_atomically(output) as temporary:
        Image.fromarray(dress(photograph, faces, args.kind, args.seed)).save(temporary, format="PNG")
    print(f"{output}: {args.kind} on {counted(len(faces), 'faces')}")
    return 0


def dress(photograph: np.ndarray, faces: Sequence[np.ndarray], kind: str, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 photograph with an occlusion of that kind on every face, given as (68, 2) landmarks in pixels."""
    import torch

    from datamodules.corruption import RationalOcclusion

    occlude, generator = RationalOcclusion([kind]), torch.Generator().manual_seed(seed)
    image = torch.tensor(photograph).permute(2, 0, 1)[None].float() / 255
    for landmarks in faces:
        image = occlude(image, torch.tensor(landmarks, dtype=torch.float32)[None], generator).image
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def corruptions() -> dict[str, nn.Module]:
    """A row's label -> what it shows."""
    from datamodules.corruption import NOISE_KINDS, RATIONAL_KINDS, DelusionalOcclusion, Noise, RationalOcclusion

    shapes = {f"{round(100 * low)}-{round(100 * high)} % of the face": (low, high) for low, high in COVERAGES}
    return {
        **{name.replace("_", " "): RationalOcclusion([name]) for name in RATIONAL_KINDS},
        **{label: DelusionalOcclusion(coverage) for label, coverage in shapes.items()},
        **{name.replace("_", " "): Noise([name]) for name in NOISE_KINDS},
    }


def draw_sheet(face_model: MorphableModel, size: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: a row for the clean faces and one for each corruption, a column for each yaw.

    What is worn stands on the left, random shapes and noise on the right.
    """
    import torch

    image, landmarks = draw_faces(face_model, size, seed)
    generator = torch.Generator().manual_seed(seed)
    rows = {"clean": image}
    rows |= {label: module(image, landmarks, generator).image for label, module in corruptions().items()}
    cut = round(MARGIN * size)
    strips = torch.stack([torch.cat(list(row[..., cut : size - cut]), dim=2) for row in rows.values()])
    pictures = (strips.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    blocks = zip(np.split(pictures, BLOCKS), np.split(np.array(list(rows)), BLOCKS), strict=True)
    return np.concatenate([_label(np.concatenate(block), list(names), size) for block, names in blocks], axis=1)


def draw_faces(face_model: MorphableModel, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, 3, size, size) random people, each turned by one of `YAWS`, and their (N, 68, 2) landmarks in pixels."""
    import torch

    from renderers.face_models.sampling import sample_shape_coefficients
    from renderers.face_renderer import FaceRenderer

    generator = np.random.default_rng(seed)
    count, fine = len(YAWS), size * SUPERSAMPLE
    sampled = sample_shape_coefficients(face_model, count, generator)
    degrees = np.stack([generator.normal(0, 4, count), np.array(YAWS), generator.normal(0, 4, count)], axis=1)
    light = torch.stack([studio_light(generator) for _ in YAWS])
    coefficients = portrait(face_model, sampled, np.deg2rad(degrees), light)
    coefficients.translation[:, 2] -= STEP_BACK  # hands and hair need more room
    with torch.no_grad():
        rendering = FaceRenderer(face_model, fine)(coefficients)
        mask = rendering.mask.float()
        image = rendering.image.clamp(0, 1) * mask + BACKGROUND * (1 - mask)
        return torch.nn.functional.avg_pool2d(image, SUPERSAMPLE), rendering.landmarks / SUPERSAMPLE


def reduce_colors(sheet: np.ndarray, size: int) -> Image.Image:
    """The sheet in 256 colours, chosen for all but the noise, which would take most of the colours and of the bytes."""
    from PIL import Image
    from scipy.cluster.vq import kmeans2
    from scipy.spatial import cKDTree

    from datamodules.corruption import NOISE_KINDS

    calm = sheet.copy()
    calm[-len(NOISE_KINDS) * size :, sheet.shape[1] // BLOCKS :] = 255
    colors, counts = np.unique(calm.reshape(-1, 3), axis=0, return_counts=True)
    # Seldom ones weigh nearly as much as the skin's, or a mask's shades would melt into two.
    weights = counts**0.25
    some = np.random.default_rng(0).choice(
        len(colors), min(len(colors), SAMPLED_COLORS), replace=False, p=weights / weights.sum()
    )
    plain = np.array([[0, 0, 0], [round(255 * BACKGROUND)] * 3, [255, 255, 255]])
    centers, _ = kmeans2(colors[some].astype(np.float64), 256 - len(plain), iter=12, minit="++", seed=0)
    palette = np.concatenate([plain, centers.round().astype(int)])
    reduced = Image.fromarray(np.asarray(cKDTree(palette).query(sheet)[1], dtype=np.uint8))
    reduced.putpalette(palette.astype(np.uint8).tobytes())
    return reduced


def _label(pictures: np.ndarray, labels: list[str], size: int) -> np.ndarray:
    """The rows with their names on the left, the columns with their yaws above."""
    from PIL import Image, ImageDraw, ImageFont

    left, above = round(0.75 * size), round(0.16 * size)
    width = pictures.shape[1] // len(YAWS)
    canvas = Image.new("RGB", (left + pictures.shape[1], above + pictures.shape[0]), "white")
    canvas.paste(Image.fromarray(pictures), (left, above))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=max(6, round(size / 13)))
    for column, yaw in enumerate(YAWS):
        pen.text((left + (column + 0.5) * width, above / 2), f"yaw {yaw}\N{DEGREE SIGN}", "black", font, anchor="mm")
    for row, label in enumerate(labels):
        pen.text((left * 0.94, above + (row + 0.5) * size), label, "black", font, anchor="rm")
    return np.asarray(canvas)
