"""Decode, shade and render, forward and backward, against ResNet-50 on the same number of images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchvision

from experiments.bench.measure import Row, compare, measure
from experiments.bench.meshes import face_like_model
from renderers.face_renderer import FaceRenderer

SIZE = 224
BATCH = 8


def run(device: torch.device) -> Iterator[Row]:
    """One row: a model of BFM 2009's size, every coefficient with a gradient; both sides run forward and backward."""
    model = face_like_model()
    renderer = FaceRenderer(model, SIZE).to(device)
    layout = model.layout()
    vector = torch.zeros(BATCH, layout.length, device=device, requires_grad=True)

    def render() -> None:
        vector.grad = None
        renderer(layout.split(vector)).image.square().mean().backward()

    backbone = torchvision.models.resnet50(weights=None).to(device)
    images = torch.rand(BATCH, 3, SIZE, SIZE, device=device)

    def step() -> None:
        backbone.zero_grad()
        backbone(images).square().mean().backward()

    ours = measure(render, device, budget_s=4.0)
    reference = measure(step, device, budget_s=8.0)
    case = f"decode, shade, render: {len(model.faces):,} faces, {SIZE} px, {BATCH} images"
    yield compare("render", case, device, ours, "ResNet-50", reference.median_s)
