"""What the page's buttons and sliders do, without the page."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from experiments.commands.demo.relighting import FacePainter
from experiments.commands.reconstruct.export import clay, draw_on, picture_of
from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.output import RESULT
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import Progress
from experiments.commands.reconstruct.report import face_folder
from experiments.commands.reconstruct.results import write_result
from experiments.commands.reconstruct.same_person import Person, solve_person, stranger_warning, write_person
from experiments.reconstructor import Reconstructor
from renderers.face_renderer import FaceRenderer
from renderers.io.errors import UserError

SIDE = 512  # pixels of the views
PAPER = 255
OBJ_FILES = ("mesh.obj", "mesh.mtl", "mesh.png")


@dataclass(frozen=True)
class ShownFace:
    """One face as the page shows it.

    Attributes:
        label: by which it is chosen.
        photo: where it was found.
        face: the face.
        folder: where its meshes lie.
        record: its `reconstruction.json`.
        renderer: what draws it.
    """

    label: str
    photo: Photo
    face: ReconstructedFace
    folder: Path
    record: Path
    renderer: FaceRenderer

    @cached_property
    def pictures(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The photograph about the face, the face drawn over it, and its bare shape: each (S, S, 3) uint8."""
        pixels, alignment = self.photo.pixels, self.face.alignment
        overlay = draw_on(pixels, self.face.rendering, alignment)
        shape = np.asarray(picture_of(self.face.rendering, clay, SIDE), np.float32)
        opaque = shape[..., 3:] / 255
        on_paper = (shape[..., :3] * opaque + PAPER * (1 - opaque)).round().astype(np.uint8)
        return alignment.crop(pixels), alignment.crop(overlay), on_paper

    @cached_property
    def painter(self) -> FacePainter:
        """Draws it as the sliders say."""
        return FacePainter(self.renderer, self.face)

    @property
    def downloads(self) -> list[Path]:
        """`mesh.glb`, the OBJ with its texture as one ZIP, and `reconstruction.json`."""
        archive = self.folder / "mesh_obj.zip"
        if not archive.exists():
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in OBJ_FILES:
                    packed.write(self.folder / name, name)
        return [self.folder / "mesh.glb", archive, self.record]


@dataclass(frozen=True)
class Result:
    """What the page shows after a press of the button.

    Attributes:
        faces: at least one.
        message: what was found.
        warnings: what the user should look at.
    """

    faces: list[ShownFace]
    message: str
    warnings: list[str]


class Studio:
    """Reconstructs what is dropped on the page.

    Args:
        reconstructor: with everything loaded.
        folder: where results are kept; the caller deletes it.
    """

    def __init__(self, reconstructor: Reconstructor, folder: Path) -> None:
        self.pipeline, self.folder = reconstructor.pipeline, folder
        folder.mkdir(parents=True, exist_ok=True)

    def reconstruct(self, paths: Sequence[Path], tell: Progress = lambda stage: None) -> Result:
        """Every face of one photograph, or the one person of several.

        Args:
            paths: of photographs.
            tell: called with the name of each stage as it begins.

        Raises:
            UserError: no photograph, no picture, or no face in it.
        """
        if not paths:
            raise UserError("drop a photograph first, or take one with the camera")
        out = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            return self._person(paths, out, tell) if len(paths) > 1 else self._photograph(paths[0], out, tell)
        except UserError as error:
            raise UserError(_without_folders(str(error), paths)) from error

    def _photograph(self, path: Path, out: Path, tell: Progress) -> Result:
        photo = _named(open_photo(path))
        found = self.pipeline.reconstruct(photo, tell)
        tell("writing the meshes")
        write_result(out, photo, found, self.pipeline)
        shown = [
            self._shown(f"face {face.number}", photo, face, out / face_folder(face.number, len(found)), out)
            for face in found
        ]
        doubts = [f"face {face.number}: {face.detected.doubt}" for face in found if face.detected.doubt is not None]
        message = "1 face" if len(found) == 1 else f"{len(found)} faces, numbered from left to right"
        return Result(shown, message, doubts)

    def _person(self, paths: Sequence[Path], out: Path, tell: Progress) -> Result:
        person = _with_plain_names(solve_person(paths, self.pipeline, tell))
        tell("writing the meshes")
        write_person(out, person, self.pipeline)
        shown = [
            self._shown(f"photograph {number}: {photo.name}", photo, face, out / f"view_{number}", out)
            for number, (photo, face) in enumerate(zip(person.photos, person.views, strict=True), start=1)
        ]
        warnings = [f"{place} was left out: {why}" for place, why in person.skipped.items()]
        warnings += [stranger_warning(person.photos[row], distance) for row, distance in person.strangers]
        return Result(shown, f"one person in {len(shown)} photographs", warnings)

    def _shown(self, label: str, photo: Photo, face: ReconstructedFace, folder: Path, out: Path) -> ShownFace:
        return ShownFace(label, photo, face, folder, out / RESULT, self.pipeline.renderer)


def _named(photo: Photo) -> Photo:
    """The photograph without the temporary folder in which the page keeps it."""
    return replace(photo, source=Path(photo.source).name)


def _without_folders(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(f"{path.parent}{os.sep}", "")
    return text


def _with_plain_names(person: Person) -> Person:
    skipped = {Path(place).name: why for place, why in person.skipped.items()}
    return replace(person, photos=[_named(photo) for photo in person.photos], skipped=skipped)
