"""From a photograph to a textured mesh: against a hundred passes of a backbone, and beside a busy process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import torch
import torchvision

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.render import forward_and_backward
from experiments.commands.reconstruct.loading import load_pipeline
from experiments.commands.reconstruct.photo import default_photo

SIZE = 224
PASSES = 100


def run(device: torch.device) -> Iterator[Row]:
    """Two rows: detection, fit and texture of one face, on the CPU alone, which is where `reconstruct` runs."""
    if device.type != "cpu":
        return
    pipeline, photo = load_pipeline(), default_photo()
    backbone = torchvision.models.resnet50(weights=None).to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, SIZE, SIZE)

    def ours() -> object:
        return pipeline.reconstruct(photo)

    yield race(
        "reconstruct",
        "a photograph to a textured mesh",
        device,
        ours,
        f"ResNet-50, {PASSES} times forward and backward",
        forward_and_backward(backbone, image),
        share=PASSES,
        budget_s=10.0,
        repeats=8,
    )

    def beside_a_busy_process() -> object:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                return pipeline.reconstruct(photo)
            finally:
                busy.kill()

    case = "a photograph to a textured mesh, beside a busy process"
    yield race("reconstruct", case, device, beside_a_busy_process, "the same alone", ours, budget_s=20.0, repeats=8)
