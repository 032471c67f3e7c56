"""`python -m experiments table PAPER --per-image`: a table's rows by optimization of the same loss, without a network.

What a network learns in minutes is far from what its loss allows. Here every picture's coefficients are free, and Adam
minimises the row's loss over them: the bound of what the loss can show.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.batch import FaceBatch
from experiments.commands.evaluate.bootstrap import people_interval
from experiments.commands.reconstruct.pipeline import fit_settings
from experiments.fitting.photometric_fitting import fit
from experiments.training.building import build
from experiments.training.linked_arguments import innermost
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import HEAD_SCALES
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.io.errors import UserError

RATE = 0.03  # of Adam, in the units of a regressor's head (`HEAD_SCALES`)

Figures = dict[str, list[float]]
"""Metric -> one value a person, the mean over their pictures."""


class FreeCoefficients(nn.Module):
    """Stands for a regressor: answers each of B pictures with numbers of its own, whatever the picture shows.

    Attributes:
        rows: the pictures that it is asked for, of all.

    Args:
        start: (B, L) the coefficients at first.
        layout: theirs.
    """

    scale: Tensor

    def __init__(self, start: Tensor, layout: CoefficientLayout) -> None:
        super().__init__()
        self.layout, self.rows = layout, slice(None)
        scale = torch.cat([torch.full((size,), HEAD_SCALES.get(name, 1.0)) for name, size in layout.sizes.items()])
        self.register_buffer("scale", scale, persistent=False)
        self.free = nn.Parameter(start / scale)

    def forward(self, image: Tensor) -> Coefficients:
        """The coefficients of the pictures `rows`."""
        return self.layout.split(self.free[self.rows] * self.scale)


def measure(arguments: Sequence[str], people: int, steps: int) -> Figures:
    """What optimization reaches for the first people of the validation data.

    Args:
        arguments: of `fit`: `--config` and overrides; those of the trainer have no effect.
        people: how many; of each all views.
        steps: of Adam.

    Raises:
        UserError: arguments that do not fit, or a paper whose loss is not one of coefficients alone.
    """

    def change(config: Namespace) -> None:
        given = innermost(config.data).init_args
        given.val_faces, given.train_faces = people, 1

    module, data = build(arguments, change)
    if not module.automatic_optimization:
        raise UserError("--per-image: this paper's rows differ in what networks teach each other, not in a loss alone")
    data.prepare_data()
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    faces: Any = loader.dataset
    whole = faces.__getitems__(list(range(people)))
    free = optimize(module, whole, first_guess(module, whole), steps)
    figures: Figures = {}
    views = len(whole) // people
    for person in range(people):
        free.rows = slice(person * views, (person + 1) * views)
        for name, value in _metrics(module, faces[person]).items():
            figures.setdefault(f"val/{name}", []).append(value)
    return figures


def first_guess(module: FaceModule, batch: FaceBatch) -> Tensor:
    """(B, L): a fit to the landmarks with light and albedo by least squares, the same for every row of a table."""
    layout = module.regressor.layout
    settings = replace(fit_settings(module.face_model, False), landmark_noise=0.005, photometric_iterations=0)
    found = fit(module.face_model, batch.image, batch.landmarks, batch.skin, batch.intrinsics, settings=settings)
    zeros = {name: batch.image.new_zeros(len(batch), size) for name, size in layout.sizes.items()}
    return layout.join(Coefficients.from_named({**zeros, **found.coefficients.named()}))


def optimize(module: FaceModule, batch: FaceBatch, start: Tensor, steps: int) -> FreeCoefficients:
    """Puts `FreeCoefficients` in the regressor's place and lets the module's training loss move them.

    The rate rises in the first tenth and falls to 0, as in training. The loss is a mean over the pictures; Adam does
    not see how many they are.

    Args:
        module: whose loss it is; it keeps the answer.
        batch: of B pictures.
        start: (B, L) the coefficients at first.
        steps: of Adam.
    """
    free = FreeCoefficients(start, module.regressor.layout)
    module.regressor = free  # type: ignore[assignment]
    optimizer = torch.optim.Adam(free.parameters(), lr=RATE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*self\.log\(\).*")  # there is no trainer
        for step in range(steps):
            rise = min(1.0, 10 * (step + 1) / steps)
            optimizer.param_groups[0]["lr"] = RATE * rise * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            loss: Any = module.training_step(batch, step)
            loss.backward()
            optimizer.step()
    return free


@torch.no_grad()
def _metrics(module: FaceModule, batch: FaceBatch) -> dict[str, float]:
    """Those of the validation, of one batch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*self\.log\(\).*")
        module.evaluate("val", batch, 0)
    found: dict[str, float] = {}
    for metrics in (module.metrics, module.own_metrics):
        if metrics is not None:
            found |= {name: float(value) for name, value in metrics.compute().items()}
            metrics.reset()
    return found


def compared(figures: Figures, baseline: Figures, names: Sequence[str]) -> dict[str, Any]:
    """For each metric its mean, the difference from the baseline's with its 95 % interval over people, the values.

    A person who has no finite value in one of the two, such as of a term that saw nothing, is left out.
    """
    found = {}
    for name in names:
        pairs = [pair for pair in zip(figures[name], baseline[name], strict=True) if all(map(math.isfinite, pair))]
        gaps = people_interval({str(row): [own - other] for row, (own, other) in enumerate(pairs)})
        values = [own for own, _ in pairs]
        found[name] = {"mean": sum(values) / len(values), "difference": asdict(gaps), "people": values}
    return found
