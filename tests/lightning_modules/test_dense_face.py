"""The dense-landmark network: what it is taught, against projection, brute force and sampling."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from datamodules.batch import FaceBatch, Truth
from experiments.training.shipped_model import write_default_model
from lightning_modules.dense_face import DenseFace, ThinResNet
from lightning_modules.dense_face.network import EYE_UNITS, EyeHead, ResidualBlock, eye_units
from lightning_modules.dense_face.targets import (
    ExplainedVariance,
    gaze,
    seen_by_default_camera,
    similarity_motions,
)
from losses.metrics import VertexRMSE
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.coefficients import Coefficients
from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import mean_coefficients
from renderers.io.errors import UserError
from renderers.landmarks68 import LANDMARKS, LEFT_EYE, MIRROR, RIGHT_EYE

SIZE = 32


@pytest.fixture(scope="module")
def default_model() -> LinearModel:
    return load_default()


@pytest.fixture(scope="module")
def module(default_model: LinearModel) -> DenseFace:
    torch.manual_seed(0)
    return DenseFace(default_model, ThinResNet(8), SIZE)


def heads(face_model: LinearModel, count: int) -> tuple[Coefficients, torch.Tensor]:
    """Random people before cameras at other distances, off the crop's middle."""
    generator = torch.Generator().manual_seed(3)
    mean = mean_coefficients(face_model, count)
    drawn = replace(
        mean,
        identity=torch.randn(mean.identity.shape, generator=generator),
        angles=torch.randn(count, 3, generator=generator) * torch.tensor([0.2, 0.5, 0.2]),
        translation=torch.randn(count, 3, generator=generator) * 0.2 + torch.tensor([0.0, 0.0, -8.0]),
    )
    camera = default_intrinsics(SIZE).repeat(count, 1, 1)
    camera[:, 0, 0] *= 1.8
    camera[:, 1, 1] *= 1.8
    camera[:, :2, 2] += torch.tensor([3.0, -2.0])
    return drawn, camera


def test_dense_points_are_the_models_vertices_seen_by_the_camera(module: DenseFace, default_model: LinearModel) -> None:
    drawn, camera = heads(default_model, 3)
    shape = default_model.shape(drawn.identity, drawn.expression)
    posed = transform(shape, euler_to_rotation(drawn.angles), drawn.translation)
    expected = project(posed, camera)[:, module.vertices, :2]
    np.testing.assert_allclose(module.decode(drawn, camera), expected, atol=1e-3)
    assert module.vertices[:68].tolist() == default_model.landmark_indices.tolist()


def test_an_untrained_network_answers_the_mean_face(module: DenseFace, default_model: LinearModel) -> None:
    answer = module.eval().network.predict(torch.rand(2, 3, SIZE, SIZE))
    mean = mean_coefficients(default_model, 2)
    np.testing.assert_allclose(
        answer.points.detach(), module.decode(mean, default_intrinsics(SIZE).expand(2, -1, -1)), atol=1e-3
    )
    assert answer.parsing.shape == (2, 13, 4, 4)


def test_through_the_default_camera_heads_look_as_before(module: DenseFace, default_model: LinearModel) -> None:
    """Far away perspective is weak, and only the pose can tell the cameras apart."""
    drawn, camera = heads(default_model, 8)
    moved = seen_by_default_camera(drawn, camera, SIZE)
    seen = module.decode(drawn, camera)
    again = module.decode(moved, default_intrinsics(SIZE).expand(8, -1, -1))
    unmoved = module.decode(drawn, default_intrinsics(SIZE).expand(8, -1, -1))
    assert (again - seen).norm(dim=-1).mean() < 0.01 * SIZE < (unmoved - seen).norm(dim=-1).mean()
    same = seen_by_default_camera(drawn, default_intrinsics(SIZE).expand(8, -1, -1), SIZE)
    np.testing.assert_allclose(same.angles, drawn.angles, atol=1e-5)
    np.testing.assert_allclose(same.translation, drawn.translation, atol=1e-4)


def test_the_shapes_error_is_the_share_of_variance_and_knows_no_similarity(default_model: LinearModel) -> None:
    basis = default_model.identity_basis
    plain = ExplainedVariance(basis, 1.0)
    generator = torch.Generator().manual_seed(1)
    people = torch.randn(400, default_model.identity_size, generator=generator)
    assert 0.85 < plain(people, torch.zeros_like(people)).mean() < 1.15  # that of the mean face
    nothing = torch.zeros(1, default_model.expression_size)
    rmse = VertexRMSE()
    ratios = []
    for one in people[:3]:
        rmse.reset()
        rmse.update(default_model.shape(one[None], nothing), default_model.shape(torch.zeros_like(one[None]), nothing))
        ratios.append(float(plain(one[None], torch.zeros_like(one[None]))) / float(rmse.compute()) ** 2)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-3)
    motions = similarity_motions(default_model.mean_shape)
    aligned = ExplainedVariance(torch.cat([basis[..., :2], motions[..., 5:]], dim=-1), 1.0, motions)
    moved = aligned(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.zeros(1, 4))
    assert moved < 1e-6 < aligned(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 4))


def test_a_validation_measures_the_errors_of_its_answers(default_model: LinearModel) -> None:
    module = DenseFace(default_model, ThinResNet(8), SIZE).eval()  # untrained, it answers the mean face
    drawn, camera = heads(default_model, 3)
    drawn = replace(drawn, expression=torch.rand(3, default_model.expression_size))
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    layout = module.regressor.layout
    for rows in (slice(0, 2), slice(2, 3)):
        truth = Truth(
            layout.join(drawn.index(rows)),
            torch.ones(len(camera[rows]), 1, SIZE, SIZE),
            parsing=torch.zeros(len(camera[rows]), 1, SIZE, SIZE, dtype=torch.uint8),
        )
        pictures = torch.zeros(len(camera[rows]), 3, SIZE, SIZE)
        module.evaluate(
            "val", FaceBatch(pictures, torch.zeros(len(pictures), 68, 2), pictures[:, :1], camera[rows], truth), 0
        )
    module.on_validation_epoch_end()
    expected = torch.cat([drawn.identity, drawn.expression], dim=1).square().mean(dim=0).sqrt()
    torch.testing.assert_close(module.network.answer_deviation, expected, atol=1e-3, rtol=1e-3)


def test_it_learns_one_batch_by_heart(default_model: LinearModel) -> None:
    torch.manual_seed(0)
    module = DenseFace(default_model, ThinResNet(8), SIZE)
    batch = labelled_batch(module, default_model)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    before: dict[str, float] = {}
    for _ in range(25):
        terms, _, _ = module.terms(batch)
        before = before or {name: float(term.detach()) for name, term in terms.items()}
        optimizer.zero_grad()
        sum(terms.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    for name in ("dense", "identity", "rotation", "translation", "parsing"):
        assert terms[name].detach() < before[name] - 0.1 * abs(before[name]), name


def test_the_eyes_are_trained_alone(default_model: LinearModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_default_model(DenseFace(default_model, ThinResNet(8), SIZE).network, default_model, {}, tmp_path)
    parts = default_model, ThinResNet(8), SIZE
    with pytest.raises(UserError, match="give its weights by init_weights"):
        DenseFace(*parts, eyes_only=True).on_fit_start()
    module = DenseFace(*parts, init_weights=str(tmp_path / "weights.safetensors"), eyes_only=True)
    module.on_fit_start()
    batch = labelled_batch(module, default_model)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    first = module.network.predict(batch.image).first
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sum(module.terms(batch)[0].values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    changed = {name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("eyes.") for name in changed)
    assert any("running_mean" in name for name in changed)
    deviation = module.network.answer_deviation.clone()
    module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.evaluate("val", batch, 0)
    module.on_validation_epoch_end()
    torch.testing.assert_close(module.network.answer_deviation, deviation)
    answer = module.network.predict(batch.image)
    for name, value in answer.first.named().items():
        torch.testing.assert_close(value, first.named()[name])
    assert (answer.coefficients.expression - answer.first.expression).abs().max() > 1e-3


def test_weights_without_the_other_eye_answer_as_before(default_model: LinearModel) -> None:
    torch.manual_seed(3)
    names = default_model.expression_names
    old, new = EyeHead(8, names).eval(), EyeHead(8, names).eval()
    torch.nn.init.normal_(old.correction.weight)
    torch.nn.init.zeros_(old.other.weight)
    weights = old.state_dict()
    del weights["other.weight"]
    new.load_state_dict(weights)
    faces = torch.rand(2, 3, 64, 64), torch.rand(2, 8), torch.zeros(2, 52), 17 + 30 * torch.rand(2, LANDMARKS, 2)
    for one, other in zip(old(*faces), new(*faces), strict=True):
        torch.testing.assert_close(one, other)


def test_each_eye_knows_of_the_other(default_model: LinearModel) -> None:
    """A lid that is turned away from the camera is easier to tell by the other, which mostly does the same."""
    torch.manual_seed(2)
    eyes = EyeHead(8, default_model.expression_names).eval()
    torch.nn.init.normal_(eyes.correction.weight)
    image, features, points = torch.rand(1, 3, 64, 64), torch.rand(1, 8), 32 * torch.ones(1, LANDMARKS, 2)
    points[:, RIGHT_EYE, 0], points[:, LEFT_EYE, 0] = -30.0, 94.0  # each sees one column at the border
    change, _ = eyes(image, features, torch.zeros(1, 52), points)
    image[..., 40:] = torch.rand(1, 3, 64, 24)
    other, _ = eyes(image, features, torch.zeros(1, 52), points)
    right = [default_model.expression_names.index(unit + "Right") for unit in EYE_UNITS]
    assert (change - other)[:, right].abs().max() > 1e-3


def labelled_batch(module: DenseFace, face_model: LinearModel) -> FaceBatch:
    """Four random people, and noise instead of their pictures."""
    drawn, camera = heads(face_model, 4)
    truth = Truth(
        module.regressor.layout.join(drawn),
        torch.ones(4, 1, SIZE, SIZE),
        parsing=torch.randint(0, 13, (4, 1, SIZE, SIZE), dtype=torch.uint8),
    )
    image = torch.rand(4, 3, SIZE, SIZE)
    return FaceBatch(image, torch.zeros(4, LANDMARKS, 2), torch.ones(4, 1, SIZE, SIZE), camera, truth)


def test_a_mirrored_face_has_mirrored_eyes(default_model: LinearModel) -> None:
    names = default_model.expression_names
    torch.manual_seed(1)
    eyes = EyeHead(8, names).eval()
    torch.nn.init.normal_(eyes.correction.weight)
    image, features, points = torch.rand(2, 3, 64, 64), torch.rand(2, 8), 17 + 30 * torch.rand(2, LANDMARKS, 2)
    expression = torch.zeros(2, len(names))
    mirror = torch.from_numpy(MIRROR)
    across = points[:, mirror] * torch.tensor([-1.0, 1.0]) + torch.tensor([64.0, 0.0])
    change, moved = eyes(image, features, expression, points)
    other_change, other_moved = eyes(image.flip(-1), features, expression, across)
    sides = [names.index(_other_side(name)) for name in names]
    torch.testing.assert_close(other_change[:, sides], change, atol=1e-5, rtol=0)
    torch.testing.assert_close(other_moved[:, mirror] * torch.tensor([-1.0, 1, 1]), moved, atol=1e-4, rtol=1e-5)
    assert change.abs().max() > 0.01 and moved.abs().max() > 0.01


def test_eyes_are_told_apart_whatever_their_layers_drift_to(default_model: LinearModel) -> None:
    """A common shift of the features would leave all units below 0, and the head would answer alike for ever."""
    eyes = EyeHead(8, default_model.expression_names).eval()
    torch.nn.init.normal_(eyes.correction.weight)
    eyes.seen[0].bias.data -= 100.0
    points = 17 + 30 * torch.rand(2, LANDMARKS, 2)
    change, _ = eyes(torch.rand(2, 3, 64, 64), torch.rand(1, 8).expand(2, -1), torch.zeros(2, 52), points)
    assert (change[0] - change[1]).abs().max() > 0.01


def _other_side(name: str) -> str:
    for one, other in (("Left", "Right"), ("Right", "Left")):
        if name.startswith("eye") and name.endswith(one):
            return name.removesuffix(one) + other
    return name


def test_gaze_is_what_opposite_units_leave(default_model: LinearModel) -> None:
    names = default_model.expression_names
    true, found = torch.zeros(1, len(names)), torch.zeros(1, len(names))
    true[0, names.index("eyeLookOutLeft")], found[0, names.index("eyeLookInLeft")] = 0.3, 0.1
    found[0, names.index("eyeLookUpRight")], found[0, names.index("eyeBlinkRight")] = 0.4, 1.0
    # The left eye is 0.4 off sideways, the right one 0.4 off upwards: of four numbers two.
    units = eye_units(names)
    difference = gaze(found, units) - gaze(true, units)
    torch.testing.assert_close(difference, torch.tensor([[[0.0, 0.4], [-0.4, 0.0]]]))
    torch.testing.assert_close(difference.abs().mean(), torch.tensor(0.2))


@pytest.mark.parametrize(("before", "after", "stride"), [(8, 8, 1), (8, 16, 2)])
def test_the_residual_block_is_torchvisions(before: int, after: int, stride: int) -> None:
    def shortcut() -> nn.Module | None:
        return None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    ours, theirs = ResidualBlock(before, after, stride, shortcut()), BasicBlock(before, after, stride, shortcut())
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, before, 9, 9)
    torch.testing.assert_close(ours(image), theirs(image))


def test_a_photograph_needs_no_training_library() -> None:
    """Lightning, torchmetrics and torchvision take longer to import than a photograph takes to reconstruct."""
    code = (
        "import sys, experiments.commands.reconstruct.results, experiments.commands.reconstruct.loading\n"
        "print(*sorted({'lightning', 'torchmetrics', 'torchvision', 'kornia'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
