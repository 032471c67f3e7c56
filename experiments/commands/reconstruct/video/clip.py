"""`reconstruct CLIP.mp4`: one person's face through a video, as a film beside it, an animation and a table."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from datamodules.preparation.alignment import warp
from datamodules.preparation.file_names import printable
from experiments.commands.counting import counted
from experiments.commands.reconstruct.export import FaceMesh
from experiments.commands.reconstruct.face import CROP_SIZE
from experiments.commands.reconstruct.output import RESULT, check_replaceable, read_marker, replacing, write_marker
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.results import common_record, made_with, progress_bar, stamp, write_mesh
from experiments.commands.reconstruct.same_person import neutral_mesh
from experiments.commands.reconstruct.video.clip_file import Frame, frames, look_through
from experiments.commands.reconstruct.video.files import Film, write_animation, write_table
from experiments.commands.reconstruct.video.following import Cast, Follower, Found, find_person, seen_face
from experiments.commands.reconstruct.video.motion import ABSENT, FOUND, INTERPOLATED, SmoothMotion, smooth_motion
from experiments.commands.reconstruct.video.parts import CHUNK, FrameTable, Parts
from experiments.fitting.frame_fitting import FrameFitter, Windows
from experiments.fitting.photometric_fitting import FitResult
from renderers.camera import default_intrinsics
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.io.errors import UserError

SPREAD = 8  # frames that are solved together
WINDOW = 256  # pixels of a frame's cut round the face
REACH = 1.35  # of the landmarks' larger extent


@dataclass(frozen=True)
class FollowedPerson:
    """Who is followed, and the clip's camera.

    Attributes:
        cast: see `Cast`.
        identity: (I,).
        albedo: (A,).
        mesh: the neutral face, textured by several frames.
        intrinsics: (3, 3) of the clip's frames; one focal length for all.
    """

    cast: Cast
    identity: Tensor
    albedo: Tensor
    mesh: FaceMesh
    intrinsics: Tensor


def reconstruct_clip(path: Path, out: Path, pipeline: ReconstructionPipeline) -> None:
    """Reconstruct a video into `out`, and print where the results are.

    Chunks of frames are kept in `OUT.parts` until the result is there. The same video and OUT, given again, go on.

    Raises:
        UserError: not a video, nobody in it, a face model that is not linear, or `out` cannot be written.
        KeyboardInterrupt: interrupted; what was finished is kept.
    """
    check_replaceable(out)
    wanted = {**made_with(pipeline), "video_stamp": stamp(path)}
    earlier = read_marker(out / RESULT)
    same = earlier and all(earlier.get(name) == value for name, value in wanted.items())
    if same and all((out / name).is_file() for name in earlier["files"]):
        print(f"finished already: {printable(str(out))}")
        return
    if not isinstance(pipeline.face_model, LinearModel) or not pipeline.refine:
        raise UserError("a video needs the fit and a linear face model: leave out --no-fit, and FLAME")
    _ClipRun(path, out, pipeline, wanted).reconstruct()


class _ClipRun:
    """One pass over a video.

    Attributes:
        clip: what is known of the file.
        parts: what is finished.
    """

    def __init__(self, path: Path, out: Path, pipeline: ReconstructionPipeline, wanted: dict[str, Any]) -> None:
        self.out, self.pipeline, self.wanted = out, pipeline, wanted
        assert isinstance(pipeline.face_model, LinearModel)
        self.face_model = pipeline.face_model
        with progress_bar() as (bar, task):
            bar.update(task, description="looking through the video")
            self.clip = look_through(path, SPREAD)
            bar.update(task, description="looking for the person")
            cast = find_person(self.clip, pipeline)
            self.parts = Parts(out, wanted)
            bar.update(task, description=f"fitting {len(cast.placed)} frames together")
            self.person = self._solved(cast)
        shape = self.person.identity, self.person.albedo
        bounds, contour = pipeline.settings.expression_bounds, pipeline.detector.contour and pipeline.shipped is None
        self.fitter = FrameFitter(self.face_model, *shape, bounds, contour)
        pictures = [one.photo.pixels for one in cast.placed]
        points = [one.detected.landmarks for one in cast.placed]
        seen = [seen_face(pipeline, *pair, pair[1]) for pair in zip(pictures, points, strict=True)]
        self.fitter.learn_eyes(windows(pictures, seen, self.person.intrinsics))

    def reconstruct(self) -> None:
        """Every frame, then the files."""
        done, clock = 0, time.perf_counter()
        try:
            with progress_bar(2 * self.clip.count) as (bar, task):
                tables = []
                bar.update(task, description="following")
                for table in self._tables():
                    tables.append(table)
                    done += len(table.seconds)
                    bar.update(task, completed=done)
                table = FrameTable.joined(tables)
                if not table.found.any():
                    raise UserError(
                        f"{self.clip.path}: the face was lost in every frame; try a sharper or larger picture"
                    )
                bounds = self.pipeline.settings.expression_bounds
                motion = smooth_motion(table, self.face_model.expression_names, bounds)
                with replacing(self.out) as folder:
                    self._write(folder, motion, bar, task)
        except KeyboardInterrupt:
            told = f"{done} of {self.clip.count} frames are finished, in {self.parts.folder}"
            raise KeyboardInterrupt(f"{told}; reconstruct {self.clip.path} again to go on") from None
        self.parts.remove()
        self._tell(motion, self.clip.count / (time.perf_counter() - clock))

    def _solved(self, cast: Cast) -> FollowedPerson:
        """The person of the spread frames, which an earlier run may have solved."""
        result = self._kept_solution(len(cast.placed))
        if result is None:
            result = self.pipeline.solve_together([one.aligned for one in cast.placed])
            arrays = {"landmarks": result.landmarks, "landmark_vertices": result.landmark_vertices}
            held = {name: value.numpy() for name, value in (arrays | result.coefficients.named()).items()}
            self.parts.keep("person", held)
        mesh = neutral_mesh(self.pipeline.finished(cast.placed, result))
        height, width = self.clip.size
        scale = float(np.median([one.aligned.alignment.scale for one in cast.placed]))
        intrinsics = default_intrinsics(CROP_SIZE) / scale
        intrinsics[:, 2] = torch.tensor([width / 2, height / 2, 1.0])
        coefficients = result.coefficients
        return FollowedPerson(cast, coefficients.identity[0], coefficients.albedo[0], mesh, intrinsics)

    def _kept_solution(self, views: int) -> FitResult | None:
        arrays = self.parts.arrays("person")
        if arrays is None or len(arrays.get("landmarks", [])) != views:
            return None
        held = {name: torch.from_numpy(value) for name, value in arrays.items()}
        landmarks, vertices = held.pop("landmarks"), held.pop("landmark_vertices")
        return FitResult(Coefficients.from_named(held), landmarks, vertices)

    def _tables(self) -> Iterator[FrameTable]:
        """The clip's frames chunk by chunk, from an earlier run as far as it came."""
        follower = Follower(self.clip, self.pipeline, self.person.cast)
        coming = islice(frames(self.clip.path), self.clip.count)
        for number in range(math.ceil(self.clip.count / CHUNK)):
            chunk = list(islice(coming, CHUNK))
            table = self.parts.read(number)
            if table is None:
                seen = [(follower.follow(frame), follower.scene) for frame in chunk]
                table = self._followed(chunk, [found for found, _ in seen], [scene for _, scene in seen])
                self.parts.write(number, table)
            else:
                follower.resume(chunk[-1], *_state(table))
            yield table

    def _followed(self, chunk: list[Frame], found: list[Found | None], scenes: list[int]) -> FrameTable:
        """Solve the frames of a chunk that show the person."""
        rows = [row for row, one in enumerate(found) if one is not None]
        count = len(chunk)
        table = FrameTable(
            seconds=np.array([frame.seconds for frame in chunk]),
            found=np.array([one is not None for one in found]),
            scene=np.array(scenes),
            landmarks=np.zeros((count, 68, 2)),
            angles=np.zeros((count, 3)),
            translation=np.zeros((count, 3)),
            expression=np.zeros((count, self.face_model.expression_size)),
            illumination=np.zeros((count, 27)),
        )
        if rows:
            held = [one for one in found if one is not None]
            solved = self.fitter(windows([chunk[row].pixels for row in rows], held, self.person.intrinsics))
            table.landmarks[rows] = [one.landmarks for one in held]
            for name in ("angles", "translation", "expression", "illumination"):
                getattr(table, name)[rows] = getattr(solved, name).double().numpy()
        return table

    def _write(self, folder: Path, motion: SmoothMotion, bar: Progress, task: TaskID) -> None:
        bar.update(task, description="drawing")
        camera, mesh = self.person.intrinsics, self.person.mesh
        film = Film(folder / "video.mp4", self.clip, motion, self.fitter.person, camera)
        for _ in film.drawn(islice(frames(self.clip.path), self.clip.count)):
            bar.advance(task)
        write_mesh(mesh, folder)
        write_animation(folder / "animation.glb", mesh, motion, self.clip.size, camera)
        write_table(folder / "frames.csv", motion, self.face_model.expression_names, camera)
        cast = self.person.cast
        content = {
            **common_record(self.pipeline),
            **self.wanted,
            "source": printable(str(self.clip.path)),
            "frames": self.clip.count,
            "damage": self.clip.damage,
            "size": list(self.clip.size),
            "status": {kind: int((motion.status == kind).sum()) for kind in (FOUND, INTERPOLATED, ABSENT)},
            "people_at_once": cast.most,
            "solved_together": [one.photo.source for one in cast.placed],
            "intrinsics": camera.tolist(),
            "identity": self.person.identity.tolist(),
            "albedo": self.person.albedo.tolist(),
        }
        write_marker(folder, content)

    def _tell(self, motion: SmoothMotion, rate: float) -> None:
        shown, count = Path(printable(str(self.out))), len(motion.seconds)
        number = {kind: int((motion.status == kind).sum()) for kind in (FOUND, INTERPOLATED, ABSENT)}
        if self.clip.damage is not None:
            print(f"damaged       {self.clip.damage}; the {counted(count, 'frames')} before that are used")
        if self.person.cast.most > 1:
            print(
                f"people        {self.person.cast.most} at once; the one that is followed is in {shown / 'video.mp4'}"
            )
        found = f"with the face in {number[FOUND]}, bridged in {number[INTERPOLATED]}"
        print(f"frames        {count}, {found}; {rate:.1f} a second")
        print(f"film          {shown / 'video.mp4'}")
        print(f"animation     {shown / 'animation.glb'}")
        print(f"table         {shown / 'frames.csv'}")


def windows(pictures: Sequence[np.ndarray], found: Sequence[Found], intrinsics: Tensor) -> Windows:
    """The squares round the face of B frames.

    Args:
        pictures: (H, W, 3) uint8 each.
        found: the face in each.
        intrinsics: (3, 3) of the frames.
    """
    images, cameras, landmarks = [], [], []
    for picture, one in zip(pictures, found, strict=True):
        low, high = one.landmarks.min(axis=0), one.landmarks.max(axis=0)
        scale = WINDOW / (REACH * float((high - low).max()))
        shift = WINDOW / 2 - scale * (low + high) / 2
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        images.append(warp(picture, matrix, (WINDOW, WINDOW), cv2.BORDER_REPLICATE))
        cameras.append(torch.from_numpy(np.vstack([matrix, [0, 0, 1]])).float() @ intrinsics)
        landmarks.append(scale * one.landmarks + shift)
    return Windows(
        image=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255,
        intrinsics=torch.stack(cameras),
        landmarks=torch.from_numpy(np.stack(landmarks)).float(),
        expected=torch.from_numpy(np.stack([one.expected for one in found])).float(),
    )


def _state(table: FrameTable) -> tuple[np.ndarray | None, int, int]:
    """What `Follower.resume` asks for, after the frames of a table."""
    rows, scene = np.flatnonzero(table.found), int(table.scene[-1])
    if not len(rows) or table.scene[rows[-1]] != scene:
        return None, scene, 0
    return table.landmarks[rows[-1]], scene, len(table.found) - 1 - int(rows[-1])
