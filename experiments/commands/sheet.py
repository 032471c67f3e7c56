"""`sheet`: a contact sheet of random faces of the embedded default."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from renderers.coefficients import Coefficients
    from renderers.face_models.base import MorphableModel
    from renderers.face_models.linear import LinearModel

SHEET = Path("runs/sheet.png")
SUPERSAMPLE = 2
ALBEDO_RANGE = 2.0  # standard deviations; a sheet of a few faces should not be spent on one-in-a-hundred colours
MEASURED = 4000  # heads
HEADS_YAW, HEADS_ZOOM = 45.0, (0.5, 0.66)  # degrees, and so small that hair and shoulders show
STEP_BACK = 0.5  # decimetres, so that the largest face leaves a margin
BACKGROUNDS = ((0.80, 0.83, 0.86), (0.86, 0.83, 0.79), (0.79, 0.84, 0.80), (0.84, 0.81, 0.85), (0.88, 0.88, 0.86))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--out", type=Path, default=SHEET, metavar="FILE.png", help="the picture to write (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=16, help="number of faces (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which faces (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="pixels a face (default: %(default)s)")
    parser.add_argument(
        "--distances",
        action="store_true",
        help="draw nothing: print what the model's people measure beside the survey that they are made after",
    )
    parser.add_argument(
        "--subdivide", type=int, default=2, choices=(0, 1, 2), help="density of the mesh (default: %(default)s)"
    )
    parser.add_argument(
        "--heads", action="store_true", help="whole heads with hair, clothes and things, as training data has them"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the sheet; returns the exit code.

    Raises:
        UserError: a number that makes no picture, or a path that cannot be written.
    """
    from renderers.io.errors import UserError

    if args.distances:
        from rich.console import Console

        Console().print(distances_table(args.seed))
        return 0
    if args.count < 1 or args.size < 16:
        raise UserError(f"sheet: --count {args.count} and --size {args.size} make no picture; use at least 1 and 16")

    from PIL import Image

    from renderers.face_models.default.model import load_default
    from renderers.io.atomic_file import written_atomically

    if args.heads:
        tiles = draw_heads(load_default(), args.count, args.seed, args.size)
    else:
        face_model = load_default(args.subdivide)
        chances = (np.random.default_rng([args.seed, index]) for index in range(args.count))
        tiles = (draw_tile(face_model, chance, args.size) for chance in chances)
    sheet = arrange(tiles, args.count, args.size)
    try:
        with written_atomically(args.out) as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG", optimize=True)
    except OSError as reason:
        raise UserError(f"sheet: cannot write {args.out}: {reason}") from reason
    print(f"{args.out}: {args.count} random faces, seed {args.seed}")
    return 0


def distances_table(seed: int) -> Table:
    """Mean and standard deviation of measured distances, in millimetres: random people of the model, and the survey."""
    from rich.table import Table

    from renderers.face_models.default.population import load_survey
    from renderers.face_models.default.whole_head import load_whole_head

    survey, head = load_survey(), load_whole_head()
    used, survey = survey.compact()
    coefficients = np.random.default_rng(seed).standard_normal((MEASURED, head.identity_basis.shape[-1]))
    points = head.mean_shape[used] + np.einsum("vik,bk->bvi", head.identity_basis[used], coefficients)
    distances = survey.measure(points)
    table = Table("distance, mm", "ours", "survey", title=f"{MEASURED} random heads and the NIOSH 2003 survey")
    means, deviations = distances.mean(axis=0), distances.std(axis=0)
    for row, name in enumerate(survey.names):
        ours, theirs = (
            f"{means[row]:.1f} ± {deviations[row]:.1f}",
            f"{survey.mean[row]:.1f} ± {survey.deviation[row]:.1f}",
        )
        table.add_row(name, ours, theirs)
    return table


def arrange(tiles: Iterable[np.ndarray], count: int, size: int) -> np.ndarray:
    """(rows * size, columns * size, 3) uint8: the tiles (size, size, 3) in a full rectangle, or about a square."""
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    columns = count // rows
    if columns > 2 * rows:
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
    sheet = np.full((rows * size, columns * size, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet[row * size : (row + 1) * size, column * size : (column + 1) * size] = tile
    return sheet


def draw_heads(face_model: LinearModel, count: int, seed: int, size: int) -> Iterator[np.ndarray]:
    """(size, size, 3) uint8 pictures of the people that a training set of this seed begins with."""
    import torch

    from datamodules.synthesis.people import HeadSettings
    from datamodules.synthesis.scenes import SceneSettings
    from datamodules.synthetic_heads import SyntheticHeads

    settings = SceneSettings(views=1, max_yaw=HEADS_YAW, heads=HeadSettings(zoom=HEADS_ZOOM))
    people = SyntheticHeads(face_model, "train", count, size, seed, settings)
    for index in range(count):
        yield (people[index].image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def draw_tile(face_model: MorphableModel, generator: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) uint8: one random person under a soft studio light."""
    import torch

    from renderers.face_models.sampling import sample_shape_coefficients
    from renderers.face_renderer import FaceRenderer

    people = sample_shape_coefficients(face_model, 1, generator)
    angles = generator.normal(0.0, [0.06, 0.22, 0.04]).clip(-0.45, 0.45)[None]
    coefficients = portrait(face_model, people, angles, studio_light(generator)[None])
    fine = size * SUPERSAMPLE
    with torch.no_grad():
        rendering = FaceRenderer(face_model, fine)(coefficients)
        mask = rendering.mask.float()
        picture = rendering.image.clamp(0, 1) * mask + background(generator, fine) * (1 - mask)
        picture = torch.nn.functional.avg_pool2d(picture, SUPERSAMPLE)[0]
    return (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def portrait(
    face_model: MorphableModel, people: Mapping[str, np.ndarray], angles: np.ndarray, illumination: Tensor
) -> Coefficients:
    """People placed in the middle of the picture, a little away from the camera, so that the largest has a margin.

    Args:
        face_model: what they were drawn from.
        people: identity, expression and albedo (B, n), as `sample_shape_coefficients` draws them.
        angles: (B, 3) radians.
        illumination: (B, 27).
    """
    import torch

    from renderers.camera import euler_to_rotation
    from renderers.coefficients import Coefficients

    sampled = {name: torch.from_numpy(values) for name, values in people.items()}
    turned = torch.tensor(angles, dtype=torch.float32)
    posed = face_model.shape(sampled["identity"], sampled["expression"]) @ euler_to_rotation(turned).transpose(1, 2)
    middle = (posed.amin(dim=1) + posed.amax(dim=1)) / 2
    return Coefficients(
        identity=sampled["identity"],
        expression=sampled["expression"],
        albedo=sampled["albedo"].clamp(-ALBEDO_RANGE, ALBEDO_RANGE),
        angles=turned,
        illumination=illumination,
        translation=torch.tensor([0.0, 0.0, -STEP_BACK]) - middle * torch.tensor([1.0, 1.0, 0.0]),
    )


def studio_light(generator: np.random.Generator) -> Tensor:
    """(27,) spherical-harmonics weights: a key light from above one side, and a dimmer fill light; nearly white."""
    import torch

    from renderers.illumination import AMBIENT, spherical_harmonics_basis

    side = generator.choice([-1.0, 1.0])
    key = np.array([side * generator.uniform(0.3, 0.8), generator.uniform(0.3, 0.7), 1.0])
    warmth = generator.normal(0.0, 0.02)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    basis = spherical_harmonics_basis(torch.tensor(key / np.linalg.norm(key), dtype=torch.float32)).numpy()
    light = np.zeros(9)
    # The basis at the lamp's direction, band by band, is the projection of a lamp there (up to each band's weight).
    light[0] = 0.66 - AMBIENT
    light[1:4] = 0.16 * basis[1:4]
    light[4:] = 0.03 * basis[4:]
    scaled = tint[:, None] * (light + np.eye(9)[0] * AMBIENT) - np.eye(9)[0] * AMBIENT
    return torch.tensor(scaled, dtype=torch.float32).flatten()


def background(generator: np.random.Generator, size: int) -> Tensor:
    """(1, 3, size, size) a soft vignette in one of a few quiet colours."""
    import torch

    color = torch.tensor(BACKGROUNDS[generator.integers(len(BACKGROUNDS))])
    across = torch.linspace(-1, 1, size)
    fall = 1 - 0.16 * (across[:, None] ** 2 + across[None] ** 2) / 2
    return color[None, :, None, None] * fall
