"""Image encoders, and the head that turns their features into one coefficient vector."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_modules.components.pretrained import VGG_FACE_MEAN, imagenet_network, untrained_network, vgg_face_network
from renderers.coefficients import CoefficientLayout, Coefficients
from renderers.io.errors import UserError

FEATURES: Mapping[int, int] = {18: 512, 34: 512, 50: 2048}
# Output units of the head: how far one unit of the last layer moves a coefficient. Identity moves slowly: otherwise the
# size of the head would explain what is the distance to the camera. The lamp moves fast: highlights are a few per cent
# of the light, and otherwise the network would learn to make them small before it learns where the lamp is.
HEAD_SCALES: Mapping[str, float] = {
    "identity": 0.3,
    "expression": 0.3,
    "albedo": 0.5,
    "angles": 0.5,
    "illumination": 0.3,
    "translation": 0.3,
    "light_position": 3.0,
    "shininess": 0.03,
    "intensity": 0.3,
    "scale": 0.1,
}


class ImageEncoder(nn.Module):
    """(B, 3, H, W) sRGB in [0, 1] -> (B, features): the interface of every backbone of a `CoefficientRegressor`.

    Args:
        mixed_precision: multiply in bfloat16 (autocast), for GPUs of Ampere and later. Weights, coefficients and
            rendering stay in float32; a trainer's `precision: bf16-mixed` would change these too.

    Attributes:
        features: the output's length.
        network: (B, 3, H, W) normalized images -> (B, features); every subclass sets both.
    """

    features: int
    network: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(self, mixed_precision: bool = False) -> None:
        super().__init__()
        self.mixed_precision = mixed_precision
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def normalized(self, image: Tensor) -> Tensor:
        """The image with ImageNet's mean and deviation taken out, in the order of memory that a CPU likes best."""
        return ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16) if self.mixed_precision else nullcontext():
            features: Tensor = self.network(self.normalized(image))
        return features.to(image.dtype)


class ResNet(ImageEncoder):
    """A torchvision ResNet without its classifier: (B, 3, H, W) sRGB in [0, 1] -> (B, features).

    Args:
        depth: 18, 34 or 50 layers.
        pretrained: start from torchvision's ImageNet weights, which it fetches; an error where they cannot be had.
        stages: how many of the four stages; in small images the last one, which holds three quarters of the weights,
            has next to no pixels left (2 x 2 of 64 x 64).
        normalize: take ImageNet's mean and deviation out of the image first; Deep3D-style checkpoints were trained
            without.
        mixed_precision: see `ImageEncoder`.
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50] = 50,
        pretrained: bool = False,
        stages: Literal[3, 4] = 4,
        normalize: bool = True,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(mixed_precision)
        self.depth, self.stages, self.normalize = depth, stages, normalize
        if not normalize:
            self.mean.zero_()
            self.std.fill_(1)
        name = f"resnet{depth}"
        self.features = FEATURES[depth]
        self.network = imagenet_network(name) if pretrained else untrained_network(name)
        self.network.fc = nn.Identity()
        if stages == 3:
            self.network.layer4 = nn.Identity()
            self.features //= 2
        # Spares reordering every weight and gradient: an eighth of the time on a CPU.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class VGG(ImageEncoder):
    """A torchvision VGG without its last layer, the network of VGG-Face: (B, 3, H, W) sRGB in [0, 1] -> (B, 4096).

    Args:
        depth: 11, 13, 16 or 19 layers.
        pretrained: start from torchvision's ImageNet weights, which it fetches; an error where they cannot be had.
        mixed_precision: see `ImageEncoder`.
        vgg_face: start from this file of VGG-Face's weights instead, see `load_vgg_face`; 16 layers.

    Raises:
        UserError: weights that cannot be had, or arguments that exclude each other.
    """

    def __init__(
        self,
        depth: Literal[11, 13, 16, 19] = 16,
        pretrained: bool = False,
        mixed_precision: bool = False,
        vgg_face: str | None = None,
    ) -> None:
        super().__init__(mixed_precision)
        network: Any
        if vgg_face is not None:
            if pretrained or depth != 16:
                raise UserError("VGG: vgg_face has 16 layers and goes without pretrained, which is ImageNet's")
            network = vgg_face_network(Path(vgg_face).expanduser())
            self.mean.copy_(torch.tensor(VGG_FACE_MEAN).view(1, 3, 1, 1) / 255)
            self.std.fill_(1 / 255)
        else:
            network = imagenet_network(f"vgg{depth}") if pretrained else untrained_network(f"vgg{depth}")
        self.features = network.classifier[-1].in_features
        network.classifier[-1] = nn.Identity()
        self.network = network.to(memory_format=torch.channels_last)


class CoefficientRegressor(nn.Module):
    """Backbone and one linear layer: the image's coefficients.

    The last layer starts at zero, so that an untrained regressor answers the mean face, frontal, under ambient light.

    Args:
        backbone: image encoder.
        layout: the regressed vector.
        scales: units of the head's outputs by coefficient name; 1 where absent.
    """

    scale: Tensor

    def __init__(
        self, backbone: ImageEncoder, layout: CoefficientLayout, scales: Mapping[str, float] = HEAD_SCALES
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.layout = layout
        self.head = nn.Linear(backbone.features, layout.length)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        units = [torch.full((size,), scales.get(name, 1.0)) for name, size in layout.sizes.items()]
        self.register_buffer("scale", torch.cat(units), persistent=False)

    def forward(self, image: Tensor) -> Coefficients:
        """(B, 3, H, W) sRGB in [0, 1] -> Coefficients of B images."""
        return self.layout.split(self.head(self.backbone(image)) * self.scale)


def resized(picture: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, C, size, size)"""
    if picture.shape[-2:] == (size, size):
        return picture
    return nn.functional.interpolate(picture, size=(size, size), mode="bilinear", antialias=True)


def finite(coefficients: Coefficients) -> Coefficients:
    """The same.

    Raises:
        UserError: they are not finite.
    """
    if not coefficients.finite():
        raise UserError("the checkpoint answers with values that are not finite; train it anew")
    return coefficients
