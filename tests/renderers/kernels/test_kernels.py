"""Kernels against the torch functions that they stand for in double precision, with every gradient; on CPU and CUDA."""

from __future__ import annotations

import copy
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import warp as wp
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import losses.kernels
import renderers.kernels.camera
import renderers.kernels.illumination
import renderers.kernels.interpolation
import renderers.kernels.reflectance
import renderers.kernels.vertex_normals
import renderers.kernels.view_synthesis
from experiments.commands.bench.meshes import face_like_model
from losses import photometric
from renderers import camera, illumination, reflectance, vertex_normals, view_synthesis
from renderers.camera import euler_to_rotation, relative_pose
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.kernels import on_gpu
from renderers.raster import interpolation
from renderers.raster.fragments import Fragments
from renderers.vertex_normals import VertexNormals

SIZE = 40
NAMES = (
    "renderers.kernels.camera", "renderers.kernels.illumination", "renderers.kernels.interpolation",
    "renderers.kernels.reflectance", "renderers.kernels.vertex_normals", "renderers.kernels.view_synthesis",
    "losses.kernels", "renderers.raster.warp",
)  # fmt: skip
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
Case = tuple[Callable[..., Any], Callable[..., Any], Sequence[Any], Callable[..., tuple[Tensor, ...]]]


def drawn_faces() -> tuple[Rendering, Tensor]:
    """Three turned faces in double precision, and the cameras that see them."""
    model = face_like_model(1800, 3, 3, 3).double()
    coefficients = model.layout().split(torch.zeros(3, model.layout().length, dtype=torch.float64))
    coefficients.angles.copy_(torch.tensor([[0.1, 0.52, 0.0], [-0.2, -0.3, 0.1], [0.0, 0.05, -0.3]]))
    coefficients.translation.copy_(torch.tensor([[0.1, 0.0, 0.5], [0.0, 0.2, 0.0], [-0.1, 0.0, -1.0]]))
    intrinsics = camera.default_intrinsics(SIZE).double().repeat(3, 1, 1)
    intrinsics[1, 0, 0] *= 1.2
    return FaceRenderer(model, SIZE).double()(coefficients, intrinsics), intrinsics


def given(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def cases() -> dict[str, Case]:
    """Function, kernel, arguments in double precision, and what of the answer is compared."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    faces, intrinsics = drawn_faces()
    mesh = VertexNormals(faces.faces, faces.shape.shape[1])
    seen = faces.fragments.pix_to_face
    lamp = torch.tensor([[3.0, 4.0, 9.0], [-6.0, 1.0, 5.0], [0.0, 0.0, -20.0]], dtype=torch.float64)
    target, source = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 0, 1, 2])
    moved = relative_pose(
        faces.rotation[target], faces.translation[target], faces.rotation[source], faces.translation[source]
    )
    photographs = torch.rand(3, 3, SIZE, SIZE, generator=random, dtype=torch.float64)
    pictures = photographs[source], faces.depth[source], faces.depth[target]

    def mixed(weights: Tensor, depth: Tensor, attributes: Tensor, module: ModuleType) -> Tensor:
        shown = seen.to(weights.device)
        fragments = Fragments(shown, torch.where(shown.unsqueeze(-1) < 0, 0.0, weights), depth)
        return module.interpolate(fragments, faces.faces.to(weights.device), attributes)

    def of_fragments(value: Fragments) -> tuple[Tensor, ...]:
        return value.barycentric, value.depth

    def of_view(value: view_synthesis.SynthesizedView) -> tuple[Tensor, ...]:
        return torch.where(value.inside, value.image, 0.0), torch.where(value.inside, value.depth, 0.0), value.inside

    kernels = renderers.kernels
    place = camera.pose_and_project, kernels.camera.pose_and_project
    synthesize = view_synthesis.synthesize_view, kernels.view_synthesis.synthesize_view
    outline = photometric.outline_gain, losses.kernels.outline_gain
    turned = faces.shape, faces.rotation, faces.translation, intrinsics
    mix = faces.fragments.barycentric, faces.fragments.depth, noise(3, faces.shape.shape[1], 5)
    lit = faces.vertex_albedo - 0.4, faces.vertices, faces.vertex_normals, lamp, torch.tensor([[5.0], [20.0], [9.0]])
    return {
        "pose_and_project": (*place, turned, given),
        "irradiance": (
            illumination.irradiance, kernels.illumination.irradiance, (faces.vertex_normals, noise(3, 27)), given,
        ),
        "make_fragments": (
            interpolation.make_fragments, kernels.interpolation.make_fragments,
            (faces.vertices_image, faces.faces, seen), of_fragments,
        ),
        "interpolate": (
            lambda *args: mixed(*args, interpolation), lambda *args: mixed(*args, kernels.interpolation), mix, given,
        ),
        "blinn_phong": (reflectance.blinn_phong, kernels.reflectance.blinn_phong, lit, given),
        "unit_normals": (
            vertex_normals.unit_normals, kernels.vertex_normals.unit_normals,
            (faces.shape + 0.002 * noise(*faces.shape.shape), mesh), given,
        ),
        "synthesize_view": (*synthesize, (*pictures, intrinsics[target], intrinsics[source], *moved), of_view),
        "covisible_map": (
            view_synthesis.covisible_map, kernels.view_synthesis.covisible_map,
            (seen[target], seen[source], faces.faces, faces.shape.shape[1]), given,
        ),
        "color_distance": (
            photometric.color_distance, losses.kernels.color_distance, (photographs, faces.image), given,
        ),
        "outline_gain": (*outline, (faces.image, photographs, faces.mask), given),
    }  # fmt: skip


def moved_to(value: Any, device: str, dtype: torch.dtype) -> Any:
    """A copy with its gradient still to come where it is real-valued."""
    if isinstance(value, VertexNormals):
        return copy.deepcopy(value).to(device)
    if not isinstance(value, Tensor):
        return value
    if not value.is_floating_point():
        return value.to(device)
    return value.detach().to(device, dtype).clone().requires_grad_()


def answers(function: Callable[..., Any], pick: Callable[..., tuple[Tensor, ...]], args: Sequence[Any]) -> list[Tensor]:
    """What a function answers, then the gradients of a weighted sum of that, on the CPU."""
    picked = pick(function(*args))
    smooth = [part for part in picked if part.requires_grad]
    leaves = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
    if smooth:
        weigh = [torch.sin(torch.arange(part.numel(), device=part.device) % 101.0).view_as(part) for part in smooth]
        sum((part * weight).sum() for part, weight in zip(smooth, weigh, strict=True)).backward()  # type: ignore[union-attr]
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves] if smooth else []
    return [part.detach().cpu() for part in (*picked, *gradients)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(cases()))
def test_kernel_answers_as_the_function_with_every_gradient(name: str, device: str) -> None:
    function, kernel, args, pick = cases()[name]
    wanted = answers(function, pick, [moved_to(arg, "cpu", torch.float64) for arg in args])
    found = answers(kernel, pick, [moved_to(arg, device, torch.float32) for arg in args])
    assert len(found) == len(wanted)
    assert any(part.to(torch.float64).abs().sum() > 0 for part in wanted)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == other.shape
        scale = max(1e-3, float(other.to(torch.float64).abs().max()))
        torch.testing.assert_close(mine.to(torch.float64), other.to(torch.float64), rtol=0, atol=1e-4 * scale)


def test_every_kernel_is_among_the_cases() -> None:
    public = set()
    for name in NAMES[:-1]:
        module = sys.modules[name]
        public |= {
            key for key, value in vars(module).items()
            if not key.startswith("_") and callable(value) and getattr(value, "__module__", "") == name
            and hasattr(value, "__code__")
        }  # fmt: skip
    assert public - {"pinhole"} == set(cases())


@pytest.mark.parametrize("name", NAMES)
def test_kernels_compile_for_a_gpu(name: str, tmp_path: Path) -> None:
    """What NVRTC makes of them needs no GPU; a driver would load it."""
    if not wp._src.context.runtime.is_cuda_enabled:
        pytest.skip("Warp was built without CUDA here")
    wp.compile_aot_module(importlib.import_module(name), arch=80, module_dir=tmp_path, use_ptx=False)
    assert list(tmp_path.glob("*.cubin"))


def test_function_or_kernel_by_where_the_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = ModuleType("kernels_of_a_test")
    kernels.add = lambda one, other: "kernel"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)

    @on_gpu.on_gpu(kernels.__name__)
    def add(one: Tensor, other: Tensor) -> str:
        return "function"

    with FakeTensorMode():
        here, there = torch.zeros(1), torch.zeros(1, device="cuda")
        assert add(here, here) == add(there, here) == add(there, other=there.double()) == "function"
        assert add(there, there) == add(there, other=there.long()) == "kernel"
        monkeypatch.setattr(on_gpu, "find_spec", lambda name: None)
        assert add(there, there) == "function"


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_to_draw(device: str) -> None:
    vertices = torch.zeros(0, 3, 3, device=device, requires_grad=True)
    faces = torch.tensor([[0, 1, 2]], device=device)
    fragments = renderers.kernels.interpolation.make_fragments(vertices, faces, faces.new_zeros(0, 4, 5))
    drawn = renderers.kernels.interpolation.interpolate(fragments, faces, vertices)
    assert fragments.depth.shape == (0, 4, 5)
    assert drawn.shape == (0, 3, 4, 5)
    drawn.sum().backward()
    assert vertices.grad is not None


@pytest.mark.parametrize("device", DEVICES)
def test_face_without_area_and_centre_barely_outside(device: str) -> None:
    shared = [[9.0, 9.0, 9.0]] * 3
    outside = [[0.5 + 1e-6, 0.0, 9.0], [4.5, 0.0, 9.0], [0.5 + 1e-6, 4.0, 9.0]]
    vertices = torch.tensor([shared, outside], device=device, requires_grad=True)
    seen = torch.zeros(2, 1, 1, dtype=torch.int64, device=device)
    fragments = renderers.kernels.interpolation.make_fragments(vertices, torch.tensor([[0, 1, 2]], device=device), seen)
    (fragments.barycentric.square().sum() + fragments.depth.sum()).backward()
    assert fragments.barycentric[0].abs().max() == 0
    assert fragments.barycentric[1].min() == 0
    assert fragments.barycentric[1].sum().item() == pytest.approx(1.0)
    assert fragments.depth[1].item() == pytest.approx(9.0)
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_a_vertex_without_surface_has_no_normal_and_no_gradient(device: str) -> None:
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [2, 2, 2]]], device=device)
    vertices.requires_grad_()
    mesh = VertexNormals(torch.tensor([[0, 1, 2], [4, 4, 4]]), 5).to(device)
    normals = renderers.kernels.vertex_normals.unit_normals(vertices, mesh)
    assert normals[0].tolist() == [[0.0, 0.0, 1.0]] * 3 + [[0.0, 0.0, 0.0]] * 2
    normals[:, 3:].sum().backward()
    assert vertices.grad is not None
    assert vertices.grad.abs().max() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_equal_colours_have_no_gradient_and_what_is_no_number_stays_none(device: str) -> None:
    one = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(device)
    other = one.clone()
    other[0, 1, 0, 1] += 0.25
    one.requires_grad_()
    distance = losses.kernels.color_distance(one, other)
    distance.sum().backward()
    assert distance.flatten().tolist() == pytest.approx([0.0, 0.25, 0.0, 0.0])
    assert one.grad is not None
    assert one.grad.abs().sum().item() == pytest.approx(1.0)
    other[0, 2, 1, 1] = math.nan
    assert losses.kernels.color_distance(one, other).isnan().flatten().tolist() == [False, False, False, True]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("translation", [(0.0, 0.0, -30.0), (50.0, 0.0, 0.0), (0.0, 0.0, math.nan)])
def test_a_view_from_where_nothing_is_seen(translation: tuple[float, float, float], device: str) -> None:
    pictures = torch.rand(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device) + 9
    pictures[2, ..., :4] = 0
    pictures.requires_grad_()
    intrinsics = camera.default_intrinsics(8, device).unsqueeze(0)
    shift = torch.tensor([translation], device=device, requires_grad=True)
    turn = euler_to_rotation(torch.zeros(1, 3, device=device))
    view = renderers.kernels.view_synthesis.synthesize_view(*pictures, intrinsics, intrinsics, turn, shift)
    assert not view.inside.any()
    (view.image.sum() + view.depth.sum()).backward()
    for part in (view.image, view.depth, pictures.grad, shift.grad):
        assert part is not None
        assert part.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_strided_tensors_are_read_as_they_are(device: str) -> None:
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    normals, light = normals.transpose(1, 2).to(device), torch.zeros(1, 27, device=device).expand(2, -1)
    found = renderers.kernels.illumination.irradiance(normals, light)
    torch.testing.assert_close(found, torch.full_like(found, illumination.BAND_0 * illumination.AMBIENT))


@pytest.mark.parametrize("device", DEVICES)
def test_what_all_images_share_and_what_does_not_fit(device: str) -> None:
    """A kernel would read beyond the end of what torch refuses to broadcast."""
    normals = torch.nn.functional.normalize(torch.ones(2, 5, 3, device=device), dim=-1)
    one = torch.arange(27.0, device=device).unsqueeze(0).requires_grad_()
    kernel = renderers.kernels.illumination.irradiance
    alike, wanted = kernel(normals, one), kernel(normals, one.expand(2, -1))
    torch.testing.assert_close(alike, wanted)
    gradients = [torch.autograd.grad(light.sum(), one)[0] for light in (alike, wanted)]
    torch.testing.assert_close(*gradients)
    with pytest.raises(RuntimeError, match="expand"):
        kernel(normals, torch.zeros(3, 27, device=device))
    picture = torch.zeros(2, 3, 4, 4, device=device)
    with pytest.raises(RuntimeError, match="expand"):
        losses.kernels.color_distance(picture, picture[:, :, :3])
    faces, seen = torch.tensor([[0, 1, 2]], device=device), torch.zeros(3, 4, 4, dtype=torch.int64, device=device)
    with pytest.raises(RuntimeError, match="expand"):
        renderers.kernels.interpolation.make_fragments(normals, faces, seen)
    with pytest.raises(RuntimeError, match="expand"):
        renderers.kernels.view_synthesis.covisible_map(seen[:2], seen, faces, 5)
