"""Data generation: drawing the synthetic faces, and whether a default run waits for its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from datamodules.synthetic import SceneSettings, SyntheticFaces
from experiments.bench.measure import Row, compare, race, summary
from experiments.bench.step import RUNS, built
from experiments.bench.training import timed_fit
from renderers.face_renderer import FaceRenderer
from renderers.morphable_model.default import load_default

SIZE = 64
FACES = 8
REFERENCE_FACES = 1  # PyTorch3D takes seconds for each
STEPS = 24


def drawing(faces: SyntheticFaces, count: int, backend: str) -> Callable[[], object]:
    """Draws the first `count` faces with one of the rasterizers."""
    renderer = FaceRenderer(faces.face_model, faces.size, backend)

    def draw() -> object:
        faces.renderer = renderer
        return faces.__getitems__(list(range(count)))

    return draw


def run(device: torch.device) -> Iterator[Row]:
    """One row a stage of each paper's default run, and one for drawing faces, which is done on the CPU, once.

    The former's ratio is that of a step to what passes from its end to the next batch: above 33 the trainer waits for
    less than 3 % of the time. The trainer's own loop is counted as waiting.
    """
    for stage in RUNS:
        torch.manual_seed(0)
        timings = timed_fit(*built(stage), STEPS, device)
        waiting = summary(timings.wait, timings.peak)
        case = f"{stage.paper}, {stage.stage}: waiting for a batch"
        yield compare("data", case, device, waiting, "a training step", summary(timings.step, None).median_s)
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
