"""A clip of one drawn head that turns, speaks and blinks, with exact truth for every frame.

python -m tests.conf.drawn_clip OUT.mp4 --seconds 10
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch

from datamodules.synthesis.backgrounds import sample_background
from datamodules.synthesis.head_geometry import HAIRDOS
from datamodules.synthesis.head_scene import compose
from datamodules.synthesis.lighting import sample_light
from datamodules.synthesis.people import HeadSettings, sample_camera, sample_looks
from datamodules.synthesis.scenes import SceneSettings, sample_scene
from datamodules.synthesis.shading import Light, draw
from datamodules.synthetic_heads import MODES, geometry_of, skin_texture
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.face_models.load import load_face_model

FPS = 25
BLINK = np.array([0.3, 0.8, 1.0, 1.0, 0.75, 0.4, 0.15])  # weights of eyeBlink in a blink's frames, at 25 a second
NOISE = 1.5  # of a camera's sensor, of 255
STILL = HeadSettings(things=0.0, distance=(9.0, 9.0), zoom=(0.8, 0.8), shift=0.0)


@dataclass(frozen=True)
class DrawnClip:
    """T frames and their truth.

    Attributes:
        frames: (T, S, S, 3) uint8.
        coefficients: of the default face model, T rows.
        intrinsics: (3, 3) pixels.
        blinks: the frames in which the eyes are shut.
    """

    frames: np.ndarray
    coefficients: Coefficients
    intrinsics: torch.Tensor
    blinks: list[int]


@cache
def default_model() -> LinearModel:
    """The embedded face model."""
    model = load_face_model("default")
    assert isinstance(model, LinearModel)
    return model


@torch.no_grad()
def drawn_clip(seconds: float = 10.0, size: int = 320, person: int = 3) -> DrawnClip:
    """The clip of one random person.

    Args:
        seconds: at `FPS` frames each.
        size: S.
        person: which one.
    """
    model, generator = default_model(), np.random.default_rng([77, person])
    settings = SceneSettings(views=1, max_yaw=5.0, heads=STILL)
    scene = sample_scene(model, settings, generator)
    albedo, looks = sample_looks(scene["albedo"][0].astype(float), MODES, HAIRDOS, STILL, generator)
    count = round(seconds * FPS)
    moved, blinks = _motion(model, count, generator)
    intrinsics, back = sample_camera(size, 1, STILL, generator)
    moved["translation"][:, 2] += back[0]
    moved["identity"] = np.repeat(scene["identity"], count, axis=0)
    moved["albedo"] = np.repeat(albedo[None], count, axis=0)
    named = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in moved.items()}
    light, illumination = sample_light(count, 0.0, False, looks.dark, generator, _in_a_room(named["angles"]))
    coefficients = Coefficients.from_named({**named, "illumination": illumination})
    geometry, texture = geometry_of(model, size), skin_texture(model, looks.skin)
    behind = torch.as_tensor(sample_background(size, intrinsics[0], light.panorama, light.turn[0], False, generator))
    frames = []
    for row in range(count):
        of_frame = coefficients.index(slice(row, row + 1))
        drawn = compose(geometry, looks, of_frame, intrinsics, texture).scene
        picture = draw(drawn, _of_frame(light, row), drawn.seen(size), behind[None])[0].permute(1, 2, 0).numpy()
        noisy = 255 * picture.clip(0, 1) + NOISE * generator.standard_normal(picture.shape)
        frames.append(noisy.round().clip(0, 255).astype(np.uint8))
    return DrawnClip(np.stack(frames), coefficients, intrinsics[0], blinks)


def _in_a_room(angles: torch.Tensor) -> torch.Tensor:
    """(T, 3, 3): the light does not turn with the head."""
    return torch.eye(3).expand(len(angles), 3, 3)


def _of_frame(light: Light, row: int) -> Light:
    rows = slice(row, row + 1)
    return Light(
        light.harmonics[rows],
        light.key[rows],
        light.strength[rows],
        light.flash[rows],
        light.panorama,
        light.turn[rows],
    )


def _motion(model: LinearModel, count: int, generator: np.random.Generator) -> tuple[dict[str, np.ndarray], list[int]]:
    """Angles, translation and expression of every frame, and the frames in the middle of blinks."""
    time = np.arange(count) / FPS
    angles = np.radians([8.0, 18.0, 5.0] * _waves(time, 3, generator))
    translation = np.array([0.25, 0.15, 0.5]) * _waves(time, 3, generator)
    units = {name: column for column, name in enumerate(model.expression_names)}
    expression = np.zeros((count, len(units)))
    blinks = [int(start) for start in np.arange(12, count - 12, 45) + generator.integers(0, 12)]
    for start in blinks:
        for side in ("Left", "Right"):
            rows = expression[start : start + len(BLINK), units[f"eyeBlink{side}"]]
            rows[:] = BLINK[: len(rows)]
    talk, smile, brows, gaze = _waves(time, 4, generator).T
    expression[:, units["jawOpen"]] = 0.35 * talk.clip(0, 1) + 0.15 * np.abs(np.sin(9 * time)) * (talk > 0)
    for side in ("Left", "Right"):
        expression[:, units[f"mouthSmile{side}"]] = 0.5 * smile.clip(0, 1)
        expression[:, units[f"browOuterUp{side}"]] = 0.4 * brows.clip(0, 1)
    for names, weight in ((("OutLeft", "InRight"), gaze), (("InLeft", "OutRight"), -gaze)):
        for name in names:
            expression[:, units[f"eyeLook{name}"]] = 0.3 * weight.clip(0, 1)
    return {"angles": angles, "translation": translation, "expression": expression}, [start + 2 for start in blinks]


def _waves(time: np.ndarray, channels: int, generator: np.random.Generator) -> np.ndarray:
    """(T, C) smooth random curves of about unit size: three waves each, below 0.7 Hz."""
    rates, phases = generator.uniform(0.08, 0.7, (3, channels)), generator.uniform(0, 2 * np.pi, (3, channels))
    return np.asarray(np.sin(2 * np.pi * time[:, None, None] * rates + phases).sum(axis=1) / 2)


def write_clip(path: Path, frames: np.ndarray, rate: int = FPS) -> None:
    """An H.264 file of (T, H, W, 3) uint8 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--person", type=int, default=3)
    args = parser.parse_args()
    write_clip(args.out, drawn_clip(args.seconds, person=args.person).frames)


if __name__ == "__main__":
    main()
