"""ROGUE's evaluation (sections 4.1 to 4.4): shape, texture and identity of faces behind occlusions and noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from datamodules.batch import FaceBatch
from datamodules.corrupted_faces import EVALUATION, corrupt
from experiments.commands.evaluate.results import SHOWN, Evaluation, Request
from experiments.commands.evaluate.subjects import find_subjects
from experiments.commands.reconstruct.results import progress_bar
from lightning_modules.base import FaceModule
from lightning_modules.components.panels import face_panels
from losses.identity import identity_loss
from losses.metrics import centred_vertex_rmse, shape_errors, texture_rmse, vertex_rmse
from renderers.camera import euler_to_rotation, transform
from renderers.coefficients import Coefficients
from renderers.face_renderer import Rendering

CLEAN = "clean"
DRIFT = "posed_drift_mm"
MEAN_ALONE = ("size_error_percent", DRIFT, "cosine_distance")  # without a deviation: 80 columns hold no more
METRICS = {  # of the printed table, name: (column, decimals)
    "shape_rmse_mm": ("shape", 2),
    "size_error_percent": ("size", 1),
    "posed_rmse_mm": ("posed", 1),
    DRIFT: ("drift", 1),
    "texture_rmse": ("texture", 3),
    "cosine_distance": ("cosine", 3),
}


@dataclass(frozen=True)
class Published:
    """A line of the paper's tables: means, and standard deviations where it gives them."""

    name: str
    shape: tuple[float, ...]
    texture: tuple[float, ...]
    cosine: tuple[float, ...] = ()


PAPER: Mapping[str, tuple[Published, ...]] = {
    "rational": (
        Published("MoFA, table 1", (0.425, 0.187), (0.073, 0.044)),
        Published("R-Net, table 1", (0.146, 0.081), (0.064, 0.035)),
        Published("ROGUE, table 1", (0.048, 0.006), (0.055, 0.013)),
        Published("ROGUE, table 4", (0.048,), (0.055,), (0.32,)),
    ),
    "delusional": (
        Published("MoFA, table 2", (0.872, 5.849), (0.292, 0.314)),
        Published("R-Net, table 2", (0.292, 0.144), (0.197, 0.096)),
        Published("ROGUE, table 2", (0.061, 0.022), (0.059, 0.013)),
        Published("ROGUE, table 7", (0.061,), (0.059,), (0.39,)),
    ),
    "noisy": (
        Published("MoFA, table 3", (0.740, 1.462), (0.222, 0.296)),
        Published("R-Net, table 3", (0.269, 0.112), (0.182, 0.094)),
        Published("ROGUE, table 3", (0.053, 0.010), (0.057, 0.011)),
        Published("ROGUE, table 8", (0.054,), (0.060,), (0.43,)),
    ),
}


def evaluate(module: FaceModule, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Measure `module` on clean, rational, delusional and noisy pictures of the same subjects.

    Raises:
        UserError: photographs that cannot be read, or a network that answers with values that are not finite.
    """
    face_model, layout = module.face_model, module.face_model.layout()
    # Before anything moves to a GPU: synthetic faces and corruptions are drawn on the CPU, the same on every machine.
    subjects = find_subjects(face_model, module.image_size, request, tell)
    corruptions = {name: make() for name, make in EVALUATION.items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.eval().to(device)
    sets: dict[str, dict[str, list[float]]] = {}
    shown: dict[str, list[Tensor]] = {}
    counted = 0
    with progress_bar(subjects.count) as (bar, task):
        bar.update(task, description="evaluating")
        for clean, vector in subjects.batches:
            pictures = {CLEAN: clean.image, **corrupted_pictures(clean, corruptions, request.seed, counted)}
            batch, true = clean.to(device), layout.split(vector.to(device))
            clean_answer = module.reconstruct(batch.image, batch.skin, batch.intrinsics).rendering
            for name, image in pictures.items():
                rendering = clean_answer
                if name != CLEAN:
                    rendering = module.reconstruct(image.to(device), batch.skin, batch.intrinsics).rendering
                errors = face_errors(module, batch, rendering, true)
                if name != CLEAN:
                    errors[DRIFT] = centred_vertex_rmse(rendering.vertices, clean_answer.vertices)
                for metric, values in errors.items():
                    sets.setdefault(name, {}).setdefault(metric, []).extend(values.tolist())
                if counted < SHOWN:
                    for column, picture in _columns(name, image, batch.image, rendering).items():
                        shown.setdefault(column, []).append(picture.cpu())
            counted += len(clean)
            bar.advance(task, len(clean))
    panels = {column: torch.cat(pictures)[:SHOWN] for column, pictures in shown.items()}
    return Evaluation(subjects.truth, sets, panels)


def corrupted_pictures(
    batch: FaceBatch, corruptions: Mapping[str, nn.Module], seed: int, first: int = 0
) -> dict[str, Tensor]:
    """A corrupted copy of every picture by every corruption, each a function of the seed and the subject's number.

    Args:
        batch: of B clean faces.
        corruptions: modules of `datamodules.corruption` by name.
        seed: at least 0.
        first: the number of the batch's first subject.

    Returns:
        name -> (B, 3, H, W) in [0, 1].
    """
    copies: dict[str, list[Tensor]] = {name: [] for name in corruptions}
    for row in range(len(batch)):
        one = slice(row, row + 1)
        face = FaceBatch(batch.image[one], batch.landmarks[one], batch.skin[one], batch.intrinsics[one])
        for place, name in enumerate(corruptions):
            # Each its own stream: what one corruption draws must not change with the others.
            state = np.random.SeedSequence([seed, first + row, place]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            copies[name].append(corrupt(face, {name: corruptions[name]}, generator).corrupted[name])
    return {name: torch.cat(pictures) for name, pictures in copies.items()}


@torch.no_grad()
def face_errors(module: FaceModule, clean: FaceBatch, rendering: Rendering, true: Coefficients) -> dict[str, Tensor]:
    """Every metric of B faces, each (B,).

    Args:
        module: whose face model and identity encoder measure.
        clean: the pictures before they were corrupted.
        rendering: drawn from what the network answered to the corrupted ones.
        true: coefficients of the same faces.
    """
    face_model = module.face_model
    shape = face_model.shape(true.identity, true.expression)
    posed = transform(shape, euler_to_rotation(true.angles), true.translation)
    target_features = module.identity_encoder(clean.image, clean.landmarks)
    rendered_features = module.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)
    aligned, growth = shape_errors(rendering.shape, shape)
    return {
        "vertex_rmse_mm": vertex_rmse(rendering.shape, shape),
        "shape_rmse_mm": aligned,
        "size_error_percent": growth.abs(),
        "posed_rmse_mm": centred_vertex_rmse(rendering.vertices, posed),
        "texture_rmse": texture_rmse(rendering.vertex_albedo, face_model.albedo(true.albedo)),
        "cosine_distance": identity_loss(rendered_features, target_features),
    }


def _columns(name: str, image: Tensor, clean: Tensor, rendering: Rendering) -> dict[str, Tensor]:
    """What the picture shows of a set: the input, its reconstruction over the clean photograph, and the shape."""
    panels = face_panels(clean, rendering)
    return {name: image, f"{name}: overlay": panels["overlay"], f"{name}: shape": panels["shape"]}


def table(evaluation: Evaluation) -> Table:
    """Ours, set by set, and below each the paper's; 80 columns are enough."""
    truth = "the exact truth" if evaluation.truth == "exact" else "fits to the clean pictures"
    view = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
        title=f"ROGUE's evaluation on {evaluation.subjects} subjects against {truth}",
        caption="Ours: RMSE over the vertices in mm (shape: after a similarity, posed: in camera space, less the mean "
        "translation; drift: the same against the answer to the clean picture) and of their albedo in [0, 1], size in "
        "percent, cosine distance of identity features; means over the subjects, ± deviation. The paper's, whose shape "
        "is not aligned and so counts size as well: on CelebA with BFM, in a unit of its own and with another "
        "recognition network, so only orders can be compared.",
        caption_justify="left",
    )
    view.add_column("set", no_wrap=True)
    for column, _ in METRICS.values():
        view.add_column(column, justify="right", no_wrap=True)
    for name, metrics in evaluation.summary().items():
        ours = [_cell(metric, metrics.get(metric), digits) for metric, (_, digits) in METRICS.items()]
        published = PAPER.get(name, ())
        view.add_row(f"{name}, ours", *ours, style="bold", end_section=not published)
        for line in published:
            cells = _published(line.shape), "", "", "", _published(line.texture), _published(line.cosine)
            view.add_row(f"  {line.name}", *cells, style="dim", end_section=line is published[-1])
    return view


def _cell(metric: str, figures: Mapping[str, float] | None, digits: int) -> str:
    if figures is None:
        return ""
    deviation = "" if metric in MEAN_ALONE else f" ± {figures['std']:.{digits}f}"
    return f"{figures['mean']:.{digits}f}{deviation}"


def _published(figures: tuple[float, ...]) -> str:
    return " ± ".join(f"{figure:.3f}" for figure in figures)
