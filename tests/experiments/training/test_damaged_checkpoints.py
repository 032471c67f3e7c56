"""Checkpoints that are damaged, or made to fill the memory: each ends in one line, soon."""

from __future__ import annotations

import copy
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.training.checkpoint import CONFIG_KEY, load_module, newest_whole
from experiments.training.stored_module import Trust
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.checkpoint_file import read_checkpoint
from lightning_modules.finegrained import Finegrained
from lightning_modules.mgcnet import MGCNet
from lightning_modules.self_augmentation.network import FineModel
from losses.encoders import DlibEncoder
from renderers.io.errors import UserError
from renderers.uv.chart import UVChart
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import small_face_model
from tests.conf.tiny_papers import SmallBackbone
from tests.experiments.training.test_plain_yaml import BOMB

TRUST = Trust(modules=("tests.conf",))
PARTS = {
    "face_model": {"part": "tests.conf.tiny_papers.make_face_model", "arguments": {}},
    "backbone": {"part": "tests.conf.tiny_papers.SmallBackbone", "arguments": {}},
    "identity_encoder": {"part": "tests.conf.parts.SmallEncoder", "arguments": {}},
}
PLAN = {"part": "MGCNet", "arguments": {**PARTS, "image_size": 32, "weights": {"pixel": 0.5}}}
SECTION = {
    "class_path": "lightning_modules.mgcnet.MGCNet",
    "init_args": {
        **{name: {"class_path": part["part"], "init_args": {}} for name, part in PARTS.items()},
        "image_size": 32,
    },
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What a file of `PLAN` holds."""
    module = MGCNet(small_face_model(), SmallBackbone(), SmallEncoder(), 32)
    contents: dict[str, Any] = {"state_dict": dict(module.state_dict()), CONFIG_KEY: PLAN}
    module.on_save_checkpoint(contents)
    return contents


def told(contents: Any) -> str:
    """The line about a file with these contents."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.ckpt"
        torch.save(contents, path)
        with pytest.raises(UserError) as raised:
            load_module(path, TRUST)
        line = str(raised.value)
        assert "\n" not in line and len(line) < 800
        return line.replace(str(path), "FILE")


def test_a_whole_one_loads(whole: dict[str, Any], tmp_path: Path) -> None:
    for held in (PLAN, yaml.safe_dump(SECTION)):
        torch.save({**whole, CONFIG_KEY: held}, tmp_path / "file.ckpt")
        module = load_module(tmp_path / "file.ckpt", TRUST)
        assert isinstance(module, MGCNet)
        assert module.weights.pixel == (0.5 if held is PLAN else 0.15)


def test_changed_bytes_of_a_weight_are_noticed(whole: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.ckpt"
    torch.save(whole, path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{largest.filename} in it is not what was written"):
        load_module(path, TRUST)


def changed(*keys: str, value: Any) -> dict[str, Any]:
    plan: dict[str, Any] = copy.deepcopy(PLAN)
    inner = plan["arguments"]
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return plan


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (None, "does not say which module"),
        (5, "does not say which module"),
        ([], "does not say which module"),
        ({}, "does not say which module"),
        ({"part": "MGCNet"}, "does not say which module"),
        ({"part": None, "arguments": {}}, "does not say which module"),
        ({"part": ["MGCNet"], "arguments": {}}, "does not say which module"),
        ({"part": "MGCNet", "arguments": None}, "does not say which module"),
        ({"part": "MGCNet", "arguments": []}, "does not say which module"),
        ({"part": "MGCNet", "arguments": {5: 5}}, "does not say which module"),
        ({"part": "MGCNet", "arguments": {}}, "cannot be built: TypeError"),
        ({"part": "ResNet", "arguments": {}}, "its module is ResNet, which is no LightningModule"),
        (changed("image_size", value=-5), "image_size -5: give a whole number from 8 to 2048"),
        (changed("image_size", value=10**7), "image_size 10000000: give a whole number"),
        (changed("image_size", value=10**30), "holds too long a value"),
        (changed("image_size", value="32"), "image_size is '32', which is no int"),
        (changed("image_size", value=32.0), "image_size is 32.0, which is no int"),
        (changed("image_size", value=True), "image_size is True, which is no int"),
        (changed("image_size", value=None), "image_size is None, which is no int"),
        (changed("image_size", value=[32]), "image_size is [32], which is no int"),
        (changed("image_size", value=torch.tensor(32)), "holds a Tensor"),
        (changed("covisible", value=1), "covisible is 1, which is no bool"),
        (changed("identity_views", value="some"), "identity_views is 'some', which is no"),
        (changed("weights", value=None), "weights is None, which is no mapping"),
        (changed("weights", value={"pixels": 1.0}), "weights has 'pixels', which this version does not know"),
        (changed("weights", "pixel", value=float("nan")), "weights.pixel is nan, which is no float"),
        (changed("weights", "pixel", value="1"), "weights.pixel is '1', which is no float"),
        (changed("width", value=1), "another version of MGCNet wrote it, with the argument 'width'"),
        (changed("x" * 10_000, value=1), "too long a value"),
        (changed("backbone", value=None), "backbone is None, which is no ImageEncoder"),
        (changed("backbone", value=PARTS["identity_encoder"]), "backbone is tests.conf.parts.SmallEncoder, which is"),
        (changed("backbone", value={"part": "VGG", "arguments": {}}), "its weights do not fit this module"),
        (changed("backbone", value={"part": "ResNet", "arguments": {"depth": 19}}), "depth is 19, which is no"),
        (changed("identity_encoder", value={"part": "DlibEncoder", "arguments": {"chip_size": 10**7}}), "chip_size"),
        (changed("identity_encoder", value={"part": "DlibEncoders", "arguments": {}}), "no checkpoint may name"),
        (changed("identity_encoder", value={"part": "tests.conf.parts.None_", "arguments": {}}), "None_"),
        (changed("identity_encoder", value={"part": "tests.conf.none.A", "arguments": {}}), "No module named"),
        (changed("face_model", value={"part": "load_face_model", "arguments": {}}), "cannot be built: TypeError"),
        (changed("face_model", value={"part": "load_face_model", "arguments": {"spec": "default", "subdivide": 9}}),
         "subdivide=9"),
        (changed("face_model", value={"part": "load_face_model", "arguments": {"spec": "data/\0"}}), "be printed"),
    ],
)  # fmt: skip
def test_what_it_says_of_its_module(whole: dict[str, Any], plan: Any, said: str) -> None:
    assert said in told({**whole, CONFIG_KEY: plan})


def old(name: str, value: Any) -> str:
    return yaml.safe_dump({**SECTION, name: value})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not say which module"),
        ("5", "does not say which module"),
        ("[]", "does not say which module"),
        ("class_path: a: b", "not YAML"),
        ("[" * 100_000, "nested deeper"),
        (BOMB, "aliases counted"),
        (f"class_path: lightning_modules.mgcnet.MGCNet\ninit_args:\n  image_size: {'1' * 5000}", "not YAML"),
        (old("class_path", None), "does not say which module"),
        (old("class_path", ["a"]), "does not say which module"),
        (old("class_path", {"a": 1}), "does not say which module"),
        (old("class_path", 5), "does not say which module"),
        (old("class_path", ""), "no checkpoint may name"),
        (old("init_args", None), "cannot be built: TypeError"),
        (old("init_args", [1]), "does not say which module"),
        (old("init_args", "text"), "does not say which module"),
        (old("init_args", {"image_size": {"class_path": None}}), "which is no int"),
        (old("dict_kwargs", {"width": 1}), "the argument 'width'"),
        ("class_path: lightning_modules.mgcnet.MGCNet\ninit_args: {image_size: 2026-11-28}", "holds a date"),
        ("class_path: lightning_modules.mgcnet.MGCNet\ninit_args: {image_size: !!binary aGFsbG8=}", "holds a bytes"),
    ],
)
def test_what_an_older_one_says_of_its_module(whole: dict[str, Any], text: str, said: str) -> None:
    assert said in told({**whole, CONFIG_KEY: text})


def test_plans_that_never_end(whole: dict[str, Any]) -> None:
    """A pickle holds lists that hold themselves, and one list in many places."""
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    wide: Any = [1] * 10
    for _ in range(10):
        wide = [wide] * 10
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, wide, endless, list(range(5000))):
        said = told({**whole, CONFIG_KEY: changed("image_size", value=value)})
        assert re.search(r"too (long|much), (or )?nested too deeply", said)


@pytest.mark.parametrize("face_model", [None, 5, "text", {}, {"name": "small"}, {"fingerprint": None}, []])
def test_a_face_model_is_named_by_every_checkpoint(whole: dict[str, Any], face_model: Any) -> None:
    assert "does not say for which face model it was made" in told({**whole, "face_model": face_model})
    unnamed = {name: value for name, value in whole.items() if name != "face_model"}
    assert "does not say for which face model it was made" in told(unnamed)
    other = {"name": "small", "fingerprint": face_model}
    assert "was made for face model small" in told({**whole, "face_model": other})


class Rebuilt:
    """Pickled as a tensor of more numbers than its storage has."""

    def __init__(self, count: int) -> None:
        self.count, self.storage = count, torch.zeros(4).untyped_storage()

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        typed = torch.storage.TypedStorage(wrap_storage=self.storage, dtype=torch.float32, _internal=True)
        return torch._utils._rebuild_tensor_v2, (typed, 0, (self.count,), (1,), False, OrderedDict())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.zeros(1).expand(10**7, 10**7),
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        lambda: Rebuilt(10**6),
    ],
)
@pytest.mark.parametrize("where", [("state_dict", "regressor.head.bias"), ("net_recon", "a"), ("optimizer_states",)])
@pytest.mark.filterwarnings("ignore")  # of sparse and quantized tensors
def test_tensors_whose_numbers_are_not_in_the_file(
    whole: dict[str, Any], make: Callable[[], Any], where: tuple[str, ...]
) -> None:
    value = make()
    first, *inner = where
    contents = {**whole, first: {**whole.get(first, {}), inner[0]: value} if inner else [{"state": {0: value}}]}
    assert re.search(r"damaged(, or not a checkpoint|: it (holds a tensor whose|claims to hold more))", told(contents))


def test_an_archive_that_is_compressed_is_not_read(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({**whole, "zeros": torch.zeros(10**6)}, tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as source:
        with zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as target:
            for member in source.namelist():
                target.writestr(member, source.read(member))
        with zipfile.ZipFile(tmp_path / "one.ckpt", "w") as target:
            for member in source.namelist():
                kind = zipfile.ZIP_DEFLATED if member.endswith("data.pkl") else zipfile.ZIP_STORED
                target.writestr(member, source.read(member), kind)
    read_checkpoint(tmp_path / "plain.ckpt")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    for name in ("small.ckpt", "one.ckpt"):
        with pytest.raises(UserError, match="it is compressed"):
            read_checkpoint(tmp_path / name)
        with pytest.raises(UserError, match="every checkpoint in it is damaged"):
            newest_whole([tmp_path / name], lambda line: None)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda model: MGCNet(model, ResNet(18), SmallEncoder(), 4), "image_size 4: give"),
        (lambda model: UVChart(model, 10**7), "chart's size 10000000: give"),
        (lambda model: UVChart(model, 0), "chart's size 0: give"),
        (lambda model: FineModel(model, 8, channels=0), "channels 0: give"),
        (lambda model: FineModel(model, 8, order=10**6), "order 1000000: give"),
        (lambda model: FineModel(model, 8, hidden=-1), "hidden -1: give"),
        (lambda model: FineModel(model, 8, coarsening=0), "coarsening 0: give"),
        (lambda _: DlibEncoder(chip_size=102), "chip_size 102: give a whole number from 103"),
        (lambda _: DlibEncoder(chip_size=10**7), "chip_size 10000000: give"),
        (lambda model: fine(model, channels=()), "scales of channels 0: give"),
        (lambda model: fine(model, channels=(10**6, 4)), "channels 1000000: give"),
        (lambda model: fine(model, chart_size=1), "chart's size 1: give"),
    ],
)
def test_constructors_have_bounds(build: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        build(small_face_model())


def fine(model: Any, **more: Any) -> FaceModule:
    return Finegrained(model, SmallBackbone(), SmallEncoder(), 32, **{"chart_size": 16, **more})
