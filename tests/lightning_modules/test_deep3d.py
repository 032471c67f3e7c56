"""Deep3D-style checkpoints: the coefficients and faces that their network and formulas give, or a clear refusal."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.components.backbones import CoefficientRegressor, ImageEncoder, ResNet
from lightning_modules.components.checkpoint_file import read_checkpoint, read_initial_weights
from lightning_modules.components.deep3d import regressor_weights
from lightning_modules.mgcnet import MGCNet
from lightning_modules.self_augmentation import SelfAugmentation
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.coefficients import CoefficientLayout
from renderers.face_renderer import FaceRenderer
from renderers.illumination import irradiance
from renderers.io.errors import UserError
from tests.conf.deep3d import ReconstructionNetwork, write_checkpoint
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import small_face_model

SIZE = 64
PATH = Path("epoch_20.pth")


class SmallBackbone(ImageEncoder):
    features = 4


@pytest.fixture(scope="module")
def network() -> ReconstructionNetwork:
    return ReconstructionNetwork().eval()


@pytest.fixture(scope="module")
def weights(network: ReconstructionNetwork) -> dict[str, Tensor]:
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def file(network: ReconstructionNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("deep3d") / "epoch_20.pth", network)


@pytest.fixture(scope="module")
def regressor() -> CoefficientRegressor:
    return CoefficientRegressor(ResNet(50, normalize=False), CoefficientLayout(80, 64, 80, {"shininess": 1}))


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def answers(module: Any, image: Tensor) -> Tensor:
    """The first 257 of a module's coefficients."""
    named = module.eval()(image).named()
    order = ("identity", "expression", "albedo", "angles", "illumination", "translation")
    return torch.cat([named[name] for name in order], dim=1)


def test_a_paper_starts_with_the_networks_own_coefficients(
    file: Path, network: ReconstructionNetwork, picture: Tensor
) -> None:
    backbone = ResNet(50, normalize=False)
    module = MGCNet(small_face_model(), backbone, SmallEncoder(), SIZE, init_weights=str(file))
    with torch.no_grad():
        expected = network(picture)
        assert expected.std() > 0.05
        assert (answers(module, picture) - expected).abs().max() < 1e-5


def test_self_augmentation_takes_it_as_its_coarse_model(
    file: Path, network: ReconstructionNetwork, picture: Tensor
) -> None:
    encoders = {name: SmallEncoder() for name in ("identity_encoder", "attribute_encoder", "code_encoder")}
    module = SelfAugmentation(
        small_face_model(),
        ResNet(50, normalize=False),
        image_size=SIZE,
        corruption=nn.Identity(),  # type: ignore[arg-type]
        channels=4,
        hidden=16,
        coarse_steps=7,
        init_weights=str(file),
        **encoders,  # type: ignore[arg-type]
    )
    assert module.coarse_given and module.coarse_steps == 0
    with torch.no_grad():
        assert (answers(module, picture) - network(picture)).abs().max() < 1e-5


def test_what_a_paper_adds_keeps_its_head(weights: dict[str, Tensor], regressor: CoefficientRegressor) -> None:
    nn.init.constant_(regressor.head.bias, 0.25)
    loaded = regressor_weights(weights, regressor, PATH)
    assert loaded["head.bias"][257:].tolist() == [0.25]
    assert (loaded["head.bias"][254:257] != 0.25).all()


def project_as_deep3d(model: Any, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 2) pixels with y upwards and (V,) depths of one vector, by that code base's published formulas."""
    identity, expression, angles, translation = vector[:80], vector[80:144], vector[224:227], vector[254:]
    mean = model.mean_shape.double().numpy()
    shape = (
        mean + model.identity_basis.double().numpy() @ identity + model.expression_basis.double().numpy() @ expression
    )
    (x, y, z), one, nil = angles, 1.0, 0.0
    about_x = np.array([[one, nil, nil], [nil, np.cos(x), -np.sin(x)], [nil, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), nil, np.sin(y)], [nil, one, nil], [-np.sin(y), nil, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), nil], [np.sin(z), np.cos(z), nil], [nil, nil, one]])
    posed = shape @ (about_z @ about_y @ about_x).T + translation
    posed[:, 2] = 10 - posed[:, 2]
    pinhole = np.array([[1015.0, 0, 112], [0, 1015, 112], [0, 0, 1]])
    seen = posed @ pinhole.T
    return seen[:, :2] / seen[:, 2:], seen[:, 2]


def test_a_vector_means_the_same_face() -> None:
    model = deepcopy(small_face_model()).double()
    vector = 0.5 * torch.randn(4, 257, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    coefficients = model.layout().split(vector)
    shape = model.shape(coefficients.identity, coefficients.expression)
    posed = transform(shape, euler_to_rotation(coefficients.angles), coefficients.translation)
    ours = project(posed, default_intrinsics(224).double().expand(4, 3, 3)).numpy()
    drawn = FaceRenderer(small_face_model(), 224)(model.layout().split(vector.float())).landmarks.numpy()
    for row in range(4):
        pixels, depth = project_as_deep3d(model, vector[row].numpy())
        pixels[:, 1] = 224 - pixels[:, 1]
        np.testing.assert_allclose(ours[row, :, :2], pixels, atol=1e-5, rtol=0)
        np.testing.assert_allclose(ours[row, :, 2], depth, atol=1e-9, rtol=0)
        np.testing.assert_allclose(drawn[row], pixels[model.landmark_indices.numpy()], atol=1e-3, rtol=0)


def test_the_light_means_the_same_shading() -> None:
    generator = torch.Generator().manual_seed(4)
    normals = nn.functional.normalize(torch.randn(1, 50, 3, generator=generator, dtype=torch.float64), dim=-1)
    gamma = torch.randn(1, 27, generator=generator, dtype=torch.float64)
    x, y, z = normals[0].numpy().T
    a = (np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8))
    c = (1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi), 3 * np.sqrt(5) / np.sqrt(12 * np.pi))
    first, second, third = (a[k] * c[k] for k in range(3))
    polar = 0.5 * third / np.sqrt(3) * (3 * z * z - 1)
    basis = [first + 0 * x, -second * y, second * z, -second * x, third * x * y, -third * y * z, polar, -third * x * z]
    basis.append(0.5 * third * (x * x - y * y))
    weights = gamma.numpy().reshape(3, 9) + 0.8 * np.eye(1, 9)
    np.testing.assert_allclose(irradiance(normals, gamma)[0].numpy(), np.stack(basis, 1) @ weights.T, atol=1e-12)


@pytest.mark.parametrize(
    ("backbone", "layout", "expected"),
    [
        (lambda: ResNet(50), (80, 64, 80), "give the backbone normalize: false"),
        (lambda: ResNet(18, normalize=False), (80, 64, 80), "give the backbone ResNet with depth 50"),
        (lambda: ResNet(50, stages=3, normalize=False), (80, 64, 80), "and all its stages"),
        (lambda: SmallBackbone(), (80, 64, 80), "its network is a ResNet-50"),
        (
            lambda: ResNet(50, normalize=False),
            (80, 52, 43),
            "BFM 2009 with 80, 64 and 80 coefficients, this one has 80, 52",
        ),
    ],
)
def test_other_modules_are_refused(weights: dict[str, Tensor], backbone: Any, layout: Any, expected: str) -> None:
    made: ImageEncoder = backbone()
    with pytest.raises(UserError) as raised:
        regressor_weights(weights, CoefficientRegressor(made, CoefficientLayout(*layout)), PATH)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


KERNEL = "backbone.layer1.0.conv1.weight"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (KERNEL, None, f"net_recon holds no {KERNEL}"),
        (KERNEL, torch.zeros(3), f"{KERNEL} has shape (3,), expected (64, 64, 1, 1)"),
        (KERNEL, torch.full((64, 64, 1, 1), torch.nan), f"{KERNEL} holds torch.float32, or values that are not finite"),
        (KERNEL, torch.zeros(64, 64, 1, 1, dtype=torch.int32), f"{KERNEL} holds torch.int32"),
        (KERNEL, torch.zeros(64, 64, 1, 1).to_sparse(), f"{KERNEL} is no plain tensor"),
        (KERNEL, "a text", f"{KERNEL} is no plain tensor"),
        ("final_layers.6.bias", torch.zeros(2), "final_layers.6.bias has shape (2,), expected (1,)"),
        ("final_layers.5.weight", None, "net_recon holds no final_layers.5.weight"),
        ("fc.weight", torch.zeros(257, 2048), "net_recon holds 'fc.weight', which is no weight of a ResNet-50"),
    ],
)
def test_wrong_weights_are_named(
    weights: dict[str, Tensor], regressor: CoefficientRegressor, name: str, value: Any, expected: str
) -> None:
    changed = {key: held for key, held in {**weights, name: value}.items() if held is not None}
    with pytest.raises(UserError) as raised:
        regressor_weights(changed, regressor, PATH)
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    assert str(PATH) in str(raised.value)


def test_a_file_that_holds_something_else_under_that_name(tmp_path: Path, regressor: CoefficientRegressor) -> None:
    torch.save({"net_recon": [1, 2]}, tmp_path / "list.pth")
    module = nn.Module()
    module.regressor = regressor
    with pytest.raises(UserError, match="net_recon is no dictionary of weights"):
        read_initial_weights(module, tmp_path / "list.pth")  # type: ignore[arg-type]
    # Where a run is taken up again it is no checkpoint at all.
    with pytest.raises(UserError, match="it holds no state_dict"):
        read_checkpoint(tmp_path / "list.pth")
