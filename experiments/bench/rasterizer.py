"""Visibility by Warp against PyTorch3D, on a face-like mesh of three sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from experiments.bench.measure import Row, compare, measure
from experiments.bench.meshes import face_like_mesh
from renderers.camera import default_intrinsics, project
from renderers.rasterizer.rasterize import load_backend

SIZE = 224
FACES = (5_000, 20_000, 70_000)
BATCH = 8


def projected_mesh(faces: int, size: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The face-like mesh before the default camera: vertices (B, V, 3) in pixels and decimetres, faces (F, 3)."""
    vertices, triangles, _ = face_like_mesh(faces)
    points = torch.as_tensor(vertices, dtype=torch.float32, device=device).expand(batch, -1, -1)
    intrinsics = default_intrinsics(size, device).expand(batch, 3, 3)
    return project(points, intrinsics).contiguous(), torch.as_tensor(triangles, device=device)


def run(device: torch.device) -> Iterator[Row]:
    """One row a mesh; the ratio is per image.

    Raises:
        UserError: a backend is not installed.
    """
    warp, pytorch3d = load_backend("warp"), load_backend("pytorch3d")
    size = (SIZE, SIZE)
    # On the CPU PyTorch3D visits every face for every pixel, which takes seconds: one image, not warmed up.
    patient = device.type == "cpu"
    reference_batch = 1 if patient else BATCH
    for wanted in FACES:
        vertices, faces = projected_mesh(wanted, SIZE, BATCH, device)
        ours = measure(partial(warp.visible_faces, vertices, faces, size), device)
        visit = partial(pytorch3d.visible_faces, vertices[:reference_batch], faces, size)
        reference = measure(visit, device, warm_up=not patient)
        reference_s = reference.median_s / reference_batch * BATCH
        case = f"warp: {len(faces):,} faces, {SIZE} px, {BATCH} images"
        yield compare("rasterizer", case, device, ours, "pytorch3d", reference_s)
