"""The two backends against each other and against a brute-force rasterizer written here in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.commands.bench.rasterizer import projected_mesh
from renderers.camera import NEAR
from renderers.io.errors import UserError
from renderers.raster import available_backends, rasterize
from renderers.raster.rasterize import BACKENDS, load_backend

CPU = torch.device("cpu")
BOTH = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available_backends(), reason=f"no {name}"))
    for name in BACKENDS
]


def brute_force(vertices: Tensor, faces: Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Face index (H, W) and depth (H, W) of one image, one face after another, in float64."""
    height, width = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    nearest = np.full(size, np.inf)
    seen = np.full(size, -1)
    points = vertices.double().numpy()
    for index, (a, b, c) in enumerate(points[faces.numpy()]):
        if not np.isfinite([a, b, c]).all() or min(a[2], b[2], c[2]) <= NEAR:
            continue
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-4:
            continue
        # Barycentrics by Cramer's rule on p = a + beta (b - a) + gamma (c - a).
        beta = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        gamma = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        inside = (beta >= 0) & (gamma >= 0) & (beta + gamma <= 1)
        depth = 1 / ((1 - beta - gamma) / a[2] + beta / b[2] + gamma / c[2])
        closer = inside & (depth < nearest)
        nearest[closer], seen[closer] = depth[closer], index
    return seen, nearest


def agreement(first: Tensor | np.ndarray, second: Tensor | np.ndarray) -> float:
    """Share of the pixels covered in either picture that see the same face."""
    first, second = np.asarray(first), np.asarray(second)
    covered = (first >= 0) | (second >= 0)
    assert covered.any()
    return float((first == second)[covered].mean())


def triangle_soup(count: int, size: tuple[int, int], seed: int, reach: float = 25.0) -> tuple[Tensor, Tensor]:
    """Random triangles of about `reach` pixels that hide and pierce each other, some of them partly off screen."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 2, generator=random) * torch.tensor([size[1], size[0]])
    corners = centre + reach * (torch.rand(count, 3, 2, generator=random) - 0.5)
    depth = 9 + 2 * torch.rand(count, 3, 1, generator=random)
    return torch.cat([corners, depth], dim=-1).view(1, -1, 3), torch.arange(3 * count).view(-1, 3)


def sphere(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=4)
    depth = 10 - mesh.vertices[:, 2]
    scale = 4.5 * min(size)
    image = np.stack(
        [size[1] / 2 + scale * mesh.vertices[:, 0] / depth, size[0] / 2 - scale * mesh.vertices[:, 1] / depth, depth],
        -1,
    )
    return torch.as_tensor(image, dtype=torch.float32)[None], torch.as_tensor(np.array(mesh.faces))


MESHES = {
    "soup": lambda: (*triangle_soup(300, (64, 64), seed=0), (64, 64)),
    "soup, wide": lambda: (*triangle_soup(400, (40, 88), seed=1), (40, 88)),
    "soup, tall": lambda: (*triangle_soup(400, (88, 40), seed=2), (88, 40)),
    "sphere": lambda: (*sphere((96, 96)), (96, 96)),
    "sphere, wide": lambda: (*sphere((60, 100)), (60, 100)),
    "face": lambda: (*projected_mesh(6_000, 128, 1, CPU), (128, 128)),
}


@pytest.mark.parametrize("mesh", MESHES)
def test_backends_agree(mesh: str) -> None:
    pytest.importorskip("pytorch3d")
    vertices, faces, size = MESHES[mesh]()
    warp, reference = (rasterize(vertices, faces, size, backend) for backend in ("warp", "pytorch3d"))
    assert agreement(warp.pix_to_face, reference.pix_to_face) >= 0.999
    both = warp.mask & reference.mask
    assert (warp.depth - reference.depth)[both].abs().max() <= 1e-4


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("mesh", ["soup", "soup, wide", "soup, tall", "sphere, wide"])
def test_equals_brute_force(mesh: str, backend: str) -> None:
    vertices, faces, size = MESHES[mesh]()
    fragments = rasterize(vertices, faces, size, backend)
    seen, depth = brute_force(vertices[0], faces, size)
    assert agreement(fragments.pix_to_face[0], seen) >= 0.999
    both = (seen >= 0) & fragments.mask[0].numpy()
    np.testing.assert_allclose(fragments.depth[0].numpy()[both], depth[both], atol=1e-4)
    assert (fragments.depth[~fragments.mask] == 0).all()


@pytest.mark.parametrize("backend", BOTH)
def test_images_of_a_batch_are_drawn_alone(backend: str) -> None:
    size = (48, 64)
    vertices = torch.cat([triangle_soup(60, size, seed)[0] for seed in range(3)])
    faces = triangle_soup(60, size, 0)[1]
    batch = rasterize(vertices, faces, size, backend)
    for image in range(3):
        alone = rasterize(vertices[image : image + 1], faces, size, backend)
        assert torch.equal(batch.pix_to_face[image], alone.pix_to_face[0])
        assert torch.equal(batch.barycentric[image], alone.barycentric[0])
    assert rasterize(vertices[:0], faces, size, backend).pix_to_face.shape == (0, 48, 64)


TRIANGLE = [[4.2, 4.1, 10.0], [27.3, 6.4, 10.0], [12.1, 25.7, 10.0]]


def draw(corners: list[list[float]], backend: str, size: tuple[int, int] = (32, 32)) -> Tensor:
    """pix_to_face (H, W) of TRIANGLE, face 0, and another nearer face, 1."""
    vertices = torch.tensor([TRIANGLE + corners])
    return rasterize(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]), size, backend).pix_to_face[0]


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(
    ("name", "corners"),
    {
        "edge-on": [[0.0, 0.0, 5.0], [16.0, 16.0, 4.0], [32.0, 32.0, 5.0]],
        "upright edge-on": [[16.5, 0.0, 5.0], [16.5, 32.0, 5.0], [16.5, 12.0, 7.0]],
        "thinner than rounding": [[15.5, 16.49999, 5.0], [17.5, 16.49999, 5.0], [16.5, 16.50001, 5.0]],
        "a point": [[16.5, 16.5, 5.0]] * 3,
        "behind": [[0.0, 0.0, -5.0], [32.0, 0.0, -5.0], [0.0, 32.0, -5.0]],
        "a corner behind": [[0.0, 0.0, 5.0], [32.0, 0.0, 5.0], [0.0, 32.0, -5.0]],
        "a corner on the near plane": [[0.0, 0.0, 5.0], [32.0, 0.0, 5.0], [0.0, 32.0, NEAR]],
        "off screen": [[100.0, 0.0, 5.0], [140.0, 0.0, 5.0], [100.0, 30.0, 5.0]],
        "off screen, box on it": [[-40.0, 30.0, 5.0], [30.0, -40.0, 5.0], [-40.0, -40.0, 5.0]],
        "NaN": [[float("nan"), 0.0, 5.0], [32.0, 0.0, 5.0], [0.0, 32.0, 5.0]],
        "NaN depth": [[0.0, 0.0, 5.0], [32.0, 0.0, float("nan")], [0.0, 32.0, 5.0]],
        "infinite": [[0.0, 0.0, 5.0], [float("inf"), 0.0, 5.0], [0.0, float("-inf"), 5.0]],
        "infinitely deep": [[0.0, 0.0, 5.0], [32.0, 0.0, float("inf")], [0.0, 32.0, 5.0]],
        "beyond every number": [[0.0, 0.0, 5.0], [3e38, 0.0, 5.0], [0.0, 3e38, 5.0]],
    }.items(),
)
def test_degenerate_face_draws_nothing(name: str, corners: list[list[float]], backend: str) -> None:
    seen, _ = brute_force(torch.tensor(TRIANGLE), torch.tensor([[0, 1, 2]]), (32, 32))
    assert np.array_equal(draw(corners, backend).numpy(), seen), name


@pytest.mark.parametrize("backend", BOTH)
def test_thin_face_is_drawn(backend: str) -> None:
    seen = draw([[15.5, 16.4999, 5.0], [17.5, 16.4999, 5.0], [16.5, 16.5001, 5.0]], backend)
    assert (seen == 1).nonzero().tolist() == [[16, 16]]


@pytest.mark.parametrize("backend", BOTH)
def test_nothing_visible(backend: str) -> None:
    vertices = torch.full((2, 3, 3), float("nan"), requires_grad=True)
    fragments = rasterize(vertices, torch.tensor([[0, 1, 2]]), (5, 7), backend)
    assert fragments.pix_to_face.shape == (2, 5, 7)
    assert (fragments.pix_to_face == -1).all()
    assert (fragments.barycentric == 0).all()
    (fragments.depth.sum() + fragments.barycentric.sum()).backward()
    assert (vertices.grad == 0).all()


@pytest.mark.parametrize("backend", BOTH)
def test_a_face_larger_than_the_image_covers_it(backend: str) -> None:
    corners = [[-5e3, -5e3, 4.0], [9e3, -5e3, 4.0], [-5e3, 9e3, 4.0]]
    assert (draw(corners, backend, (40, 24)) == 1).all()


@pytest.mark.parametrize("backend", BOTH)
def test_both_windings_are_drawn(backend: str) -> None:
    vertices = torch.tensor([TRIANGLE])
    front, back = (rasterize(vertices, torch.tensor([face]), (32, 32), backend) for face in ([0, 1, 2], [0, 2, 1]))
    assert front.mask.any()
    assert torch.equal(front.mask, back.mask)
    torch.testing.assert_close(front.barycentric[..., [0, 2, 1]], back.barycentric)


@pytest.mark.parametrize("backend", BOTH)
def test_equal_depth_shows_the_smaller_index(backend: str) -> None:
    vertices = torch.tensor([TRIANGLE])
    seen = rasterize(vertices, torch.tensor([[0, 1, 2]] * 4), (32, 32), backend).pix_to_face
    assert set(seen.unique().tolist()) == {-1, 0}


@pytest.mark.parametrize("backend", BOTH)
def test_depth_is_compared_perspective_correct(backend: str) -> None:
    # Halfway along the edge from depth 2 to depth 18 the surface lies at 1 / mean(1/2, 1/18) = 3.6, not at 10.
    slope = [[0.0, 0.0, 2.0], [32.0, 0.0, 18.0], [0.0, 64.0, 2.0]]
    flat = [[0.0, 0.0, 4.0], [32.0, 0.0, 4.0], [0.0, 64.0, 4.0]]
    fragments = rasterize(torch.tensor([slope + flat]), torch.tensor([[0, 1, 2], [3, 4, 5]]), (2, 32), backend)
    assert fragments.pix_to_face[0, 0, 15] == 0
    assert fragments.depth[0, 0, 15] == pytest.approx(1 / (0.484375 * (1 / 18 - 1 / 2) + 1 / 2), rel=1e-5)
    assert fragments.pix_to_face[0, 0, 20] == 1


def test_closed_surface_has_no_crack() -> None:
    """Faces of a jittered grid meet without a hole, with corners and edges exactly on pixel centres among them."""
    rows = columns = 40
    y, x = torch.meshgrid(torch.linspace(-1, 33, rows), torch.linspace(-1, 33, columns), indexing="ij")
    generator = torch.Generator().manual_seed(3)
    grid = torch.stack([x, y], dim=-1) + 0.3 * (torch.rand(rows, columns, 2, generator=generator) - 0.5)
    grid[::2] = (grid[::2] * 2).round() / 2
    vertices = torch.cat([grid, torch.full((rows, columns, 1), 10.0)], dim=-1).view(1, -1, 3)
    corner = torch.arange(rows * columns).view(rows, columns)
    here, right, below, across = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = torch.cat(
        [torch.stack([here, right, across], -1).view(-1, 3), torch.stack([here, across, below], -1).view(-1, 3)]
    )
    assert rasterize(vertices, faces, (32, 32), "warp").mask.all()


coordinates = st.one_of(
    st.floats(width=32),
    st.floats(-50, 50, width=32),
    st.sampled_from([0.5, 8.0, 0.0, 1e-3, 1e10, float("nan"), float("inf")]),
)


@pytest.mark.parametrize("backend", BOTH)
@settings(max_examples=150, deadline=None)
@given(corners=hnp.arrays(np.float32, (1, 9, 3), elements=coordinates))
def test_any_numbers_give_sound_fragments(backend: str, corners: np.ndarray) -> None:
    vertices = torch.tensor(corners, requires_grad=True)
    fragments = rasterize(vertices, torch.arange(9).view(3, 3), (8, 9), backend)
    assert fragments.pix_to_face.min() >= -1
    assert fragments.pix_to_face.max() < 3
    assert (fragments.barycentric >= 0).all()
    assert (fragments.depth[fragments.mask] > 0).all()
    torch.testing.assert_close(fragments.barycentric.sum(dim=-1), fragments.mask.float())
    assert fragments.depth.isfinite().all()


def test_same_gradient_for_both_backends() -> None:
    pytest.importorskip("pytorch3d")
    vertices, faces, size = MESHES["face"]()
    weights = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    gradients, seen = [], []
    for backend in ("warp", "pytorch3d"):
        leaf = vertices.clone().requires_grad_()
        fragments = rasterize(leaf, faces, size, backend)
        seen.append(fragments.pix_to_face)
        ((fragments.barycentric * weights).sum() + fragments.depth.sum()).backward()
        gradients.append(leaf.grad)
    assert torch.equal(*seen), "choose a mesh that both see alike"
    assert torch.equal(*gradients)


def test_double_precision_keeps_its_type() -> None:
    vertices, faces, size = MESHES["soup"]()
    fragments = rasterize(vertices.double(), faces.int(), size, "warp")
    assert fragments.depth.dtype == fragments.barycentric.dtype == torch.float64
    assert torch.equal(fragments.pix_to_face, rasterize(vertices, faces, size, "warp").pix_to_face)


def test_vertices_that_are_a_view() -> None:
    vertices, faces, size = MESHES["soup"]()
    view = torch.cat([vertices, torch.zeros_like(vertices)], dim=-1)[..., :3]
    assert not view.is_contiguous()
    assert torch.equal(rasterize(view, faces, size).pix_to_face, rasterize(vertices, faces, size).pix_to_face)


class Renders(Dataset):
    """Pictures drawn where the data worker runs."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return rasterize(*triangle_soup(100, (32, 32), index), (32, 32), "warp").pix_to_face


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_data_workers_draw_the_same(context: str) -> None:
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    here = [Renders()[index] for index in range(4)]  # Warp runs in the parent before the workers are made
    there = list(DataLoader(Renders(), batch_size=None, num_workers=1, multiprocessing_context=context, timeout=120))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_threads_draw_the_same() -> None:
    here = [Renders()[index] for index in range(4)] * 8
    with ThreadPoolExecutor(4) as pool:
        there = list(pool.map(Renders().__getitem__, [0, 1, 2, 3] * 8))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mesh", MESHES)
def test_cuda_draws_what_the_cpu_draws(mesh: str) -> None:
    vertices, faces, size = MESHES[mesh]()
    here = rasterize(vertices, faces, size, "warp")
    with torch.cuda.stream(torch.cuda.Stream()):
        there = rasterize(vertices.cuda(), faces.cuda(), size, "warp").pix_to_face.cpu()
    assert agreement(here.pix_to_face, there) >= 0.999


def test_auto_is_the_first_available() -> None:
    assert available_backends()
    assert load_backend("auto") is load_backend(available_backends()[0])
    assert load_backend("auto").__name__.endswith(available_backends()[0])


def test_unknown_backend_names_what_is_installed() -> None:
    with pytest.raises(UserError, match=r"'opengl' is not a rasterizer backend; installed here: .*warp"):
        rasterize(torch.tensor([TRIANGLE]), torch.tensor([[0, 1, 2]]), (4, 4), "opengl")


def test_missing_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "warp" else None)
    assert available_backends() == ["warp"]
    with pytest.raises(UserError, match="'pytorch3d' is not installed; installed here: warp"):
        load_backend("pytorch3d")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="installed here: none"):
        load_backend("auto")


@pytest.mark.parametrize(
    ("vertices", "faces", "size"),
    [
        ((3, 3), (1, 3), (4, 4)),
        ((1, 3, 2), (1, 3), (4, 4)),
        ((1, 3, 3), (1, 4), (4, 4)),
        ((1, 3, 3), (0, 3), (4, 4)),
        ((1, 3, 3), (1, 3), (0, 4)),
    ],
)
def test_wrong_shapes(vertices: tuple[int, ...], faces: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        rasterize(torch.ones(vertices), torch.zeros(faces, dtype=torch.int64), size)
