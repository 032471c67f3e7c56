"""Encoders against dlib itself, closed forms and small networks in files."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders import DlibEncoder, FileEncoder
from losses.encoders.chip import ChipTransform, arcface_chip, dlib_chip, extract_chips, fit_similarity, five_points
from losses.encoders.dlib_resnet import SMALLEST_CHIP, WEIGHTS
from losses.encoders.dlib_weights import parse_weights
from losses.identity import identity_loss
from renderers.io.errors import UserError
from renderers.io.packaged_files import packaged_file

dlib = pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def encoder() -> DlibEncoder:
    return DlibEncoder()


@pytest.fixture(scope="module")
def reference() -> Any:
    return dlib.face_recognition_model_v1(str(packaged_file(WEIGHTS)))


@pytest.fixture(scope="module")
def astronaut() -> tuple[np.ndarray, Any]:
    """The photograph (512, 512, 3) uint8 and dlib's detection of its face."""
    from skimage import data

    photograph = np.ascontiguousarray(data.astronaut())
    boxes, _, _ = dlib.get_frontal_face_detector().run(photograph, 1, 0.0)
    predictor = dlib.shape_predictor(str(packaged_file("shape_predictor_68_face_landmarks.dat")))
    return photograph, predictor(photograph, boxes[0])


def _landmarks(detection: Any) -> Tensor:
    return torch.tensor([[[part.x + 0.5, part.y + 0.5] for part in detection.parts()]])


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255


def _random_landmarks(batch: int, seed: int = 0, dtype: torch.dtype = torch.float) -> Tensor:
    """(B, 68, 2) scattered over a face of about 40 pixels in the middle of 64."""
    generator = torch.Generator().manual_seed(seed)
    return 12 + 40 * torch.rand(batch, 68, 2, generator=generator, dtype=dtype)


def test_features_equal_dlibs_on_chips(encoder: DlibEncoder, reference: Any, astronaut: tuple[np.ndarray, Any]) -> None:
    photograph, detection = astronaut
    rng = np.random.default_rng(0)
    chips = [dlib.get_face_chip(photograph, detection, 150, 0.25), rng.integers(0, 256, (150, 150, 3), dtype=np.uint8)]
    expected = np.array([np.array(reference.compute_face_descriptor(chip)) for chip in chips])
    with torch.no_grad():
        found = encoder.encode_chips(torch.cat([_image(chip) for chip in chips]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_chip_equals_dlibs_on_the_photograph(encoder: DlibEncoder, astronaut: tuple[np.ndarray, Any]) -> None:
    photograph, detection = astronaut
    expected = dlib.get_face_chip(photograph, detection, 150, 0.25).astype(float)
    found = 255 * encoder.chips(_image(photograph), _landmarks(detection))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1.01  # dlib cuts off the fraction


def test_chip_of_a_large_photograph_is_not_aliased(astronaut: tuple[np.ndarray, Any]) -> None:
    """Enlarged sixfold, shrunk back into a chip: the same picture, though a bilinear sample alone sees four pixels."""
    photograph, detection = astronaut
    face = photograph[:300, 80:330]
    noisy = np.kron(face, np.ones((6, 6, 1), dtype=np.uint8))
    noisy[::2] = 255 - noisy[::2]  # stripes that average to gray
    points = (_landmarks(detection) - torch.tensor([80.0, 0.0])) * 6
    chip = extract_chips(_image(noisy), dlib_chip(points, 150), 150)
    assert float((chip[..., 20:-20, 20:-20] - 0.5).abs().max()) < 0.2


@pytest.mark.parametrize("size", [112, 150])
def test_dlib_chip_geometry_equals_dlibs_rectangle(size: int) -> None:
    points = _random_landmarks(4, seed=1).mul(10).round() + 0.5
    transforms = dlib_chip(points.double(), size)
    for index, face in enumerate(points):
        parts = [dlib.point(int(x), int(y)) for x, y in face]
        details = dlib.get_face_chip_details(dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), parts), size, 0.25)
        linear, shift = transforms.linear[index].numpy(), transforms.shift[index].numpy()
        centre = linear @ [size / 2, size / 2] + shift - 0.5
        rect = details.rect
        expected = [(rect.left() + rect.right()) / 2, (rect.top() + rect.bottom()) / 2]
        np.testing.assert_allclose(centre, expected, atol=1e-3)
        assert (size - 1) * np.hypot(*linear[:, 0]) == pytest.approx(rect.right() - rect.left(), abs=1e-3)
        assert np.arctan2(linear[1, 0], linear[0, 0]) == pytest.approx(details.angle, abs=1e-5)


def test_fit_similarity_recovers_an_exact_one_and_equals_skimage() -> None:
    from skimage.transform import SimilarityTransform, estimate_transform

    rng = np.random.default_rng(2)
    source = rng.normal(size=(9, 2))
    exact = SimilarityTransform(scale=1.7, rotation=2.4, translation=(3, -8))
    targets = np.stack([exact(source), exact(source) + rng.normal(size=(9, 2))])
    found = fit_similarity(torch.from_numpy(source), torch.from_numpy(targets))
    for index, target in enumerate(targets):
        matrix = estimate_transform("similarity", source, target).params
        np.testing.assert_allclose(found.linear[index].numpy(), matrix[:2, :2], atol=1e-10)
        np.testing.assert_allclose(found.shift[index].numpy(), matrix[:2, 2], atol=1e-10)
    np.testing.assert_allclose(found.linear[0].numpy(), exact.params[:2, :2], atol=1e-10)


def test_arcface_chip_puts_the_five_points_in_their_places() -> None:
    """Landmarks drawn from the template itself, turned and scaled: the chip's five points come back."""
    template = torch.tensor([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655]])
    template = torch.cat([template, torch.tensor([[70.7299, 92.2041]])]) + 0.5
    landmarks = torch.zeros(1, 68, 2)
    landmarks[0, 36:42], landmarks[0, 42:48] = template[0], template[1]
    landmarks[0, 30], landmarks[0, 48], landmarks[0, 54] = template[2:]
    angle = torch.tensor(0.4)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    turned = 2.5 * landmarks @ rotation.T + 7
    transform = arcface_chip(turned, 224)
    placed = 2 * template @ transform.linear[0].T + transform.shift[0]
    torch.testing.assert_close(placed, five_points(turned)[0], atol=1e-3, rtol=0)


def test_extracted_chip_of_a_ramp_is_the_ramp() -> None:
    """Bilinear sampling reproduces a linear image, so every pixel must hold its own source position."""
    axis = torch.arange(32, dtype=torch.double) + 0.5
    image = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).unsqueeze(0)
    linear = torch.tensor([[[0.8, -0.3], [0.3, 0.8]]], dtype=torch.double)
    transform = ChipTransform(linear, torch.tensor([[8.0, 6.0]], dtype=torch.double))
    chip = extract_chips(image, transform, 12)
    pixels = torch.stack(torch.meshgrid(axis[:12], axis[:12], indexing="xy"), dim=-1)
    torch.testing.assert_close(chip[0].permute(1, 2, 0), pixels @ linear[0].T + transform.shift[0])
    fine = ChipTransform(linear * 2.6, transform.shift)  # shrinks more than twice: averages of positions
    expected = pixels[:4, :4] @ fine.linear[0].T + transform.shift[0]
    torch.testing.assert_close(extract_chips(image, fine, 4)[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("size, averaged", [(24, False), (25, True)])
def test_only_images_of_more_than_twice_the_chip_are_averaged(size: int, averaged: bool) -> None:
    """A shrinking that reaches out of a small image is not looked for: a GPU would be waited for."""
    image = torch.rand(1, 3, size, size, generator=torch.manual_seed(0))
    transform = ChipTransform(torch.eye(2).mul(2.5)[None], torch.tensor([[0.0, 0.0]]))
    chip = extract_chips(image, transform, 12)
    centres = 2.5 * (torch.stack(torch.meshgrid(*2 * [torch.arange(12) + 0.5], indexing="xy"), dim=-1))
    plain = F.grid_sample(image, 2 * centres[None] / size - 1, align_corners=False)
    assert torch.allclose(chip, plain, atol=1e-5) != averaged


def test_gradient_reaches_the_images_through_crop_and_network() -> None:
    """Directional derivative in double precision; no gradient to landmarks or weights."""
    encoder = DlibEncoder(chip_size=SMALLEST_CHIP).double()
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(1, 3, 64, 64, dtype=torch.double, generator=generator, requires_grad=True)
    landmarks = _random_landmarks(1, dtype=torch.double).requires_grad_()
    other = torch.randn(1, 128, dtype=torch.double, generator=generator)
    direction = torch.randn(images.shape, dtype=torch.double, generator=generator)

    def loss(step: float) -> Tensor:
        return identity_loss(encoder(images + step * direction, landmarks), other).sum()

    loss(0.0).backward()
    assert images.grad is not None
    assert landmarks.grad is None
    with torch.no_grad():
        numeric = (loss(1e-6) - loss(-1e-6)) / 2e-6
    torch.testing.assert_close((images.grad * direction).sum(), numeric, rtol=1e-4, atol=1e-9)
    assert all(p.grad is None for p in encoder.network.parameters())


def test_smallest_chip_works_and_a_smaller_one_is_refused() -> None:
    encoder = DlibEncoder(chip_size=SMALLEST_CHIP)
    assert encoder(torch.rand(2, 3, 40, 64), _random_landmarks(2)).shape == (2, 128)
    with pytest.raises(UserError, match="chip_size 102: give a whole number from 103"):
        DlibEncoder(chip_size=SMALLEST_CHIP - 1)
    with pytest.raises(RuntimeError):
        encoder.encode_chips(torch.rand(1, 3, SMALLEST_CHIP - 1, SMALLEST_CHIP - 1))


def test_chips_of_135_pixels_give_nearly_the_same_features(
    encoder: DlibEncoder, astronaut: tuple[np.ndarray, Any]
) -> None:
    photograph, detection = astronaut
    arguments = _image(photograph), _landmarks(detection)
    with torch.no_grad():
        assert float(identity_loss(DlibEncoder(chip_size=135)(*arguments), encoder(*arguments))) < 0.05


def test_features_tell_faces_from_other_faces() -> None:
    """Mirrored and darkened, a face stays nearer to itself than to others: 24 tiny faces, 112 px chips."""
    from skimage import data

    encoder = DlibEncoder(chip_size=112)
    faces = torch.from_numpy(data.lfw_subset()[:24]).float().unsqueeze(1).expand(-1, 3, -1, -1)
    chips = nn.functional.interpolate(faces, size=(112, 112), mode="bilinear")
    with torch.no_grad():
        features, changed = encoder.encode_chips(chips), encoder.encode_chips(0.85 * chips.flip(-1))
    distances = torch.stack([identity_loss(features[i : i + 1], changed) for i in range(24)])
    same = distances.diagonal()
    others = distances[~torch.eye(24, dtype=torch.bool)]
    assert float((same.unsqueeze(1) < others).float().mean()) > 0.9


class _Owner(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.encoder = encoder


def test_frozen_network_is_no_part_of_its_owner(encoder: DlibEncoder) -> None:
    owner = _Owner(encoder).train()
    assert not any(module.training for module in encoder.network.modules())
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert [name for name, _ in owner.named_parameters()] == ["head.weight", "head.bias"]
    assert set(owner.state_dict()) == {"head.weight", "head.bias"}
    owner.load_state_dict({"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)}, strict=True)
    moved = copy.deepcopy(owner).double()
    assert isinstance(moved.encoder, DlibEncoder)
    assert {p.dtype for p in moved.encoder.network.parameters()} == {torch.double}
    assert {p.dtype for p in encoder.network.parameters()} == {torch.float}


def test_no_faces_give_no_features(encoder: DlibEncoder) -> None:
    assert encoder(torch.rand(0, 3, 64, 64), torch.rand(0, 68, 2)).shape == (0, encoder.features)


def test_truncated_or_foreign_weight_files_are_refused(tmp_path: Path) -> None:
    data = packaged_file(WEIGHTS).read_bytes()
    damaged = {
        "empty": b"",
        "truncated": data[:1_000_000],
        "one byte short": data[:-1],
        "longer": data + b"\0",
        "garbage": bytes(range(256)) * 50,
        "other input size": data.replace(b"\x01\x96\x01\x96", b"\x01\x96\x01\x95", 1),
        "other layer": data.replace(b"max_pool_2", b"max_pool_3", 1),
    }
    for name, content in damaged.items():
        file = tmp_path / f"{name}.dat"
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"\.dat is not dlib's face recognition network: "):
            DlibEncoder(weights=file)
    with pytest.raises(UserError, match="cannot read the identity network"):
        DlibEncoder(weights=tmp_path / "absent.dat")
    with pytest.raises(UserError, match=r"lacks nothing\.dat"):
        packaged_file("nothing.dat")


def test_damaged_header_bytes_raise_value_errors_alone() -> None:
    data = packaged_file(WEIGHTS).read_bytes()[:30_000]
    for position in range(344):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        with pytest.raises(ValueError):
            parse_weights(bytes(damaged))


def _tiny(channels: int, features: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, features),
    ).eval()  # fmt: skip


def _save(network: nn.Module, path: Path, channels: int, size: int) -> Path:
    chips = torch.rand(1, channels, size, size)
    if path.suffix == ".onnx":
        axes = {"chips": {0: "batch"}, "features": {0: "batch"}}
        torch.onnx.export(
            network, (chips,), str(path), dynamo=False, input_names=["chips"], output_names=["features"],
            dynamic_axes=axes,
        )  # fmt: skip
    else:
        torch.jit.trace(network, chips).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("ending", ["onnx", "pt"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_file_encoder_gives_the_networks_own_features(ending: str, color: Any, tmp_path: Path) -> None:
    channels = 1 if color == "gray" else 3
    network = _tiny(channels)
    path = _save(network, tmp_path / f"net.{ending}", channels, 112)
    encoder = FileEncoder(path, color=color)
    images, landmarks = torch.rand(2, 3, 64, 64, requires_grad=True), _random_landmarks(2)
    found = encoder.train()(images, landmarks)
    rgb = extract_chips(images, arcface_chip(landmarks, 112), 112)
    chips = {
        "rgb": rgb,
        "bgr": rgb[:, [2, 1, 0]],
        "gray": 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:],
    }[color]
    torch.testing.assert_close(found, network(2 * chips - 1))
    found.sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in encoder.network.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_files_that_are_no_encoder_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"garbage")
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    (tmp_path / "net.h5").write_bytes(b"")
    torch.save(_tiny(3).state_dict(), tmp_path / "weights.pth")
    cases = {
        "absent.pt": "no encoder file",
        "bad.pt": "not a TorchScript archive",
        "weights.pth": "not a TorchScript archive",
        "bad.onnx": "cannot be read as ONNX",
        "net.h5": "unknown ending",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            FileEncoder(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not take"):
        FileEncoder(_save(_tiny(1), tmp_path / "gray.pt", 1, 112))
    with pytest.raises(UserError, match=r"answers \(2, 4, 55, 55\)"):
        FileEncoder(_save(nn.Conv2d(3, 4, 3, stride=2), tmp_path / "map.pt", 3, 112))


class _Evil:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torchscript_archives_are_not_unpickled_by_python(tmp_path: Path) -> None:
    """An archive whose pickles would create a file is refused, and the file is not created."""
    honest, evil, witness = tmp_path / "honest.pt", tmp_path / "evil.pt", tmp_path / "witness"
    _save(_tiny(3), honest, 3, 112)
    payload = pickle.dumps(_Evil(witness), protocol=2)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            target.writestr(name, payload if name.endswith(".pkl") else source.read(name))
    with pytest.raises(UserError, match="not a TorchScript archive"):
        FileEncoder(evil)
    assert not witness.exists()
    pickle.loads(payload)  # the payload does work where Python reads it
    assert witness.exists()
