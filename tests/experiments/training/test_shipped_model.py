"""The shipped network's two files: there and back, absent, another face model's, damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from experiments.training.shipped_model import ABOUT, WEIGHTS, load_default_model, write_default_model
from lightning_modules.components.backbones import ResNet
from lightning_modules.dense_face import DenseFace, ThinResNet
from lightning_modules.mgcnet import MGCNet
from lightning_modules.specular import Specular
from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel
from renderers.io.errors import UserError
from tests.conf.parts import SmallEncoder

SIZE = 32


@pytest.fixture(scope="module")
def default_model() -> LinearModel:
    return load_default()


@pytest.fixture
def written(default_model: LinearModel, tmp_path: Path) -> DenseFace:
    torch.manual_seed(1)
    module = DenseFace(default_model, ThinResNet(8), SIZE)
    torch.nn.init.normal_(module.regressor.head.weight, std=0.01)
    write_default_model(module.eval().network, default_model, {"steps": 3}, tmp_path)
    return module


def test_there_and_back_in_half_precision(written: DenseFace, default_model: LinearModel, tmp_path: Path) -> None:
    read = load_default_model(default_model, tmp_path)
    assert read is not None and not read.training
    image = torch.rand(2, 3, SIZE, SIZE)
    for found, expected in zip(
        read.answer(image).named().values(), written.answer(image).named().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=5e-3)
    assert json.loads((tmp_path / ABOUT).read_text())["training"] == {"steps": 3}
    parameters = sum(parameter.numel() for parameter in written.parameters())
    assert (tmp_path / WEIGHTS).stat().st_size < 2.3 * parameters + 20_000


def test_a_training_starts_from_it(written: DenseFace, default_model: LinearModel, tmp_path: Path) -> None:
    start = str(tmp_path / WEIGHTS)
    image = torch.rand(2, 3, SIZE, SIZE)
    expected = written.answer(image)
    own = DenseFace(default_model, ThinResNet(8), SIZE, init_weights=start)
    paper = MGCNet(default_model, ThinResNet(8), SmallEncoder(), SIZE, init_weights=start)
    for found in (own.answer(image), paper.answer(image)):
        torch.testing.assert_close(found.identity, expected.identity, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(
        own.network.predict(image).points, written.network.predict(image).points, atol=5e-2, rtol=5e-3
    )


def test_what_a_paper_regresses_beside_it_starts_as_the_paper_has_it(
    written: DenseFace, default_model: LinearModel, tmp_path: Path
) -> None:
    """The lamp's six numbers stand last in the head, and begin at zero."""
    image = torch.rand(2, 3, SIZE, SIZE)
    paper = Specular(default_model, ThinResNet(8), SmallEncoder(), SIZE, init_weights=str(tmp_path / WEIGHTS)).eval()
    found = paper(image)
    torch.testing.assert_close(found.identity, written.answer(image).identity, atol=5e-3, rtol=5e-3)
    assert len(found.extra) == 4 and all((value == 0).all() for value in found.extra.values())


def test_a_training_of_another_network_does_not(written: DenseFace, default_model: LinearModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no regressor.*ThinResNet"):
        MGCNet(default_model, ResNet(18), SmallEncoder(), SIZE, init_weights=str(tmp_path / WEIGHTS))
    (tmp_path / ABOUT).unlink()
    with pytest.raises(UserError, match=r"weights\.json beside it is missing"):
        DenseFace(default_model, ThinResNet(8), SIZE, init_weights=str(tmp_path / WEIGHTS))


def test_absent_files_or_another_face_model_leave_everything_as_it_was(
    written: DenseFace, default_model: LinearModel, tmp_path: Path
) -> None:
    about = json.loads((tmp_path / ABOUT).read_text())
    (tmp_path / ABOUT).write_text(json.dumps({**about, "face_model": "000000000000"}))
    assert load_default_model(default_model, tmp_path) is None
    (tmp_path / WEIGHTS).unlink()
    assert load_default_model(default_model, tmp_path) is None
    assert load_default_model(default_model, tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["cut", "noise", "other sizes", "nan", "about", "huge"])
def test_damage_is_told_in_one_line(
    written: DenseFace, default_model: LinearModel, tmp_path: Path, damage: str
) -> None:
    weights, about = tmp_path / WEIGHTS, tmp_path / ABOUT
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "noise":
        weights.write_bytes(bytes(range(256)) * 40)
    elif damage == "nan":
        with torch.no_grad():
            written.regressor.head.bias[3] = torch.nan
        write_default_model(written.network, default_model, {}, tmp_path)
    elif damage == "about":
        about.write_text("{")
    else:
        changed = {"width": 16} if damage == "other sizes" else {"image_size": 10**9}
        about.write_text(json.dumps({**json.loads(about.read_text()), **changed}))
    with pytest.raises(UserError) as caught:
        load_default_model(default_model, tmp_path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert re.search(r"make train-default-model$", message) and str(tmp_path) in message
