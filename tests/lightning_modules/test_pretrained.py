"""Weights from elsewhere: the right ones, or an error that says how to bring them; never random ones unasked."""

from __future__ import annotations

import hashlib
import urllib.error
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from experiments.__main__ import main
from experiments.training.checkpoint import load_module
from experiments.training.stored_module import Trust
from lightning_modules.components.backbones import VGG, ResNet
from lightning_modules.components.pretrained import VGG_FACE_MEAN, a_checkpoint_follows, load_vgg_face
from renderers.io.errors import UserError
from tests.conf.tiny_papers import SIZE, configuration, write_configuration

LAYERS = [f"conv{block}_{layer}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for layer in range(1, count + 1)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's empty cache on a machine without a network."""

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("backbone", [lambda: ResNet(18, pretrained=True), lambda: VGG(11, pretrained=True)])
def test_weights_that_cannot_be_fetched_are_an_error(cache: Path, backbone: type[nn.Module]) -> None:
    with pytest.raises(UserError, match=f"bring http.* to {cache}/.*its SHA-256 begins with [0-9a-f]{{8}}"):
        backbone()


def test_a_file_in_the_cache_is_used_if_it_is_the_right_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = get_model("resnet18").state_dict()
    cache.mkdir(parents=True)
    torch.save(weights, cache / "written.pth")
    begins = hashlib.sha256((cache / "written.pth").read_bytes()).hexdigest()[:8]
    known = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"https://somewhere/resnet18-{begins}.pth"))
    monkeypatch.setattr("torchvision.models.get_model_weights", lambda name: known)
    brought = (cache / "written.pth").rename(cache / f"resnet18-{begins}.pth")
    assert torch.equal(ResNet(18, pretrained=True).network.conv1.weight, weights["conv1.weight"])
    brought.write_bytes(brought.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"not resnet18's ImageNet weights, its SHA-256 begins with"):
        ResNet(18, pretrained=True)


def test_a_training_ends_before_it_begins_and_a_checkpoint_needs_no_weights(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    contents = configuration("mgcnet")
    backbone = {"depth": 18, "stages": 3, "pretrained": True}
    contents["model"]["init_args"]["backbone"] = {
        "class_path": "lightning_modules.components.backbones.ResNet", "init_args": backbone,
    }  # fmt: skip
    contents["trainer"] |= {"max_steps": 1, "val_check_interval": 1, "limit_val_batches": 1}
    config = write_configuration(tmp_path / "config.yaml", contents)
    assert main(["fit", "--config", config, "--run_id=a"]) == 2
    assert "its ImageNet weights cannot be fetched" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    # Trained where they could be had, the checkpoint goes on and is read where they cannot.
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("lightning_modules.components.backbones.imagenet_network", get_model)
        assert main(["fit", "--config", config, "--run_id=a"]) == 0
    checkpoint = tmp_path / "runs/mgcnet/a/checkpoints/last.ckpt"
    assert main(["validate", "--config", config, "--ckpt_path", str(checkpoint)]) == 0
    assert load_module(checkpoint, Trust(("tests.conf",)))(torch.rand(1, 3, SIZE, SIZE)).identity.isfinite().all()


class Little(nn.Module):
    """torchvision's layout of a VGG with 16 layers, few channels, and one pixel left of 32."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for _ in range(count):
                parts += [nn.Conv2d(channels, 1 + block, 3, padding=1), nn.ReLU()]
                channels = 1 + block
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4), nn.ReLU(), nn.Dropout(), nn.Identity()
        )

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.classifier(self.features(image).flatten(1))
        return answer


def vgg_face_file(path: Path, legacy: bool = False, **changes: Tensor) -> dict[str, Tensor]:
    """Writes a state dict in the layout of `vgg_face_dag.pth`, of `Little`'s sizes."""
    sizes = {}
    channels = 3
    for name in LAYERS:
        out = 1 + int(name[4])
        sizes[name] = (out, channels, 3, 3)
        channels = out
    sizes |= {"fc6": (5, 6), "fc7": (4, 5), "fc8": (3, 4)}
    held = OrderedDict()
    for name, size in sizes.items():
        held[f"{name}.weight"], held[f"{name}.bias"] = torch.randn(size), torch.randn(size[0])
    held |= changes
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    return held


@pytest.mark.parametrize("legacy", [False, True])
def test_vgg_face_answers_what_its_own_network_does(tmp_path: Path, legacy: bool) -> None:
    held = vgg_face_file(tmp_path / "face.pth", legacy)
    network = Little().eval()
    load_vgg_face(network, tmp_path / "face.pth")
    image = torch.rand(2, 3, 32, 32)
    seen = image
    for name in LAYERS:
        seen = F.relu(F.conv2d(seen, held[f"{name}.weight"], held[f"{name}.bias"], padding=1))
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            seen = F.max_pool2d(seen, 2)
    seen = seen.flatten(1)
    for name in ("fc6", "fc7"):
        seen = F.relu(F.linear(seen, held[f"{name}.weight"], held[f"{name}.bias"]))
    torch.testing.assert_close(network(image), seen)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "face.pth"
    vgg_face_file(path, **{"conv3_2.weight": torch.zeros(4, 9, 3, 3)})
    with pytest.raises(UserError, match=r"conv3_2.weight is of shape \(4, 9, 3, 3\), expected \(4, 4, 3, 3\)"):
        load_vgg_face(Little(), path)
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"conv1_1.weight is absent.*bring the state dict `vgg_face_dag.pth`"):
        load_vgg_face(Little(), path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="not a state dict"):
        load_vgg_face(Little(), path)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="damaged"):
        load_vgg_face(Little(), path)
    with pytest.raises(UserError, match=r"nowhere.pth: no such file; bring the state dict"):
        VGG(vgg_face="nowhere.pth")
    with pytest.raises(UserError, match="goes without pretrained"):
        VGG(pretrained=True, vgg_face="nowhere.pth")


def test_vgg_face_sees_pixels_of_0_to_255_less_its_mean() -> None:
    with a_checkpoint_follows():
        backbone = VGG(vgg_face="nowhere.pth")
    image = torch.rand(1, 3, 8, 8)
    expected = 255 * image - torch.tensor(VGG_FACE_MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone.normalized(image), expected, atol=1e-3, rtol=1e-5)
