"""From reconstructed faces to the files of a result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from datamodules.preparation.alignment import Alignment, warp
from datamodules.preparation.file_names import printable
from experiments.commands.reconstruct.camera import CONVENTIONS
from experiments.commands.reconstruct.detail import write_detail
from experiments.commands.reconstruct.export import FaceMesh, beside, draw_on, write_obj, write_ply
from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.gltf import glb
from experiments.commands.reconstruct.output import replacing, write_marker
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.report import face_folder, report_page

THUMBNAIL = "thumbnail.jpg"
THUMBNAIL_SIDE = 320  # pixels
OVERLAY_SIDE = 2048  # pixels; larger photographs are shrunk for overlay.png


def reconstruct_photo(photo: Photo, out: Path, pipeline: ReconstructionPipeline) -> None:
    """Reconstruct one photograph into `out`, and print where the results are.

    Raises:
        UserError: no face, or `out` cannot be written.
    """
    with replacing(out) as folder, progress_bar() as (bar, task):
        found = pipeline.reconstruct(photo, lambda stage: bar.update(task, description=stage))
        bar.update(task, description="writing")
        write_result(folder, photo, found, pipeline)
    shown = Path(printable(str(out)))
    print(f"faces         {len(found)}; none smaller than {pipeline.smallest_face(photo):.0f} px was looked for")
    print(f"landmark NME  {nme_line((face.landmark_nme, face.detected.confidence) for face in found)}")
    for face in found:
        if face.detected.doubt is not None:
            print(f"doubtful      face {face.number}: {face.detected.doubt}; look at the overlay")
        place = shown / face_folder(face.number, len(found))
        print(f"mesh          {place / 'mesh.glb'}")
        if face.detail is not None:
            print(f"detail        {place / 'detail' / 'mesh.glb'}, and its maps beside it")
    print(f"overlay       {shown / 'overlay.png'}")
    print(f"report        {shown / 'report.html'}")


def write_result(
    folder: Path,
    photo: Photo,
    found: list[ReconstructedFace],
    pipeline: ReconstructionPipeline,
    more: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Write meshes, overlay, report and `reconstruction.json` into `folder`.

    Args:
        folder: empty.
        photo: the photograph.
        found: its faces.
        pipeline: what found them.
        more: what else `reconstruction.json` is to say.

    Returns:
        The photograph with all faces drawn on it, (H, W, 3) uint8, at most `OVERLAY_SIDE` pixels.
    """
    for face in found:
        place = folder / face_folder(face.number, len(found))
        place.mkdir(exist_ok=True)
        write_mesh(face.mesh, place)
        if face.detail is not None:
            write_detail(face.detail, place / "detail")
    picture, scale = _shrunk(photo.pixels)
    overlay = picture
    # The farthest first, so that nearer faces cover them.
    for face in sorted(found, key=lambda face: face.alignment.scale, reverse=True):
        matrix = face.alignment.matrix / np.array([*scale, 1.0])
        alignment = Alignment(matrix, face.alignment.size)
        overlay = draw_on(overlay, face.rendering, alignment)
    beside(picture, overlay).save(folder / "overlay.png")
    small = Image.fromarray(overlay)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.save(folder / THUMBNAIL, quality=85)
    page = report_page(photo, overlay, found, pipeline.face_model.expression_names, about(photo, pipeline))
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    content: dict[str, Any] = {
        "source": photo.source,
        "photo_size": [photo.pixels.shape[1], photo.pixels.shape[0]],
        **common_record(pipeline),
        **(more or {}),
        "face_count": len(found),
        "smallest_face": round(pipeline.smallest_face(photo), 1),
        "faces": [face.record() | {"folder": face_folder(face.number, len(found))} for face in found],
    }
    write_marker(folder, content)
    return overlay


def write_mesh(mesh: FaceMesh, folder: Path) -> None:
    """Write a mesh in every format."""
    write_obj(mesh, folder)
    write_ply(mesh, folder / "mesh.ply")
    (folder / "mesh.glb").write_bytes(glb(mesh))


def common_record(pipeline: ReconstructionPipeline) -> dict[str, Any]:
    """What every `reconstruction.json` begins with."""
    return {
        **made_with(pipeline),
        "expression_names": list(pipeline.face_model.expression_names),
        "conventions": CONVENTIONS,
        "mesh_units": {"mesh.glb": "metre", "mesh.obj": "millimetre", "mesh.ply": "millimetre"},
    }


def made_with(pipeline: ReconstructionPipeline) -> dict[str, Any]:
    """All that a result depends on but the photograph, as `reconstruction.json` states it."""
    model, checkpoint = pipeline.face_model, pipeline.checkpoint
    return {
        "version": project_version(),
        "face_model": {"name": model.name, "fingerprint": model.fingerprint()},
        "checkpoint": checkpoint,
        "checkpoint_stamp": stamp(Path(checkpoint)) if checkpoint else None,
        "shipped_network": pipeline.shipped.digest if pipeline.shipped is not None else None,
        "detector": pipeline.detector.name,
        "refined": pipeline.refine,
        "fit": json.loads(json.dumps(asdict(pipeline.settings))),
        "detail_size": pipeline.detail_size,
    }


def stamp(path: Path) -> list[int] | None:
    """Bytes and modification time in nanoseconds, by which a changed file is known; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def overlay_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a photograph in its overlay: at most `OVERLAY_SIDE`."""
    factor = min(1.0, OVERLAY_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _shrunk(pixels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture as the overlay shows it, and its pixels (x, y) per photograph pixel."""
    height, width = pixels.shape[:2]
    size = overlay_size(height, width)
    scale = (size[1] / width, size[0] / height)
    if size == (height, width):
        return pixels, scale
    return warp(pixels, np.array([[scale[0], 0, 0], [0, scale[1], 0]]), size), scale


def about(photo: Photo, pipeline: ReconstructionPipeline) -> dict[str, str]:
    """What made a result, for the report's table."""
    model = pipeline.face_model
    height, width = photo.pixels.shape[:2]
    start = "the mean face" if pipeline.shipped is None else "the network that ships with monoface"
    return {
        "Source": photo.source,
        "Photo": f"{width} x {height} px",
        "Face model": f"{model.name} ({model.fingerprint()})",
        "Checkpoint": pipeline.checkpoint or f"none: {start}",
        "Refined by optimization": "yes" if pipeline.refine else "no",
        "Landmark detector": f"{pipeline.detector.name}; no face smaller than "
        f"{pipeline.smallest_face(photo):.0f} px is looked for",
        "monoface": project_version(),
    }


def nme_line(faces: Iterable[tuple[float, str]]) -> str:
    """The NME of every face, in percent, and whether the landmarks that it compares with can be trusted."""
    return ", ".join(f"{error:.2f} % ({confidence})" for error, confidence in faces)


def project_version() -> str:
    """The installed version, or "source" when run from files that were never installed."""
    try:
        return version("monoface")
    except PackageNotFoundError:
        return "source"


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[tuple[Progress, TaskID]]:
    """A rich progress bar on stderr that leaves nothing behind; none where stderr is no terminal.

    Args:
        total: steps; with them it says how much time is left.
    """
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn()]
    columns.append(TimeElapsedColumn())
    if total is not None:
        columns += [MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task("", total=total)
