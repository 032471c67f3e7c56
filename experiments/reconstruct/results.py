"""From reconstructed faces to the files of a result, for one photograph or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from datamodules.alignment import Alignment, warp
from experiments.reconstruct.detail import write_detail
from experiments.reconstruct.export import beside, draw_on, write_glb, write_obj
from experiments.reconstruct.output import replacing, write_marker
from experiments.reconstruct.pipeline import Photo, ReconstructedFace, Reconstructor, open_photo
from experiments.reconstruct.report import face_folder, index_page, report_page, thumbnail
from renderers.errors import UserError

OVERLAY_SIDE = 2048  # pixels; larger photographs are shrunk for overlay.png


def reconstruct_photo(photo: Photo, out: Path, reconstructor: Reconstructor) -> None:
    """Reconstruct one photograph into `out`, and print where the results are.

    Raises:
        UserError: no face, or `out` cannot be written.
    """
    with replacing(out) as folder, progress_bar() as (bar, task):
        found = reconstructor.reconstruct(photo, lambda stage: bar.update(task, description=stage))
        bar.update(task, description="writing")
        write_result(folder, photo, found, reconstructor)
    print(f"landmark NME  {nme_line(found)}")
    for number, face in enumerate(found):
        place = out / face_folder(number, len(found))
        print(f"mesh          {place / 'mesh.glb'}")
        if face.detail is not None:
            print(f"detail        {place / 'detail' / 'mesh.glb'}, and its maps beside it")
    print(f"overlay       {out / 'overlay.png'}")
    print(f"report        {out / 'report.html'}")


def reconstruct_folder(source: Path, out: Path, reconstructor: Reconstructor) -> None:
    """Reconstruct every photograph of a folder into folders of `out`; what cannot be is listed with its reason.

    Raises:
        UserError: an empty folder, one in which nothing could be reconstructed, or `out` cannot be written.
    """
    paths = photo_paths(source)
    done: list[tuple[str, str, str]] = []
    records: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    with replacing(out) as folder, progress_bar(len(paths)) as (bar, task):
        for path, name in result_names(paths).items():
            bar.update(task, description=path.name)
            try:
                photo = open_photo(path)
                found = reconstructor.reconstruct(photo)
            except UserError as error:
                skipped[path.name] = str(error).removeprefix(f"{path}: ")
            else:
                (folder / name).mkdir()
                overlay = write_result(folder / name, photo, found, reconstructor)
                count = "1 face" if len(found) == 1 else f"{len(found)} faces"
                done.append((name, f"{count}, NME {nme_line(found)}", thumbnail(overlay)))
                records[path.name] = {"folder": name, "landmark_nme": [round(face.landmark_nme, 4) for face in found]}
            bar.advance(task)
        for name, reason in skipped.items():
            print(f"skipped       {name}: {reason}")
        if not done:
            raise UserError(f"{source}: none of its {len(paths)} files could be reconstructed")
        (folder / "index.html").write_text(index_page(source.resolve().name, done, skipped), encoding="utf-8")
        write_marker(folder, "index.json", {"source": str(source), "photos": records, "skipped": skipped})
    mean = np.mean([error for record in records.values() for error in record["landmark_nme"]])
    print(f"reconstructed {len(done)} of {len(paths)} files, mean landmark NME {mean:.2f} %")
    print(f"reports       {out / 'index.html'}")


def photo_paths(source: Path) -> list[Path]:
    """The visible files of a folder, frame 2 before frame 10.

    Raises:
        UserError: there are none.
    """
    paths = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise UserError(f"{source}: no files in this folder; put photographs or video frames into it")
    return sorted(paths, key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)])


def result_names(paths: list[Path]) -> dict[Path, str]:
    """Each photograph's folder: its name without the ending, or with it where two photographs differ in that alone."""
    stems = [path.stem.lower() for path in paths]
    reserved = {"index"}
    return {
        path: path.name.replace(".", "_") if stems.count(stem) > 1 or stem in reserved else path.stem
        for path, stem in zip(paths, stems, strict=True)
    }


def write_result(
    folder: Path, photo: Photo, found: list[ReconstructedFace], reconstructor: Reconstructor
) -> np.ndarray:
    """Write meshes, overlay, report and `reconstruction.json` into `folder`.

    Returns:
        The photograph with all faces drawn on it, (H, W, 3) uint8, at most `OVERLAY_SIDE` pixels.
    """
    for number, face in enumerate(found):
        place = folder / face_folder(number, len(found))
        place.mkdir(exist_ok=True)
        write_obj(face.mesh, place)
        write_glb(face.mesh, place / "mesh.glb")
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
    (folder / "report.html").write_text(
        report_page(photo, overlay, found, reconstructor.face_model.expression_names, about(photo, reconstructor)),
        encoding="utf-8",
    )
    model = reconstructor.face_model
    content: dict[str, object] = {
        "version": project_version(),
        "source": photo.source,
        "photo_size": [photo.pixels.shape[1], photo.pixels.shape[0]],
        "face_model": {"name": model.name, "fingerprint": model.fingerprint()},
        "expression_names": list(model.expression_names),
        "checkpoint": reconstructor.checkpoint,
        "detector": reconstructor.detector.name,
        "refined": reconstructor.refine,
        "faces": [face.record() for face in found],
    }
    write_marker(folder, "reconstruction.json", content)
    return overlay


def _shrunk(pixels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The picture at no more than `OVERLAY_SIDE`, and its pixels (x, y) per photograph pixel."""
    height, width = pixels.shape[:2]
    factor = min(1.0, OVERLAY_SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    scale = (size[1] / width, size[0] / height)
    if factor == 1.0:
        return pixels, scale
    return warp(pixels, np.array([[scale[0], 0, 0], [0, scale[1], 0]]), size), scale


def about(photo: Photo, reconstructor: Reconstructor) -> dict[str, str]:
    """What made a result, for the report's table."""
    model = reconstructor.face_model
    height, width = photo.pixels.shape[:2]
    return {
        "Source": photo.source,
        "Photo": f"{width} x {height} px",
        "Face model": f"{model.name} ({model.fingerprint()})",
        "Checkpoint": reconstructor.checkpoint or "none: optimization from the mean face",
        "Refined by optimization": "yes" if reconstructor.refine else "no",
        "Landmark detector": reconstructor.detector.name,
        "monoface": project_version(),
    }


def nme_line(found: list[ReconstructedFace]) -> str:
    """The NME of every face, in percent."""
    return ", ".join(f"{face.landmark_nme:.2f} %" for face in found)


def project_version() -> str:
    """The installed version, or "source" when run from files that were never installed."""
    try:
        return version("monoface")
    except PackageNotFoundError:
        return "source"


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[tuple[Progress, TaskID]]:
    """A rich progress bar on stderr that leaves nothing behind; none where stderr is no terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar, bar.add_task("", total=total)
