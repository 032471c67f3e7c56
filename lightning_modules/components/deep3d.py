"""Public Deep3D-style checkpoints (Deng et al. 2019, in PyTorch) as the coarse model of a paper.

Such a file is a dictionary whose `net_recon` holds the weights of a ResNet-50 (`backbone.*`, torchvision's names,
without a classifier) and of seven 1x1 convolutions on its pooled features (`final_layers.0` to `.6`: identity 80,
expression 64, texture 80, angles 3, illumination 27, translation in x and y 2, in z 1). On one pixel a 1x1 convolution
is a linear layer, and the seven in their order are this project's vector of 257: they become the rows of one head.

Its conventions and ours:

    image         sRGB in [0, 1], 224 px, nothing taken out: `ResNet(50, normalize=False)`
    coefficients  the same, in standard deviations of BFM 2009 (`BFM_model_front.mat`), whose mean both centre
    rotation      theirs is (Rz Ry Rx)^T on row vectors: our R = Rz Ry Rx on columns, of the same three angles
    translation   added to the rotated points: the same sign and axes
    camera        depth = 10 - z, focal length 1015, principal point 112 at 224 px: the same
    pixels        their y runs up from the bottom edge: ours is 224 - y
    illumination  the same basis, order and 0.8 on the constant weight, with camera-space normals
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.components.backbones import CoefficientRegressor, ResNet
from renderers.io.errors import UserError

NETWORK = "net_recon"
HEADS = {
    "identity": (0,),
    "expression": (1,),
    "albedo": (2,),
    "angles": (3,),
    "illumination": (4,),
    "translation": (5, 6),
}
SIZES = {"identity": 80, "expression": 64, "albedo": 80}
WIDTHS = (80, 64, 80, 3, 27, 2, 1)


def regressor_weights(network: Any, regressor: CoefficientRegressor, path: Path) -> dict[str, Tensor]:
    """What `net_recon` holds, as weights of a regressor that then answers with the same coefficients.

    Args:
        network: the value of `NETWORK` in the checkpoint.
        regressor: of a backbone `ResNet(50, normalize=False)` and a face model of 80, 64 and 80 coefficients. What a
            paper adds to the vector keeps its head.
        path: what messages name.

    Returns:
        The regressor's state dict.

    Raises:
        UserError: another network or face model, or weights that are missing, mis-sized or not finite.
    """
    _check_regressor(regressor, path)
    if not isinstance(network, Mapping):
        raise _error(path, f"{NETWORK} is no dictionary of weights")
    state = dict(regressor.state_dict())
    start = "backbone.network."
    theirs = {name: f"backbone.{name.removeprefix(start)}" for name in state if name.startswith(start)}
    heads = [f"final_layers.{number}.{kind}" for number in range(len(WIDTHS)) for kind in ("weight", "bias")]
    unknown = [str(name)[:60] for name in network if name not in {*theirs.values(), *heads}]
    if unknown:
        raise _error(path, f"{NETWORK} holds {unknown[0]!r}, which is no weight of a ResNet-50 with seven heads")
    for ours, name in theirs.items():
        state[ours] = _weight(network, name, tuple(state[ours].shape), path)
    weights, biases = state["head.weight"].clone(), state["head.bias"].clone()
    features, first = weights.shape[1], 0
    for part, size in regressor.layout.sizes.items():
        rows = slice(first, first + size)
        first += size
        if part in HEADS:
            kernels = [
                _weight(network, f"final_layers.{number}.weight", (WIDTHS[number], features, 1, 1), path)
                for number in HEADS[part]
            ]
            offsets = [
                _weight(network, f"final_layers.{number}.bias", (WIDTHS[number],), path) for number in HEADS[part]
            ]
            # The regressor multiplies what its head answers by the head's units.
            weights[rows] = torch.cat(kernels).flatten(1) / regressor.scale[rows, None]
            biases[rows] = torch.cat(offsets) / regressor.scale[rows]
    return {**state, "head.weight": weights, "head.bias": biases}


def _error(path: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {path}: a Deep3D-style one that does not fit: {reason}")


def _check_regressor(regressor: CoefficientRegressor, path: Path) -> None:
    backbone, sizes = regressor.backbone, regressor.layout.sizes
    if not isinstance(backbone, ResNet) or (backbone.depth, backbone.stages) != (50, 4):
        raise _error(path, "its network is a ResNet-50; give the backbone ResNet with depth 50 and all its stages")
    if backbone.normalize:
        raise _error(path, "it was trained on images in [0, 1]; give the backbone normalize: false")
    if any(sizes[name] != size for name, size in SIZES.items()):
        found = ", ".join(str(sizes[name]) for name in SIZES)
        raise _error(path, f"its face model is BFM 2009 with 80, 64 and 80 coefficients, this one has {found}")


def _weight(network: Mapping[str, Any], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    value = network.get(name)
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        raise _error(path, f"{NETWORK} holds no {name}" if value is None else f"{name} is no plain tensor")
    if tuple(value.shape) != shape:
        raise _error(path, f"{name} has shape {tuple(value.shape)}, expected {shape}")
    counts = name.endswith("num_batches_tracked")
    if value.is_floating_point() == counts or value.is_complex() or not value.isfinite().all():
        raise _error(path, f"{name} holds {value.dtype}, or values that are not finite")
    return value
