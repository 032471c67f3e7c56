"""Warp against PyTorch3D on a face-like mesh: visibility in three sizes, and barycentrics and depth with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from experiments.commands.bench.measure import Row, Stopwatch, race, take_turns
from experiments.commands.bench.meshes import face_like_mesh
from renderers.camera import default_intrinsics, project
from renderers.raster.rasterize import load_backend, rasterize

SIZE = 224
FACES = (5_000, 20_000, 70_789)
BATCH = 8
BIN_SIZES = (0, 16, 32, 64)  # pixels, of PyTorch3D on CUDA: the naive method, and what it allows at 224 px


def projected_mesh(faces: int, size: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The face-like mesh before the default camera: vertices (B, V, 3) in pixels and decimetres, faces (F, 3)."""
    vertices, triangles, _ = face_like_mesh(faces)
    points = torch.as_tensor(vertices, dtype=torch.float32, device=device).expand(batch, -1, -1)
    intrinsics = default_intrinsics(size, device).expand(batch, 3, 3)
    return project(points, intrinsics).contiguous(), torch.as_tensor(triangles, device=device)


def warp_with_gradients(vertices: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """The vertices' gradient of a plain loss of depth and barycentrics: visibility by Warp, the rest in torch."""
    points = vertices.detach().requires_grad_()
    fragments = rasterize(points, faces, size, "warp")
    (fragments.depth.sum() + fragments.barycentric.square().sum()).backward()
    assert points.grad is not None
    return points.grad


def pytorch3d_alone(
    vertices: Tensor, faces: Tensor, size: tuple[int, int], bin_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch3D's rasterizer on shared vertices, with nothing of ours before or behind it.

    Returns:
        pix_to_face (B, H, W, 1) into the batch's faces one image after the other, depth (B, H, W, 1) and barycentrics
        (B, H, W, 1, 3), all -1 on background.
    """
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    from renderers.raster.pytorch3d import to_ndc

    index, depth, barycentric, _ = rasterize_meshes(
        Meshes(to_ndc(vertices, size), faces.expand(len(vertices), -1, -1)),
        image_size=size,
        faces_per_pixel=1,
        bin_size=bin_size,
        perspective_correct=True,
    )
    return index, depth, barycentric


def pytorch3d_with_gradients(vertices: Tensor, faces: Tensor, size: tuple[int, int], bin_size: int) -> Tensor:
    """The gradient of `warp_with_gradients` by PyTorch3D, forward and backward."""
    points = vertices.detach().requires_grad_()
    index, depth, barycentric = pytorch3d_alone(points, faces, size, bin_size)
    shown = index >= 0
    (torch.where(shown, depth, 0).sum() + torch.where(shown[..., None], barycentric, 0).square().sum()).backward()
    assert points.grad is not None
    return points.grad


def quickest(bin_sizes: tuple[int, ...], run: Callable[[int], object], device: torch.device) -> int:
    """The bin size with which `run` takes least: a reference is measured at its best."""
    watches = [Stopwatch(partial(run, bin_size), device) for bin_size in bin_sizes]
    for watch in watches:
        watch.function()  # warms up
    take_turns(watches, budget_s=1.0, repeats=5)
    medians = [watch.measurement.median_s for watch in watches]
    return bin_sizes[medians.index(min(medians))]


def run(device: torch.device) -> Iterator[Row]:
    """A row a mesh, and one with gradients: on the CPU for the smallest alone. The ratio is per image.

    Raises:
        UserError: a backend is not installed.
    """
    warp = load_backend("warp")
    load_backend("pytorch3d")  # says so where it is not installed
    size = (SIZE, SIZE)
    # On the CPU PyTorch3D visits every face for every pixel, which takes seconds: one image, not warmed up.
    patient = device.type == "cpu"
    reference_batch = 1 if patient else BATCH
    sides: list[tuple[str, int, Callable[..., object], Callable[..., object]]] = [
        ("", wanted, warp.visible_faces, pytorch3d_alone) for wanted in FACES
    ]
    for wanted in FACES[:1] if patient else FACES:
        sides.append((" and gradients", wanted, warp_with_gradients, pytorch3d_with_gradients))
    for remark, wanted, ours, theirs in sides:
        vertices, faces = projected_mesh(wanted, SIZE, BATCH, device)
        reference = partial(theirs, vertices[:reference_batch], faces, size)
        bin_size = 0 if patient else quickest(BIN_SIZES, reference, device)
        yield race(
            "rasterizer",
            f"warp{remark}: {len(faces):,} faces, {SIZE} px, {BATCH} images",
            device,
            partial(ours, vertices, faces, size),
            "pytorch3d" if patient else f"pytorch3d, bins of {bin_size} px",
            partial(reference, bin_size),
            share=BATCH / reference_batch,
            budget_s=2.0,
            warm_reference=not patient,
        )
