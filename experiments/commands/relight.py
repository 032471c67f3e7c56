"""`relight`: one face under a light that circles it, as an animation of diffuse | specular | both.

The face is the specular paper's answer to a photograph, or a random face of the embedded model.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.commands.sheet import SUPERSAMPLE, portrait
from experiments.training.stored_module import Trust, add_trust_arguments

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from experiments.commands.reconstruct.photo import Photo
    from renderers.coefficients import Coefficients
    from renderers.specular_renderer import SpecularRenderer

FORMATS = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}  # of animations, by the file's suffix
TITLES = ("diffuse", "specular", "diffuse + specular")
DENSITY = 1  # of the embedded model's mesh
FRAMES, SIZES = (2, 240), (32, 512)  # least and most of --frames and --size
TURN_SECONDS = 3.6  # duration of the light's turn
LIGHT_ANGLE = 40.0  # degrees between the light and the viewing axis
LIGHT_DISTANCE = 12.0  # decimetres from the face
# Shares of the face's own light: the share that is even, and the first and second bands of the circling lamp.
AROUND, LAMP_BANDS = 0.8, (0.2, 0.04)
BACKGROUND = 0.12  # dark enough for highlights, light enough for an outline
COLORS, GREYS = 256, 64  # of a palette; the greys are kept for highlights, whose pixels are too few and dark to get any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained network of the specular paper")
    source.add_argument("--seed", type=int, default=0, help="which random face, without --checkpoint (default: 0)")
    parser.add_argument(
        "--image", type=Path, metavar="PHOTO",
        help="the photograph that --checkpoint looks at (default: scikit-image's astronaut)",
    )  # fmt: skip
    add_trust_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a .gif, .webp or .png (default: runs/relight/NAME.gif)"
    )
    parser.add_argument("--frames", type=int, default=36, help="pictures in one turn of the light (default: 36)")
    parser.add_argument("--size", type=int, default=192, help="pixels a face (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the animation; returns the exit code.

    Raises:
        UserError: --frames or --size out of range, an unknown kind of file, a photograph without a checkpoint or
            without a face, a checkpoint whose module draws no highlights.
    """
    from datamodules.preparation.file_names import printable
    from experiments.commands.reconstruct.photo import default_photo, open_photo
    from lightning_modules.components.checkpoint_archive import check_checkpoint
    from renderers.io.atomic_file import written_atomically
    from renderers.io.errors import UserError

    for name, value, (least, most) in (("frames", args.frames, FRAMES), ("size", args.size, SIZES)):
        if not least <= value <= most:
            raise UserError(f"relight: --{name} {value} makes no animation; use {least} to {most}")
    if args.seed < 0:
        raise UserError(f"relight: --seed {args.seed} is negative; use 0 or more")
    if args.image is not None and args.checkpoint is None:
        raise UserError(
            "relight: a photograph needs --checkpoint FILE, a network that `make train-specular` trained; without "
            "--image a random face is shown"
        )
    name = f"face-{args.seed}" if args.checkpoint is None else "astronaut" if args.image is None else args.image.stem
    out: Path = args.out or Path("runs") / "relight" / f"{name}.gif"
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"relight: --out {out}: an animation is written as {', '.join(FORMATS)}")
    if args.image is not None and not args.image.is_file():
        raise UserError(f"{args.image}: no such file; name a photograph")
    if args.checkpoint is None:
        renderer, coefficients = random_face(args.seed)
    else:
        # An unreadable file is reported before torch is imported, which takes seconds.
        photo = default_photo() if args.image is None else open_photo(args.image)
        check_checkpoint(args.checkpoint)
        renderer, coefficients = photographed_face(photo, args.checkpoint, Trust.of(args))
    frames = draw_frames(renderer, coefficients, args.frames, args.size)
    with written_atomically(out) as temporary:
        save_animation(frames, temporary, FORMATS[out.suffix.lower()])
    print(printable(f"{out}: {name} in {args.frames} frames, {math.ceil(out.stat().st_size / 1000)} kB"))
    return 0


def random_face(seed: int) -> tuple[SpecularRenderer, Coefficients]:
    """A renderer of the embedded model, and a random, nearly frontal person (B = 1, with specular extras)."""
    import torch

    from renderers.coefficients import ILLUMINATION_SIZE
    from renderers.face_models.default.model import load_default
    from renderers.face_models.sampling import sample_shape_coefficients
    from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer

    face_model = load_default(DENSITY)
    generator = np.random.default_rng(seed)
    people = sample_shape_coefficients(face_model, 1, generator)
    angles = generator.normal(0.0, [0.05, 0.2, 0.03]).clip(-0.35, 0.35)[None]
    coefficients = portrait(face_model, people, angles, torch.zeros(1, ILLUMINATION_SIZE))
    coefficients.extra = {name: torch.zeros(1, size) for name, size in SPECULAR_COEFFICIENTS.items()}
    return SpecularRenderer(face_model), coefficients


def photographed_face(photo: Photo, checkpoint: Path, trust: Trust) -> tuple[SpecularRenderer, Coefficients]:
    """A checkpoint's renderer, and its network's answer to the largest face of a photograph (B = 1).

    Args:
        photo: the photograph.
        checkpoint: of a module whose `renderer` is a `SpecularRenderer`.
        trust: what the checkpoint may name beside the project's own.

    Raises:
        UserError: a checkpoint that cannot be read, no face, or a module without highlights.
    """
    from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule
    from renderers.io.errors import UserError
    from renderers.specular_renderer import SpecularRenderer

    module = load_module(checkpoint, trust)
    if not isinstance(module, FaceModule) or not isinstance(module.renderer, SpecularRenderer):
        raise UserError(
            f"checkpoint {checkpoint}: holds a {type(module).__name__}, which knows no highlights; `make "
            "train-specular` trains a network that does"
        )
    pipeline = ReconstructionPipeline(module.face_model, module, refine=False, checkpoint=str(checkpoint))
    face = max(pipeline.reconstruct(photo), key=lambda face: face.detected.area)
    return module.renderer, face.coefficients


def light_path(count: int) -> np.ndarray:
    """(count, 3) decimetres in the posed frame: one turn about the viewing axis, from above over the right."""
    turn = 2 * np.pi * np.arange(count) / count
    aside, ahead = math.sin(math.radians(LIGHT_ANGLE)), math.cos(math.radians(LIGHT_ANGLE))
    return LIGHT_DISTANCE * np.stack([aside * np.sin(turn), aside * np.cos(turn), np.full(count, ahead)], axis=1)


def lamp_illumination(illumination: Tensor, position: Tensor) -> Tensor:
    """The diffuse light of a lamp, with the brightness and colour of the light that it replaces.

    Args:
        illumination: (B, 27) spherical-harmonics weights, whose mean brightness in each channel is kept.
        position: (B, 3) of the lamp.

    Returns:
        (B, 27)
    """
    import torch

    from renderers.illumination import AMBIENT, spherical_harmonics_basis

    basis = spherical_harmonics_basis(torch.nn.functional.normalize(position, dim=-1))
    shares = basis * basis.new_tensor([0.0] + 3 * [LAMP_BANDS[0]] + 5 * [LAMP_BANDS[1]])
    shares[:, 0] = AROUND
    brightness = illumination.unflatten(-1, (3, 9))[..., :1] + AMBIENT
    weights = brightness * shares[:, None]
    weights[..., 0] -= AMBIENT
    return weights.flatten(1)


def draw_frames(renderer: SpecularRenderer, coefficients: Coefficients, count: int, size: int) -> np.ndarray:
    """The face under every light of the path, rasterized once.

    Args:
        renderer: of the face, with its camera.
        coefficients: B = 1, with the specular extras. The light's position is ignored.
        count: frames in a turn.
        size: pixels along a panel's side.

    Returns:
        (count, height, 3 * size, 3) uint8: a panel for each of `TITLES`, its title above.
    """
    import torch

    from renderers.camera import default_intrinsics
    from renderers.specular_renderer import lit

    titles = draw_titles(size)
    frames = np.empty((count, len(titles) + size, 3 * size, 3), dtype=np.uint8)
    frames[:, : len(titles)] = titles
    with torch.no_grad():
        side = SUPERSAMPLE * size
        rendering = renderer(coefficients, default_intrinsics(side)[None], (side, side))
        background = BACKGROUND * (~rendering.mask).float()
        for frame, place in zip(frames, light_path(count), strict=True):
            position = torch.tensor(place[None], dtype=torch.float32)
            lamp = replace(rendering.lamp, position=position)
            soft = lamp_illumination(coefficients.illumination, position)
            shiny = lit(rendering, rendering.vertex_specular_albedo, soft, lamp)
            panels = torch.cat([shiny.diffuse, shiny.specular, shiny.image], dim=-1).clamp(0, 1)
            picture = torch.nn.functional.avg_pool2d(panels + background.repeat(1, 1, 1, 3), SUPERSAMPLE)
            frame[len(titles) :] = (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return frames


def draw_titles(size: int) -> np.ndarray:
    """(height, 3 * size, 3) uint8: the panels' names over their middles."""
    from PIL import Image, ImageDraw, ImageFont

    height = max(12, round(size / 9))
    canvas = Image.new("RGB", (3 * size, height), (round(255 * BACKGROUND),) * 3)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=max(6, round(size / 15)))
    for column, title in enumerate(TITLES):
        pen.text(((column + 0.5) * size, height / 2), title, "white", font, anchor="mm")
    return np.asarray(canvas)


def save_animation(frames: np.ndarray, path: Path, kind: str) -> None:
    """Write frames (N, H, W, 3) uint8 as an animation that repeats for ever; it lasts `TURN_SECONDS`.

    GIF and PNG get one palette for all frames and no dithering, which makes them a third as large.
    """
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    if kind != "WEBP":
        palette = choose_palette(frames)
        pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    duration = max(20, round(100 * TURN_SECONDS / len(frames)) * 10)  # milliseconds; browsers slow faster ones down
    first, *others = pictures
    first.save(path, format=kind, save_all=True, append_images=others, duration=duration, loop=0)


def choose_palette(frames: np.ndarray) -> Image.Image:
    """A picture with the palette of `COLORS` for all frames (N, H, W, 3) uint8, three panels each."""
    from PIL import Image

    _, specular, both = np.split(frames[:: max(1, len(frames) // 12)], len(TITLES), axis=2)
    colors = Image.fromarray(np.concatenate(both)).quantize(COLORS - GREYS).getpalette() or []
    greys = np.linspace(0, int(specular.max()), GREYS).round().astype(int)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*np.repeat(greys, 3).tolist(), *colors])
    return palette
