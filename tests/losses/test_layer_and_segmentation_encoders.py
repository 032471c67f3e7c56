"""Features of a subset of layers, and a user's segmentation, against the networks they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.encoders import DlibEncoder, DlibLayers, FileSegmentation
from renderers.io.errors import UserError

CHIP = 112


def picture(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, 64, 64, generator=generator), 12 + 40 * torch.rand(batch, 68, 2, generator=generator)


def test_layers_are_the_embedding_and_the_blocks_means() -> None:
    images, landmarks = picture()
    plain, layers = DlibEncoder(CHIP), DlibLayers(CHIP, block=10, grid=3)
    answer = layers(images, landmarks)
    assert answer.shape == (2, layers.features) == (2, 128 + 128 * 9)
    torch.testing.assert_close(answer[:, :128], plain(images, landmarks))
    seen: list[Tensor] = []
    network = plain.network
    # The tenth block's second convolution, before its shortcut: counted from the network's own list of layers.
    network.convolutions[20].register_forward_hook(lambda module, inputs, output: seen.append(output))  # type: ignore[union-attr,index]
    shortcut: list[Tensor] = []
    network.convolutions[19].register_forward_pre_hook(lambda module, inputs: shortcut.append(inputs[0]))  # type: ignore[union-attr,index]
    plain(images, landmarks)
    block = F.relu(seen[0] + shortcut[0])
    assert block.shape[1:] == (128, 6, 6)
    cells = block.unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(answer[:, 128:], cells.flatten(1))


def test_layers_know_where() -> None:
    """A chip that is bright on its right alone: the right cells are farther from a black chip's than the left ones."""
    layers = DlibLayers(CHIP, grid=2)
    chips = torch.zeros(2, 3, CHIP, CHIP)
    chips[1, :, :, CHIP // 2 :] = torch.rand(3, CHIP, CHIP // 2, generator=torch.Generator().manual_seed(0))
    black, half = layers.encode_chips(chips)[:, 128:].unflatten(1, (128, 2, 2))
    left, right = (half - black).abs().mean(dim=(0, 1))
    assert right > 2 * left


def test_layers_are_frozen_and_in_no_checkpoint() -> None:
    layers = DlibLayers(CHIP)
    assert not list(layers.parameters()) and not layers.state_dict()
    images, landmarks = picture(1)
    images.requires_grad_()
    layers.train()(images, landmarks).sum().backward()
    assert images.grad is not None and images.grad.any()
    assert not layers.network.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"block": 15}, "blocks 1 to 14"), ({"block": 0}, "blocks 1 to 14"), ({"grid": 7}, "give 1 to 6")],
)
def test_layers_that_are_not_there(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DlibLayers(CHIP, **arguments)


class Brightness(nn.Module):
    """Scores of (background, dark, bright) at half the resolution."""

    def forward(self, images: Tensor) -> Tensor:
        gray = F.avg_pool2d(images, 2).mean(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(gray), -gray, gray], dim=1)


class Single(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1, keepdim=True)


class Flat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def saved(module: nn.Module, path: Path) -> Path:
    torch.jit.trace(module, torch.rand(1, 3, 32, 32)).save(str(path))
    return path


def test_segmentation_adds_the_probabilities_of_its_classes(tmp_path: Path) -> None:
    path = saved(Brightness(), tmp_path / "parts.pt")
    images = torch.rand(2, 3, 32, 32)
    segmentation = FileSegmentation(path, face_classes=[1, 2], size=32, mean=0.25, std=0.5)
    gray = F.avg_pool2d((images - 0.25) / 0.5, 2).mean(dim=1, keepdim=True)
    expected = (gray.exp() + (-gray).exp()) / (1 + gray.exp() + (-gray).exp())
    torch.testing.assert_close(segmentation(images), F.interpolate(expected, size=(32, 32), mode="bilinear"))
    assert not segmentation.state_dict() and not list(segmentation.parameters())
    other_size = segmentation(torch.rand(1, 3, 50, 40))
    assert other_size.shape == (1, 1, 50, 40) and 0 <= other_size.min() <= other_size.max() <= 1


def test_segmentation_of_one_class_is_its_sigmoid(tmp_path: Path) -> None:
    segmentation = FileSegmentation(saved(Single(), tmp_path / "one.pt"), size=32, mean=0.0, std=1.0)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(segmentation(images), images.mean(dim=1, keepdim=True).sigmoid())


def test_segmentation_refuses_what_does_not_fit(tmp_path: Path) -> None:
    parts = saved(Brightness(), tmp_path / "parts.pt")
    with pytest.raises(UserError, match="classes 0 to 2"):
        FileSegmentation(parts, face_classes=[3], size=32)
    with pytest.raises(UserError, match=r"scores belong"):
        FileSegmentation(saved(Flat(), tmp_path / "flat.pt"), size=32)
    with pytest.raises(UserError, match="no encoder file"):
        FileSegmentation(tmp_path / "absent.pt")
