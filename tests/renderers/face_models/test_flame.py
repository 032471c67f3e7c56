"""FLAME: the decoder against a loop over vertices and joints, and its files in their owners' layout."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from datamodules.batch import FaceBatch
from lightning_modules.components.marked_landmarks import MarkedLandmarks
from renderers.face_models.flame import JOINT_DEVIATIONS, FlameModel, load_flame_folder, rotation_matrices
from renderers.face_models.load import load_face_model
from renderers.face_models.prepared import save_prepared
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.io.errors import UserError
from tests.conf.fake_flame import JAW, FakeFlame, fake_flame, write_fake_flame

PARENTS = [-1, 0, 1, 1, 1]


def tiny(vertices: int = 12, seed: int = 0) -> tuple[FlameModel, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    weights = generator.random((vertices, 5))
    regressor = generator.random((5, vertices))
    arrays = {
        "mean_shape": generator.standard_normal((vertices, 3)),
        "identity_basis": 0.1 * generator.standard_normal((vertices, 3, 4)),
        "expression_basis": 0.1 * generator.standard_normal((vertices, 3, 3)),
        "pose_basis": 0.1 * generator.standard_normal((vertices, 3, 36)),
        "joint_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "skinning_weights": weights / weights.sum(axis=1, keepdims=True),
        "parents": np.array(PARENTS),
        "mean_albedo": generator.random((vertices, 3)),
        "albedo_basis": 0.1 * generator.standard_normal((vertices, 3, 2)),
        "faces": np.array([[0, 1, 2], [2, 3, 4]]),
        "landmark_indices": generator.integers(0, vertices, (68, 3)),
        "landmark_weights": generator.dirichlet(np.ones(3), 68),
        "uv": generator.random((vertices, 2)),
    }
    return FlameModel(name="tiny", regions={"skin": np.arange(vertices)}, **arrays), arrays


def brute_force(arrays: dict[str, np.ndarray], identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """One face by loops and 4 x 4 matrices, after Li et al. 2017 and the SMPL paper's equations."""
    components, turns = expression[:3], (expression[3:] * JOINT_DEVIATIONS).reshape(4, 3)
    shaped = arrays["mean_shape"] + arrays["identity_basis"] @ identity + arrays["expression_basis"] @ components
    joints = arrays["joint_regressor"] @ shaped
    rotations = [np.eye(3), *(Rotation.from_rotvec(turn).as_matrix() for turn in turns)]
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    posed = shaped + arrays["pose_basis"] @ feature
    world: list[np.ndarray] = []
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    moved = np.zeros_like(posed)
    for vertex, point in enumerate(posed):
        for joint in range(5):
            rest = np.eye(4)
            rest[:3, 3] = -joints[joint]
            whole = world[joint] @ rest @ np.append(point, 1)
            moved[vertex] += arrays["skinning_weights"][vertex, joint] * whole[:3]
    return moved


def test_the_decoder_equals_loops() -> None:
    model, arrays = tiny()
    generator = np.random.default_rng(1)
    identity, expression = generator.standard_normal((3, 4)), 2 * generator.standard_normal((3, 15))
    decoded = model.double().shape(torch.from_numpy(identity), torch.from_numpy(expression))
    expected = np.stack([brute_force(arrays, *pair) for pair in zip(identity, expression, strict=True)])
    np.testing.assert_allclose(decoded.numpy(), expected, atol=1e-6)  # its buffers are single precision


def test_gradients() -> None:
    model, _ = tiny(vertices=5)
    model.double()
    inputs = [torch.randn(2, 4, dtype=torch.double), torch.randn(2, 15, dtype=torch.double)]
    inputs[1][0, 3:] = 0  # unturned joints, where formulas with a norm have no slope
    assert torch.autograd.gradcheck(model.shape, [value.requires_grad_() for value in inputs])


def test_rotations_equal_scipys() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors[0] = 0
    found = rotation_matrices(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_landmarks_lie_on_their_triangles() -> None:
    model, arrays = tiny()
    points = torch.randn(2, 12, 3)
    expected = np.einsum("blkc,lk->blc", points.numpy()[:, arrays["landmark_indices"]], arrays["landmark_weights"])
    np.testing.assert_allclose(model.landmarks(points).numpy(), expected, atol=1e-6)


@pytest.fixture(scope="module")
def fake() -> FakeFlame:
    return fake_flame()


@pytest.fixture(scope="module")
def folder(fake: FakeFlame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_flame(tmp_path_factory.mktemp("flame"), fake)


def test_the_files_are_read(fake: FakeFlame, folder: Path) -> None:
    model = load_flame_folder(folder)
    assert (model.identity_size, model.expression_size, model.has_specular) == (100, 62, False)
    origin = 10 * fake.arrays["v_template"] - model.mean_shape.numpy()
    np.testing.assert_allclose(origin, origin[:1].repeat(len(origin), axis=0), atol=1e-5)
    identity, expression = torch.zeros(2, 100), torch.zeros(2, 62)
    identity[0, 7], expression[1, 2] = 2.0, -1.5
    moved = model.shape(identity, expression) - model.mean_shape
    np.testing.assert_allclose(moved[0], 20 * fake.arrays["shapedirs"][..., 7], atol=1e-5)
    np.testing.assert_allclose(moved[1], -15 * fake.arrays["shapedirs"][..., 302], atol=1e-5)
    corners = 10 * fake.arrays["v_template"][fake.arrays["f"][fake.triangles]]
    marks = (corners * fake.weights[..., None]).sum(axis=1) - origin[0]
    np.testing.assert_allclose(model.landmarks(model.mean_shape[None])[0], marks, atol=1e-5)


def test_the_jaw_line_follows_the_turn(fake: FakeFlame, folder: Path) -> None:
    model = load_flame_folder(folder)
    points = model.mean_shape.expand(4, -1, -1)
    found = model.visible_landmarks(points, torch.deg2rad(torch.tensor([0.0, 39.0, 80.0, -39.0])))
    fixed = model.landmarks(points)
    torch.testing.assert_close(found[:, JAW:], fixed[:, JAW:])
    torch.testing.assert_close(found[0], fixed[0])
    torch.testing.assert_close(found[1], found[2])
    # Turned to +x the far cheek is the one at +x: its jaw line moves towards the mouth.
    assert (found[1, 9:JAW, 2] > fixed[1, 9:JAW, 2]).all() and torch.equal(found[1, :8], fixed[1, :8])
    assert (found[3, :8, 2] > fixed[3, :8, 2]).all() and torch.equal(found[3, 9:JAW], fixed[3, 9:JAW])


@pytest.mark.parametrize("kind", ["whole", "none"])
def test_an_image_marked_on_its_contour_is_held_against_the_jaw_line(
    fake: FakeFlame, folder: Path, tmp_path: Path, kind: str
) -> None:
    model = load_flame_folder(folder if kind == "whole" else write_fake_flame(tmp_path, fake, "none"))
    mean = mean_coefficients(model, 2)
    coefficients = replace(mean, angles=torch.tensor([0.0, 0.7, 0.0]).expand(2, 3))
    rendering = FaceRenderer(model, 64)(coefficients)
    plain = FaceBatch(rendering.image, rendering.landmarks, rendering.mask.float(), torch.eye(3).expand(2, 3, 3))
    marked = replace(plain, contour=torch.tensor([True, False]))
    seen = MarkedLandmarks(model)(rendering, coefficients, marked).landmarks
    assert torch.equal(seen[1], rendering.landmarks[1])
    torch.testing.assert_close(seen[0, JAW:], rendering.landmarks[0, JAW:])
    assert (seen[0, :JAW] - rendering.landmarks[0, :JAW]).norm(dim=1).max() > 0.5
    if kind == "whole":
        expected = model.visible_landmarks(rendering.vertices_image[..., :2], coefficients.angles[:, 1])
        torch.testing.assert_close(seen[0], expected[0])


def test_an_embedding_of_the_other_sense_is_turned_round(fake: FakeFlame, folder: Path, tmp_path: Path) -> None:
    order = [0, *range(40, 79), *range(1, 40)]
    other = FakeFlame(fake.arrays, fake.triangles, fake.weights, fake.contour[order], fake.contour_weights[order])
    turned, straight = load_flame_folder(write_fake_flame(tmp_path, other)), load_flame_folder(folder)
    assert torch.equal(turned.get_buffer("contour_triangles"), straight.get_buffer("contour_triangles"))


def test_what_the_embeddings_leave_out_is_carried_over(fake: FakeFlame, folder: Path, tmp_path: Path) -> None:
    whole = load_flame_folder(folder)
    marks = whole.landmarks(whole.mean_shape[None])[0]
    static = load_flame_folder(write_fake_flame(tmp_path / "a", fake, "static and dynamic"))
    assert static.has_contour
    found = static.landmarks(static.mean_shape[None])[0]
    torch.testing.assert_close(found[JAW:], marks[JAW:], atol=0.01, rtol=0)
    assert (found[:JAW] - marks[:JAW]).norm(dim=1).max() < 0.15  # decimetres
    bare = load_flame_folder(write_fake_flame(tmp_path / "b", fake, "none"))
    assert not bare.has_contour and (bare.landmarks(bare.mean_shape[None])[0] - marks).norm(dim=1).mean() < 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": None}, "no weights in it"),
        ({"v_template": np.zeros((7, 3))}, "v_template has shape|has shape"),
        ({"f": np.array([[0, 1, 10**6]])}, "f names a vertex outside"),
        ({"shapedirs": np.zeros((4228, 3, 300))}, "expected more than 300"),
    ],
)
def test_other_contents_are_refused(fake: FakeFlame, tmp_path: Path, change: dict, said: str) -> None:
    held = {name: array for name, array in {**fake.arrays, **change}.items() if array is not None}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(held, 2))
    with pytest.raises(UserError, match=f"generic_model.pkl.*({said})"):
        load_flame_folder(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of generic_model\.pkl"):
        load_flame_folder(tmp_path)
    (tmp_path / "generic_model.pkl").write_bytes(b"not a pickle")
    with pytest.raises(UserError, match="no pickle of arrays, or damaged"):
        load_flame_folder(tmp_path)


def test_a_prepared_model_is_the_same(folder: Path, tmp_path: Path) -> None:
    model = load_face_model(str(folder))
    save_prepared(model, tmp_path / "flame.npz")
    again = load_face_model(str(tmp_path / "flame.npz"))
    assert isinstance(again, FlameModel) and again.fingerprint() == model.fingerprint()
    buffers = dict(model.named_buffers())
    assert all(torch.equal(values, buffers[name]) for name, values in again.named_buffers())


def test_a_renderer_draws_it(folder: Path) -> None:
    model = load_flame_folder(folder)
    coefficients = mean_coefficients(model, 2)
    coefficients.expression[1, model.components + 3] = 3.0  # the jaw, about x
    drawn = FaceRenderer(model, 64)(coefficients)
    assert drawn.landmarks.shape == (2, 68, 2) and drawn.mask.float().mean() > 0.1
    assert (drawn.landmarks[1, 8, 1] - drawn.landmarks[0, 8, 1]) > 1.0, "the chin goes down where the jaw opens"
