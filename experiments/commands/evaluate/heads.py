"""Errors of the shipped network or a checkpoint on held-out synthetic heads with exact truth, for groups of heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from datamodules.batch import FaceBatch
from datamodules.head_crops import HeadCrops
from datamodules.synthesis.people import HeadSettings, nearest_tone
from datamodules.synthesis.scenes import SceneSettings
from experiments.commands.evaluate.predictions import ready
from experiments.commands.evaluate.results import SHOWN, Evaluation, Request
from experiments.commands.reconstruct.results import progress_bar
from experiments.training.shipped_model import REMEDY, load_default_model
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import face_panels
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.dense_face import DenseFace
from lightning_modules.dense_face.network import eye_units
from lightning_modules.dense_face.targets import gaze, seen_by_default_camera
from losses.aspect_ratio import aspect_ratios
from losses.metrics import landmark_nme, shape_errors
from renderers.coefficients import Coefficients
from renderers.face_models.default.albedo import skin_colors
from renderers.face_models.default.population import Survey, load_survey
from renderers.face_models.default.whole_head import load_whole_head
from renderers.face_models.linear import LinearModel
from renderers.face_models.load import load_face_model
from renderers.io.errors import UserError
from renderers.landmarks68 import INNER_MOUTH

SETTINGS = SceneSettings(views=1, light_change=0.3, heads=HeadSettings(zoom=(0.72, 0.95)))  # the recipe's
YAWS = {0: 20, 20: 40, 40: 60, 60: 90}  # degrees, from and to, of the groups
ALL = "all"
BATCH = 32  # heads drawn at once; the camera's effects, and so the figures, depend on it
LEAST_PICTURE = 128  # pixels along a side of the drawn heads; more for networks that see crops of more than 112
COLUMNS = {
    "NME": "nme",
    "yaw": "yaw_error_deg",
    "shape": "shape_rmse_mm",
    "mean face": "mean_face_shape_rmse_mm",
    "size": "size_error_percent",
}
SEXES = {True: "like men", False: "like women"}  # by the distances that the survey of the face model measures
LIDS = ((37, 38), (43, 44))  # landmarks of the upper lids, which a shut eye shows too
MOUTH_SEEN = 4  # of the inner mouth's 8 landmarks that are visible
LEAST_SEEN = 8  # eyes or mouths, of which a correlation is told
CORRELATIONS = {
    "lids": "eyes_opening_correlation",
    "mouth": "mouth_opening_correlation",
    "gaze aside": "gaze_aside_correlation",
    "gaze up": "gaze_up_correlation",
}


def evaluate(module: FaceModule | None, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Measure `module`, or the shipped network, on the test heads of a seed; see `command.Suite`.

    Raises:
        UserError: the face model is not the embedded default, or there is no shipped network.
    """
    network = module or _shipped()
    if network.face_model.name != "default":
        raise UserError(
            f"face model {network.face_model.name}: heads are drawn with the default one alone: "
            "give a checkpoint trained with that"
        )
    ready(network)
    count = request.subjects
    size = network.image_size
    data = HeadCrops(
        network.face_model, size, max(LEAST_PICTURE, size * 8 // 7), BATCH, test_faces=count, seed=request.seed,
        settings=SETTINGS,
    )  # fmt: skip
    found: dict[str, list[float]] = {}
    groups: list[set[str]] = []
    states: list[Tensor] = []
    seen: list[Tensor] = []
    panels: dict[str, Tensor] = {}
    with progress_bar(count) as (bar, task):
        bar.update(task, description="evaluating")
        for drawn in data.test_dataloader():
            batch = data.on_after_batch_transfer(drawn.to(network.device), 0)
            truth, answer = _truth(network, batch), network.reconstruct(batch.image)
            for name, values in _errors(network, batch, truth, answer).items():
                found.setdefault(name, []).extend(values.tolist())
            groups += _groups(truth)
            states.append(torch.stack([_states(network, faces) for faces in (truth, answer.coefficients)]))
            seen.append(_seen(batch))
            if not panels:
                pictures = face_panels(batch.image, answer.rendering)
                panels = {name: picture[:SHOWN].cpu() for name, picture in pictures.items()}
            bar.advance(task, len(batch))
    sets = {
        name: {
            metric: [value for value, own in zip(values, groups, strict=True) if name in own]
            for metric, values in found.items()
        }
        for name in sorted(set.union(*groups), key=_order)
    }
    states_of, seen_of = torch.cat(states, dim=1), torch.cat(seen)
    rows = {name: torch.tensor([name in own for own in groups]) for name in sets}
    pooled = {name: _correlations(states_of[:, own], seen_of[own]) for name, own in rows.items()}
    return Evaluation("exact", sets, panels, pooled=pooled)


def _shipped() -> DenseFace:
    face_model = load_face_model("default")
    network = load_default_model(face_model)
    if network is None:
        raise UserError(f"there is no shipped network for this face model; {REMEDY}")
    assert isinstance(face_model, LinearModel)
    return DenseFace.around(network, face_model)


def _truth(network: FaceModule, batch: FaceBatch) -> Coefficients:
    """The heads' coefficients under the default camera, for which networks answer."""
    assert batch.truth is not None
    given = network.regressor.layout.split(batch.truth.coefficients)
    return seen_by_default_camera(given, batch.intrinsics, batch.size[1])


@torch.no_grad()
def _errors(network: FaceModule, batch: FaceBatch, truth: Coefficients, answer: Reconstruction) -> dict[str, Tensor]:
    """Metric -> (B,). Shapes are compared without expression."""
    found, model = answer.coefficients, network.face_model
    still = torch.zeros_like(truth.expression)
    true = model.shape(truth.identity, still)
    shape, size = shape_errors(model.shape(found.identity, still), true)
    mean, _ = shape_errors(model.shape(torch.zeros_like(truth.identity), still), true)
    return {
        "nme": landmark_nme(answer.rendering.landmarks, batch.landmarks),
        "yaw_error_deg": (found.angles[:, 1] - truth.angles[:, 1]).rad2deg().abs(),
        "shape_rmse_mm": shape,
        "mean_face_shape_rmse_mm": mean,
        "size_error_percent": size.abs(),
    }


def _groups(truth: Coefficients) -> list[set[str]]:
    """The sets that each head belongs to."""
    mean, directions = skin_colors()
    tones = nearest_tone(mean + truth.albedo[:, :3].cpu().numpy() @ directions)
    yaws = truth.angles[:, 1].rad2deg().abs().tolist()
    least = [max(low for low in YAWS if low <= yaw) for yaw in yaws]
    return [
        {ALL, f"yaw {low} to {YAWS[low]}", f"tone {tone + 1}", SEXES[man]}
        for low, tone, man in zip(least, tones.tolist(), _like_men(truth.identity.cpu().numpy()), strict=True)
    ]


def _like_men(identity: np.ndarray) -> list[bool]:
    """Of neutral heads with coefficients (B, I). Nobody's sex is drawn, only distances as both have them."""
    mean, basis, survey = _measured()
    found: list[bool] = survey.like_men(survey.measure(mean + np.einsum("vck,bk->bvc", basis, identity))).tolist()
    return found


@cache
def _measured() -> tuple[np.ndarray, np.ndarray, Survey]:
    """Mean (N, 3) and identity basis (N, 3, I) of the vertices that the survey measures, and the survey."""
    head = load_whole_head()
    used, survey = load_survey().compact()
    return head.mean_shape[used], head.identity_basis[used], survey


def _order(name: str) -> tuple[int, int, str]:
    """The key by which sets are sorted: all first, then by yaw, sex and tone."""
    kinds = (ALL, "yaw", "like", "tone")
    words = name.split()
    return kinds.index(words[0]), next((int(word) for word in words if word.isdigit()), 0), name


@torch.no_grad()
def _states(network: FaceModule, faces: Coefficients) -> Tensor:
    """(B, 7): aspect ratios of both eyes and the mouth on the model, where the pose does not matter; how far each eye
    looks outwards, and up, in shares of a full weight."""
    model = network.face_model
    ratios = aspect_ratios(model.landmarks(model.shape(faces.identity, faces.expression)))
    looks = gaze(faces.expression, eye_units(model.expression_names))
    return torch.cat([ratios, looks.transpose(1, 2).flatten(1)], dim=1)


def _seen(batch: FaceBatch) -> Tensor:
    """(B, 3) bool: whether the right eye, the left eye and the mouth are seen."""
    assert batch.truth is not None and batch.truth.landmarks_visible is not None
    visible = batch.truth.landmarks_visible
    eyes = [visible[:, lid].all(dim=1) for lid in LIDS]
    return torch.stack([*eyes, visible[:, INNER_MOUTH].sum(dim=1) >= MOUTH_SEEN], dim=1)


def _correlations(states: Tensor, seen: Tensor) -> dict[str, float]:
    """How true and found states (2, N, 7) correlate, see `_states`, of what is seen (N, 3); both eyes are one set.

    Left out is what is seen of fewer than `LEAST_SEEN` eyes or mouths, and what the answers say alike of all.
    """
    columns = {
        "eyes_opening": ([0, 1], [0, 1]), "mouth_opening": ([2], [2]), "gaze_aside": ([3, 4], [0, 1]),
        "gaze_up": ([5, 6], [0, 1]),
    }  # fmt: skip
    chosen = {name: states[:, :, values][:, seen[:, parts]] for name, (values, parts) in columns.items()}
    return {
        f"{name}_correlation": float(torch.corrcoef(pairs)[0, 1])
        for name, pairs in chosen.items()
        if pairs.shape[1] >= LEAST_SEEN and bool((pairs.amax(dim=1) > pairs.amin(dim=1)).all())
    }


def table(evaluation: Evaluation) -> Table:
    """See `experiments.commands.evaluate.command.Suite`."""
    view = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption_justify="left",
        title=f"{evaluation.subjects} synthetic heads that training never saw",
        caption="NME of the 68 landmarks, %; yaw, degrees; shape: RMSE of the neutral face after a similarity, mm, and "
        "the mean face's beside it; size, %. Of eyes and mouths that are seen: how the opening of lids and mouth, and "
        "the gaze, correlate with the true ones. Heads are like men or women by the survey's distances.",
    )  # fmt: skip
    view.add_column("", no_wrap=True)
    for column in ("heads", *COLUMNS, *CORRELATIONS):
        view.add_column(column, justify="right")
    for name, metrics in evaluation.summary().items():
        figures = [f"{metrics[metric]['mean']:.2f}" for metric in COLUMNS.values()]
        told = evaluation.pooled[name]
        figures += [f"{told[key]:.2f}" if key in told else "" for key in CORRELATIONS.values()]
        view.add_row(name, str(evaluation.counts[name]), *figures)
    return view
