"""Data generation: drawing the synthetic faces, and whether a default run waits for its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticFaces
from experiments.commands.bench.measure import Row, compare, race, summary
from experiments.commands.bench.step import NEVER, RUNS, Run, built
from experiments.commands.bench.training import timed_fit
from renderers.face_models.default.model import load_default
from renderers.face_renderer import FaceRenderer

SIZE = 64
FACES = 8
REFERENCE_FACES = 1  # PyTorch3D takes seconds for each
STEPS = 24
STAGES = (
    *RUNS,
    Run("rogue", "guidance alone", {"perceptual_start": NEVER, "robust_start": NEVER}),
    Run("rogue", "no perceptual term yet", {"perceptual_start": NEVER, "robust_start": 0}),
    Run("specular", "no mouth and identity yet", {"identity_start": NEVER, "mouth_start": NEVER}),
)


def drawing(faces: SyntheticFaces, count: int, backend: str) -> Callable[[], object]:
    """Draws the first `count` faces with one of the rasterizers."""
    renderer = FaceRenderer(faces.face_model, faces.size, backend)

    def draw() -> object:
        faces.renderer = renderer
        return faces.__getitems__(list(range(count)))

    return draw


def run(device: torch.device) -> Iterator[Row]:
    """Two rows a stage of each paper's default run, and one for drawing faces, which is done on the CPU, once.

    A stage's ratios are those of a step to the waiting for the loader, and to all that passes between two steps: above
    33 that takes less than 3 % of a step.
    """
    for stage in STAGES:
        torch.manual_seed(0)
        timings = timed_fit(*built(stage), STEPS, device)
        step = summary(timings.step, None).median_s
        for what, seconds in (("waiting for a batch", timings.wait), ("between two steps", timings.between)):
            case = f"{stage.paper}, {stage.stage}: {what}"
            yield compare("data", case, device, summary(seconds, timings.peak), "a training step", step)
    if device.type == "cpu":
        faces = SyntheticFaces(load_default(), "train", FACES, SIZE, 0, SceneSettings())
        views = faces.settings.views
        yield race(
            "data",
            f"drawing {FACES} synthetic faces, {views} views of {SIZE} px",
            device,
            drawing(faces, FACES, "warp"),
            "pytorch3d",
            drawing(faces, REFERENCE_FACES, "pytorch3d"),
            share=FACES / REFERENCE_FACES,
            warm_reference=False,
        )
