"""Decode, shade and render, forward and backward, against ResNet-50 on the same number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torchvision
from torch import Tensor, nn

from experiments.commands.bench.measure import Row, race
from experiments.commands.bench.meshes import face_like_model
from renderers.face_renderer import FaceRenderer

SIZE = 224
BATCH = 8


def forward_and_backward(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """What training pays for `network` alone on images (B, 3, H, W): every weight's gradient of a plain loss."""

    def step() -> None:
        network.zero_grad()
        network(images).square().mean().backward()

    return step


def run(device: torch.device) -> Iterator[Row]:
    """One row: a model of BFM 2009's size, every coefficient with a gradient; both sides run forward and backward."""
    model = face_like_model()
    renderer = FaceRenderer(model, SIZE).to(device)
    layout = model.layout()
    vector = torch.zeros(BATCH, layout.length, device=device, requires_grad=True)

    def render() -> None:
        vector.grad = None
        renderer(layout.split(vector)).image.square().mean().backward()

    # As a CPU likes it best, which is how the papers' own backbones keep their weights.
    last = torch.channels_last
    backbone = torchvision.models.resnet50(weights=None).to(device, memory_format=last)
    images = torch.rand(BATCH, 3, SIZE, SIZE, device=device).contiguous(memory_format=last)
    case = f"decode, shade, render: {len(model.faces):,} faces, {SIZE} px, {BATCH} images"
    step = forward_and_backward(backbone, images)
    yield race("render", case, device, render, "ResNet-50", step, budget_s=8.0, repeats=10)
