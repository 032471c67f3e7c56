"""What a video's reconstruction is written as: a film beside it, an animated mesh, and a table of its frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.alignment import warp
from experiments.commands.reconstruct.export import FaceMesh
from experiments.commands.reconstruct.gltf import glb
from experiments.commands.reconstruct.video.animation import Motion, animate
from experiments.commands.reconstruct.video.clip_file import Clip, ClipWriter, Frame
from experiments.commands.reconstruct.video.motion import ABSENT, SmoothMotion
from renderers.camera import CAMERA_DISTANCE, euler_to_rotation, pose_and_project, projection_matrix
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer
from renderers.units import MILLIMETRES

PANEL_SIDE = 1280  # pixels; larger frames are shrunk in the film
FINER = 2  # samples of a pixel along each side where the face is drawn
LARGEST_RASTER = 640  # pixels along a side; larger faces get one sample


class Film:
    """The clip, and beside it the clip with the face's mesh over it.

    Args:
        path: of the MP4 that is written.
        clip: the video.
        motion: of its frames.
        person: the face model of the one person.
        intrinsics: (3, 3) of the clip's frames.
    """

    def __init__(self, path: Path, clip: Clip, motion: SmoothMotion, person: LinearModel, intrinsics: Tensor) -> None:
        height, width = clip.size
        factor = min(1.0, PANEL_SIDE / max(height, width))
        # H.264 halves the resolution of colours: sides are even.
        self.size = _even(factor * height), _even(factor * width)
        scale = np.array([self.size[1] / width, self.size[0] / height])
        self._shrink = None if self.size == (height, width) else np.column_stack([np.diag(scale), np.zeros(2)])
        self._intrinsics = torch.diag(torch.tensor([*scale.tolist(), 1.0])) @ intrinsics
        self._motion, self._renderer = motion, FaceRenderer(person)
        rate = (clip.count - 1) / motion.seconds[-1] if clip.count > 1 else 25.0
        self._writer = ClipWriter(path, (self.size[0], 2 * self.size[1]), rate)

    def drawn(self, frames: Iterable[Frame]) -> Iterator[int]:
        """Draw and write the frames one by one, and say the number of each."""
        for frame in frames:
            photo = frame.pixels if self._shrink is None else warp(frame.pixels, self._shrink, self.size)
            film = np.hstack([photo, self._with_face(photo, frame.number)])
            self._writer.add(film, float(self._motion.seconds[frame.number]))
            yield frame.number
        self._writer.close()

    @torch.no_grad()
    def _with_face(self, photo: np.ndarray, number: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        if self._motion.status[number] == ABSENT:
            return photo
        face = frame_coefficients(self._motion, slice(number, number + 1))
        person = self._renderer.face_model
        shape, rotation = person.shape(face.identity, face.expression), euler_to_rotation(face.angles)
        places = pose_and_project(shape, rotation, face.translation, self._intrinsics[None])[1][0, :, :2]
        limit = places.new_tensor([photo.shape[1], photo.shape[0]])
        low = places.amin(dim=0).floor().clamp_min(0).minimum(limit).int().tolist()
        high = places.amax(dim=0).ceil().clamp_min(0).minimum(limit).int().tolist()
        width, height = high[0] - low[0], high[1] - low[1]
        if min(width, height) < 1:
            return photo
        finer = FINER if FINER * max(width, height) <= LARGEST_RASTER else 1
        camera = self._intrinsics.clone()
        camera[:2, 2] -= camera.new_tensor(low)
        camera[:2] *= finer
        drawn = self._renderer(face, camera[None], (height * finer, width * finer))
        opaque = torch.cat([drawn.image.clamp(0, 1), drawn.mask.float()], dim=1)
        layer = torch.nn.functional.avg_pool2d(opaque, finer)[0].permute(1, 2, 0).numpy()
        result = photo.copy()
        region = result[low[1] : high[1], low[0] : high[0]]
        region[:] = region * (1 - layer[..., 3:]) + 255 * layer[..., :3] + 0.5
        return result


def _even(pixels: float) -> int:
    return max(2, 2 * round(pixels / 2))


def frame_coefficients(motion: SmoothMotion, rows: slice) -> Coefficients:
    """Some frames' coefficients for a face model of one person, which has no identity and no albedo to vary."""
    named = {
        name: torch.from_numpy(getattr(motion, name)[rows]).float()
        for name in ("expression", "angles", "translation", "illumination")
    }
    nothing = torch.zeros(len(named["angles"]), 0)
    return Coefficients.from_named({**named, "identity": nothing, "albedo": nothing})


def write_animation(
    path: Path, mesh: FaceMesh, motion: SmoothMotion, size: tuple[int, int], intrinsics: Tensor
) -> None:
    """Write the mesh with its motion and the clip's camera as binary glTF, metres and seconds."""
    rotations = euler_to_rotation(torch.from_numpy(motion.angles)).numpy()
    focal = float(intrinsics[1, 1])
    moving = Motion(motion.seconds, motion.expression, rotations, motion.translation, focal, size)
    path.write_bytes(glb(mesh, partial(animate, motion=moving, distance=CAMERA_DISTANCE)))


def write_table(path: Path, motion: SmoothMotion, expression_names: Sequence[str], intrinsics: Tensor) -> None:
    """Write `frames.csv`, a row a frame.

    Columns: the frame's number, seconds and status; pitch, yaw and roll in degrees and the translation in millimetres,
    seen by a camera at (0, 0, 1000) that looks along -z; the 3 x 4 projection from `mesh.obj` to the frame's pixels,
    row by row; the expression and the 27 weights of the light.
    """
    expressions = expression_names or [f"expression_{number + 1}" for number in range(motion.expression.shape[1])]
    columns = ["frame", "seconds", "status", "scene", "pitch", "yaw", "roll", "x", "y", "z"]
    columns += [f"projection_{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3, 4)]
    columns += [*expressions, *(f"light_{number + 1}" for number in range(motion.illumination.shape[1]))]
    translation = torch.from_numpy(motion.translation).float()
    rotation = euler_to_rotation(torch.from_numpy(motion.angles).float())
    cameras = projection_matrix("perspective", rotation, translation, intrinsics[None].expand(len(rotation), 3, 3))
    cameras = cameras / cameras.new_tensor([*[MILLIMETRES] * 3, 1.0])
    numbers = [
        np.degrees(motion.angles), MILLIMETRES * motion.translation, cameras.flatten(1).numpy(),
        motion.expression, motion.illumination,
    ]  # fmt: skip
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(columns)
    for row, values in enumerate(np.concatenate(numbers, axis=1)):
        start = [row, f"{motion.seconds[row]:.4f}", motion.status[row], motion.scene[row]]
        table.writerow([*start, *(f"{value:.7g}" for value in values)])
    path.write_text(text.getvalue())
