"""The faces of ROGUE's suite with their truth: synthetic ones, or a user's photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from datamodules.batch import FaceBatch
from datamodules.collate import collate_faces
from datamodules.photo_folder import PreparedFaces
from datamodules.preparation.prepared_folder import PhotoIndex, PreparedFace, prepared_index
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticMultiView
from experiments.commands.evaluate.fitted_truth import faces_to_fit, fitted, fitted_coefficients
from experiments.commands.evaluate.results import Request
from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import RunFolder
from experiments.training.stored_module import Builder
from renderers.face_models.base import MorphableModel
from renderers.io.errors import UserError


@dataclass(frozen=True)
class Subjects:
    """Faces that training has not seen.

    Attributes:
        truth: source of their coefficients.
        count: number of faces.
        batches: (batch, (B, L) true coefficients in the face model's layout), one picture for each subject.
    """

    truth: Literal["exact", "fitted"]
    count: int
    batches: Iterator[tuple[FaceBatch, Tensor]]


def find_subjects(face_model: MorphableModel, size: int, request: Request, tell: Callable[[str], None]) -> Subjects:
    """The subjects that `request` asks for, as pictures of `size` pixels.

    Raises:
        UserError: `request.data` is no folder of prepared photographs, is damaged, or holds no face.
    """
    training = training_data(request.checkpoint)
    if request.data is None:
        if request.fitted_truth:
            tell(f"fitting the face model to {request.subjects} clean pictures: a second or two each")
        return _synthetic(face_model, size, request, scene_settings(training))
    index = prepared_index(request.data)
    faces = [face for _, face in index.faces()][: request.subjects]
    if len(faces) < request.subjects:
        tell(f"{request.data} holds {len(faces)} faces of the {request.subjects} asked for: evaluating on these")
    root = training.get("root")
    if isinstance(root, str) and Path(root).resolve() == request.data.resolve():
        tell(f"{request.data} is what this checkpoint was trained on: its figures will be better than on new faces")
    new = faces_to_fit(face_model, request.data, faces)
    if new:
        tell(f"fitting the face model to {new} clean photographs: some seconds each, and only this once")
    return Subjects("fitted", len(faces), _photographs(face_model, size, request.data, index, faces, request))


def training_data(checkpoint: Path | None) -> dict[str, Any]:
    """The arguments of the data module of a checkpoint's run; empty if the run's folder is unknown.

    If a data module wraps another, the arguments are the inner one's.
    """
    folder = None if checkpoint is None else RunFolder.of_checkpoint(checkpoint)
    try:
        arguments = innermost_arguments(read_yaml(folder.config)["data"]) if folder else {}
    except (UserError, KeyError, TypeError, AttributeError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def innermost_arguments(section: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the data module that reads the faces, in a configuration's `data`; others may wrap it."""
    arguments = section["init_args"]
    while isinstance(arguments.get("data"), dict):
        arguments = arguments["data"]["init_args"]
    return arguments


def scene_settings(training: dict[str, Any]) -> SceneSettings:
    """The scenes on which a network was trained, with one view of each face."""
    told = training.get("settings")
    if not isinstance(told, dict):
        return SceneSettings(views=1)
    known = {field.name for field in dataclasses.fields(SceneSettings)} - {"views", "view_gap"}
    kept = {name: value for name, value in told.items() if name in known}
    settings: SceneSettings = Builder("the settings of the checkpoint's data").build(
        {**kept, "views": 1}, SceneSettings
    )
    return settings


def _synthetic(face_model: MorphableModel, size: int, request: Request, settings: SceneSettings) -> Subjects:
    data = SyntheticMultiView(
        face_model,
        size=size,
        batch_size=request.batch_size,
        test_faces=request.subjects,
        seed=request.seed,
        settings=settings,
    )
    # Drawing the faces has a progress bar of its own, so it must not wait until the first batch is asked for.
    loader = data.test_dataloader()

    def batches() -> Iterator[tuple[FaceBatch, Tensor]]:
        for batch in loader:
            assert batch.truth is not None
            yield batch, fitted(face_model, batch, False) if request.fitted_truth else batch.truth.coefficients

    return Subjects("fitted" if request.fitted_truth else "exact", request.subjects, batches())


def _photographs(
    face_model: MorphableModel, size: int, root: Path, index: PhotoIndex, faces: list[PreparedFace], request: Request
) -> Iterator[tuple[FaceBatch, Tensor]]:
    for start in range(0, len(faces), request.batch_size):
        chosen = faces[start : start + request.batch_size]
        pictures = PreparedFaces(root, chosen, index.size, size)
        batch = collate_faces([pictures[row] for row in range(len(chosen))])
        yield batch, fitted_coefficients(face_model, root, index, chosen)
