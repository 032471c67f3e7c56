"""A whole training step of each paper's default run, against the bare backbone on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

from experiments.commands.bench.measure import Row
from experiments.commands.bench.training import backbone_alone, step_row, timed_fit
from experiments.papers import EXPERIMENTS
from experiments.training.building import build
from experiments.training.linked_arguments import innermost
from lightning_modules.base import FaceModule

STEPS = 12
FACES = 128  # drawn for the run; how many there are changes no step
NEVER = 10**9  # the first step of a stage that is not measured


@dataclass(frozen=True)
class Run:
    """A stage of a paper's default run, with every term that comes late.

    Attributes:
        paper: its folder.
        stage: what is told of it.
        model: what is set in the module's arguments.
    """

    paper: str
    stage: str
    model: dict[str, int]


RUNS = (
    Run("mgcnet", "every term", {"identity_start": 0, "multi_view_start": 0}),
    Run("rogue", "every term", {"perceptual_start": 0, "robust_start": 0}),
    Run("specular", "every term", {"identity_start": 0, "mouth_start": 0}),
    Run("finegrained", "coarse stage", {"identity_start": 0, "fine_start": NEVER}),
    Run("finegrained", "fine stage", {"fine_start": 0, "albedo_start": 0}),
    Run("self_augmentation", "coarse stage", {"coarse_identity_start": 0, "coarse_steps": NEVER}),
    Run("self_augmentation", "fine stage", {"coarse_steps": 0, "augmentation_start": 0}),
)


def built(run: Run) -> tuple[FaceModule, LightningDataModule]:
    """The module and the data of `experiments/PAPER/default.yaml`, with few faces."""

    def change(config: Namespace) -> None:
        for name, value in run.model.items():
            config.model.init_args[name] = value
        innermost(config.data).init_args.train_faces = FACES

    return build(["--config", str(EXPERIMENTS / run.paper / "default.yaml")], change)


def run(device: torch.device) -> Iterator[Row]:
    """One row a stage; their frozen encoders are part of the step."""
    for stage in RUNS:
        torch.manual_seed(0)
        module, data = built(stage)
        timings = timed_fit(module, data, STEPS, device, backbone_alone(module))
        case = f"{stage.paper}, {stage.stage}, frozen encoders and all"
        yield step_row("step", case, device, timings, "its backbone")
