"""Visibility by Warp against PyTorch3D, on a face-like mesh of three sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from experiments.bench.measure import Row, race
from experiments.bench.meshes import face_like_mesh
from renderers.camera import default_intrinsics, project
from renderers.rasterizer.rasterize import load_backend

SIZE = 224
FACES = (5_000, 20_000, 70_789)
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
        yield race(
            "rasterizer",
            f"warp: {len(faces):,} faces, {SIZE} px, {BATCH} images",
            device,
            partial(warp.visible_faces, vertices, faces, size),
            "pytorch3d",
            partial(pytorch3d.visible_faces, vertices[:reference_batch], faces, size),
            share=BATCH / reference_batch,
            budget_s=2.0,
            warm_reference=not patient,
        )
