"""What the benchmarks race against does the same work: the same answers and the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor, nn

from experiments.commands.bench import (
    cli,
    decoder,
    encoders,
    graph_refiner,
    icp,
    rasterizer,
    shading,
    view_synthesis,
    wavelets,
)
from experiments.commands.bench.meshes import face_like_mesh, face_like_model
from lightning_modules.finegrained.wavelet import HaarTransform, InverseHaarTransform
from lightning_modules.self_augmentation.graph import SpectralNetwork, scaled_laplacian
from losses.encoders import DlibEncoder
from losses.metrics.registration import register
from losses.metrics.similarity import Similarity
from losses.metrics.surface import TriangleMesh
from renderers.face_models.mesh_edit import vertex_neighbours
from renderers.fixed_sum import FixedSum
from renderers.reflectance import lambertian

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_alike(ours: Callable[[], Tensor], reference: Callable[[], Tensor], leaves: Sequence[Tensor]) -> None:
    """The same numbers, and the same gradients of a sum with fixed weights."""
    found, wanted = ours(), reference()
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-5)
    weights = random(*found.shape, seed=7)
    gradients = [torch.autograd.grad((value * weights).sum(), leaves) for value in (found, wanted)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-3, atol=2e-3 * float(other.abs().max()))


def test_rasterizer() -> None:
    """PyTorch3D's own sees the same faces and gives the vertices the same gradients."""
    pytest.importorskip("pytorch3d")
    vertices, faces = rasterizer.projected_mesh(300, 40, 2, CPU)
    index, depth, _ = rasterizer.pytorch3d_alone(vertices, faces, (40, 40), 0)
    seen = rasterizer.rasterize(vertices, faces, (40, 40), "warp")
    agree = torch.where(index >= 0, index % len(faces), -1)[..., 0] == seen.pix_to_face
    assert agree.float().mean() > 0.995, "but for pixels on an edge"
    assert seen.mask.float().mean() > 0.1
    torch.testing.assert_close(depth[..., 0][agree & seen.mask], seen.depth[agree & seen.mask], rtol=1e-4, atol=0)
    ours = rasterizer.warp_with_gradients(vertices, faces, (40, 40))
    theirs = rasterizer.pytorch3d_with_gradients(vertices, faces, (40, 40), 0)
    close = torch.isclose(ours, theirs, rtol=2e-2, atol=2e-3 * float(theirs.abs().max()))
    assert close.float().mean() > 0.98, "but for the corners of faces that one of the two sees"


def test_decoder() -> None:
    model = face_like_model(500, 4, 3, 2)
    dense = decoder.DenseBases(model)
    given = [random(2, size, seed=size).requires_grad_() for size in (4, 3, 2)]
    assert_alike(
        lambda: torch.stack([model.shape(*given[:2]), model.albedo(given[2])]),
        lambda: torch.stack(dense(*given)),
        given,
    )


def test_shading() -> None:
    model = face_like_model(500, 1, 1, 1)
    leaves = [
        model.mean_shape + 0.01 * random(2, model.vertex_count, 3),
        random(2, model.vertex_count, 3, seed=1).abs(),
        0.2 * random(2, 27, seed=2),
    ]
    vertices, albedo, light = (leaf.requires_grad_() for leaf in leaves)
    assert_alike(
        lambda: lambertian(albedo, model.normals(vertices), light),
        lambda: shading.straightforward_shading(albedo, shading.scattered_normals(vertices, model.faces), light),
        leaves,
    )


def test_view_synthesis() -> None:
    pairs = view_synthesis.face_pairs(4, 2_000, 48, CPU)
    assert (view_synthesis.together(pairs) > 0).all(), "every pair shares something"
    assert_alike(lambda: view_synthesis.together(pairs), lambda: view_synthesis.one_by_one(pairs), pairs.leaves)


def test_wavelets() -> None:
    image = random(2, 3, 32, 32).requires_grad_()
    split, join = HaarTransform(wavelets.LEVELS), InverseHaarTransform()
    ours = wavelets.there_and_back(image, split, join)
    np.testing.assert_allclose(ours.detach(), wavelets.pywt_there_and_back(image.detach().numpy()), atol=1e-5)
    assert_alike(
        lambda: wavelets.there_and_back(image, split, join),
        lambda: wavelets.sliced_there_and_back(image, wavelets.LEVELS),
        [image],
    )


def test_graph_refiner() -> None:
    model = face_like_model(200, 1, 1, 1)
    neighbours = vertex_neighbours(model.faces.numpy(), model.vertex_count)
    torch.manual_seed(0)
    network = SpectralNetwork(3, 3, 8, 3)
    for lin in network.answer.lins:
        nn.init.xavier_uniform_(lin.weight)
    reference = graph_refiner.GeometricNetwork(network, neighbours)
    laplacian, colors = FixedSum(scaled_laplacian(neighbours)), random(model.vertex_count, 2, 3).requires_grad_()
    assert_alike(lambda: network(colors, laplacian), lambda: reference(colors), [colors])


def test_icp() -> None:
    vertices, faces, _ = face_like_mesh(2_000)
    points = icp.moved_points(vertices)
    scan = TriangleMesh(vertices, faces)
    few = points[::200]
    distances = [
        np.sqrt(np.square(places - few).sum(axis=1))
        for places in (scan.nearest(few).places, icp.search_every_face(few, vertices[faces]))
    ]
    np.testing.assert_allclose(*distances, atol=1e-6)
    normals = np.asarray(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)
    placed = register(points, scan, Similarity(1.0, np.eye(3), np.zeros(3))).apply(points)
    for found in (placed, icp.plain_icp(points, vertices, normals)):
        assert np.abs(found - vertices).max() < 0.2 * np.abs(points - vertices).max()


def test_encoders() -> None:
    pytest.importorskip("dlib")
    chips = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    chips = (chips * 255).byte().float() / 255
    with torch.no_grad():
        ours = DlibEncoder().encode_chips(chips)
    torch.testing.assert_close(ours, torch.from_numpy(encoders.dlib_features()(chips)).float(), atol=2e-3, rtol=1e-2)


def test_encoders_see_an_upright_face() -> None:
    landmarks = encoders.face_landmarks(224, 1)[0]
    assert (landmarks > 20).all() and (landmarks < 204).all()
    assert landmarks[36:48, 1].mean() < landmarks[48:, 1].mean(), "y points down"


def test_command_line_is_timed_in_processes_of_its_own() -> None:
    before = cli.children_seconds()
    cli.started(["-c", "sum(range(3_000_000))"])()
    assert 0.01 < cli.children_seconds() - before < 5


def test_every_timed_answer_is_what_it_is_called() -> None:
    """Help succeeds, mistakes are told and exit with 2: nothing else would be worth timing."""
    answers = {case: cli.started(arguments)() for case, arguments in cli.CASES.items()}
    assert [answer.returncode for answer in answers.values()] == [0, 2, 2]
    assert b"wieghts" in answers["fit with a misspelt argument"].stderr
