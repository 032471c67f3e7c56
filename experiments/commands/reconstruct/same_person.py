"""Several photographs of one person: one identity and one texture; an expression, a pose and a light each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

from datamodules.preparation.file_names import printable
from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.counting import counted
from experiments.commands.reconstruct.export import FaceMesh
from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.output import replacing, write_marker
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import PlacedFace, Progress, ReconstructionPipeline
from experiments.commands.reconstruct.report import index_page, thumbnail
from experiments.commands.reconstruct.results import common_record, nme_line, progress_bar, write_mesh, write_result
from losses.encoders import DlibEncoder
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError, reason

MOST = 24  # photographs that are solved as one problem, whose cost grows with the cube of their number
# Above this distance of dlib's features two photographs are taken to show two people. Chosen on 60 development heads:
# of 151 pairs of one person 9 % are farther apart, of 12,890 pairs of two people 9 % are nearer. dlib's limit is 0.6.
DIFFERENT = 0.55


@dataclass(frozen=True)
class Person:
    """One person in N photographs.

    Attributes:
        photos: the photographs that show a face.
        views: the person in each of them.
        neutral: the face without expression, with the texture of all photographs.
        distances: (N, N) between the photographs' identity features.
        strangers: the photographs that seem to show another person, and their distances, see `strangers`.
        skipped: where a photograph came from -> why it was left out.
    """

    photos: list[Photo]
    views: list[ReconstructedFace]
    neutral: FaceMesh
    distances: np.ndarray
    strangers: list[tuple[int, float]]
    skipped: dict[str, str]


def solve_person(
    paths: Sequence[Path], pipeline: ReconstructionPipeline, tell: Progress = lambda stage: None
) -> Person:
    """Solve photographs of one person as one problem.

    Where a photograph shows several faces, the one is taken that is most like the others' (`most_alike`).

    Raises:
        UserError: fewer than two photographs with a face, or too many of them.
    """
    if len(paths) > MOST:
        raise UserError(f"--same-person takes {MOST} photographs at most, and here are {len(paths)}; leave some out")
    found: list[tuple[Photo, list[DetectedFace], float]] = []
    skipped: dict[str, str] = {}
    for number, path in enumerate(paths, start=1):
        tell(f"detecting in photograph {number} of {len(paths)}")
        try:
            photo = open_photo(path)
            found.append((photo, *pipeline.detect(photo)))
        except UserError as error:
            skipped[printable(str(path))] = printable(reason(error)).removeprefix(f"{printable(str(path))}: ")
    if len(found) < 2:
        why = "".join(f"; {place}: {text}" for place, text in skipped.items())
        raise UserError(f"--same-person needs two photographs that show a face, and here is {len(found)}{why}")
    candidates = [[pipeline.placed(photo, face, seconds) for face in faces] for photo, faces, seconds in found]
    placed, features = most_alike(candidates)
    tell(f"fitting {len(placed)} photographs together")
    views = pipeline.finished(placed, pipeline.solve_together([view.aligned for view in placed]))
    distances = torch.cdist(features, features).double().numpy()
    photos = [photo for photo, *_ in found]
    return Person(photos, views, neutral_mesh(views), distances, strangers(distances), skipped)


def most_alike(candidates: Sequence[Sequence[PlacedFace]]) -> tuple[list[PlacedFace], torch.Tensor]:
    """One face of each of N photographs, and their identity features (N, 128).

    The largest face of the photograph with the fewest faces leads. Of every other photograph its nearest is taken.
    """
    encoder = DlibEncoder()
    features = []
    with torch.no_grad():
        for faces in candidates:
            images = torch.cat([face.aligned.image for face in faces])
            features.append(encoder(images, torch.cat([face.aligned.landmarks for face in faces])))
    first = min(range(len(candidates)), key=lambda k: len(candidates[k]))
    lead = features[first][max(range(len(candidates[first])), key=lambda k: candidates[first][k].detected.area)]
    rows = [int((own - lead).norm(dim=1).argmin()) for own in features]
    chosen = [faces[row] for faces, row in zip(candidates, rows, strict=True)]
    return chosen, torch.stack([own[row] for own, row in zip(features, rows, strict=True)])


def strangers(distances: np.ndarray) -> list[tuple[int, float]]:
    """The photographs that seem to show somebody else than most do, and how far each is from the nearest of these.

    Photographs nearer than `DIFFERENT` are one person's, and so are those that a chain of such photographs joins.

    Args:
        distances: (N, N) between identity features.

    >>> import numpy as np
    >>> strangers(np.array([[0.0, 0.3, 0.9], [0.3, 0.0, 0.8], [0.9, 0.8, 0.0]]))
    [(2, 0.8)]
    """
    _, groups = connected_components(distances < DIFFERENT, directed=False)
    most = groups == np.bincount(groups).argmax()
    return [(row, float(distances[row, most].min())) for row in np.flatnonzero(~most).tolist()]


def neutral_mesh(views: Sequence[ReconstructedFace]) -> FaceMesh:
    """The face that the views share, all its expressions at weight 0."""
    mesh = views[0].mesh
    if mesh.morph is None:
        return mesh
    still = replace(mesh.morph, weights=np.zeros_like(mesh.morph.weights))
    return replace(mesh, vertices=still.neutral, normals=still.neutral_normals, morph=still)


def reconstruct_person(paths: Sequence[Path], out: Path, pipeline: ReconstructionPipeline) -> None:
    """Reconstruct photographs of one person into `out`, and print where the results are.

    `out` gets the neutral mesh, a folder `view_N` for each photograph as `write_result` makes it, a page that links
    them, and `reconstruction.json` with every camera.

    Raises:
        UserError: as `solve_person`; or `out` cannot be written.
    """
    with replacing(out) as folder, progress_bar() as (bar, task):
        person = solve_person(paths, pipeline, lambda stage: bar.update(task, description=stage))
        bar.update(task, description="writing")
        write_person(folder, person, pipeline)
    shown = Path(printable(str(out)))
    for place, why in person.skipped.items():
        print(f"skipped       {place}: {why}")
    for row, distance in person.strangers:
        print(f"warning       {stranger_warning(person.photos[row], distance)}")
    print(f"person        in {counted(len(person.views), 'photographs')}")
    print(f"landmark NME  {nme_line((face.landmark_nme, face.detected.confidence) for face in person.views)}")
    print(f"neutral mesh  {shown / 'mesh.glb'}")
    print(f"views         {shown / 'view_1'} and so on, in the order of the photographs")
    print(f"report        {shown / 'report.html'}")


def stranger_warning(photo: Photo, distance: float) -> str:
    """What is said of a photograph that `strangers` names."""
    return (
        f"{photo.source} may show another person: its face is {distance:.2f} from the nearest of the others, and one "
        f"person's are seldom farther apart than {DIFFERENT}"
    )


def write_person(folder: Path, person: Person, pipeline: ReconstructionPipeline) -> None:
    """Write the neutral mesh, each view's results and the page of all into `folder`, which is empty."""
    write_mesh(person.neutral, folder)
    cards: list[tuple[str, str, str]] = []
    records: list[dict[str, Any]] = []
    for number, (photo, face) in enumerate(zip(person.photos, person.views, strict=True), start=1):
        name = f"view_{number}"
        (folder / name).mkdir()
        overlay = write_result(folder / name, photo, [face], pipeline)
        line = f"{photo.name}, NME {nme_line([(face.landmark_nme, face.detected.confidence)])}"
        cards.append((name, line, thumbnail(overlay)))
        size = {"source": photo.source, "photo_size": [photo.pixels.shape[1], photo.pixels.shape[0]]}
        records.append(size | face.record() | {"folder": name})
    warned = {person.photos[row].source: stranger_warning(person.photos[row], d) for row, d in person.strangers}
    page = index_page(f"{len(person.views)} photographs of one person", cards, person.skipped | warned, {})
    write_bytes(folder / "report.html", page.encode(errors="backslashreplace"))
    content = {
        **common_record(pipeline),
        "views": records,
        "identity_distances": np.round(person.distances, 4).tolist(),
        "another_person": [
            {"source": person.photos[row].source, "distance": round(distance, 4), "limit": DIFFERENT}
            for row, distance in person.strangers
        ],
        "skipped": person.skipped,
    }
    write_marker(folder, content)
