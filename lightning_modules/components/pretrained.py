"""Backbones' weights from files that other people trained: torchvision's ImageNet ones, and VGG-Face's."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from renderers.io.errors import UserError

VGG_FACE_FILE = (
    "the state dict `vgg_face_dag.pth` of VGG-Face (Parkhi et al. 2015, 2,622 people) as converted to PyTorch for the "
    "Visual Geometry Group, 580 MB, with conv1_1.weight to fc8.bias"
)
VGG_FACE_MEAN = (129.186279296875, 104.76238250732422, 93.59396362304688)  # RGB of 0..255; nothing else is scaled
_followed = ContextVar("_followed", default=False)


@contextlib.contextmanager
def a_checkpoint_follows() -> Iterator[None]:
    """In this context backbones get random weights and nothing is fetched: a checkpoint is loaded afterwards."""
    token = _followed.set(True)
    try:
        yield
    finally:
        _followed.reset(token)


def imagenet_network(name: str) -> nn.Module:
    """A network of torchvision with its ImageNet weights, from torch's cache or fetched into it.

    Raises:
        UserError: they are neither there nor to be had, or the file is another one.
    """
    from torchvision.models import get_model_weights

    if _followed.get():
        return untrained_network(name)
    url = get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    begins = re.findall(r"-([0-9a-f]{8,})\.", path.name)[-1]  # torchvision's names end in it
    bring = (
        f"bring {url} to {path} (its SHA-256 begins with {begins}), or start from random weights: "
        "--model.init_args.backbone.init_args.pretrained=false"
    )
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=begins)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download has another checksum
            raise UserError(f"{name}: its ImageNet weights cannot be fetched ({error}): {bring}") from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(begins):
        raise UserError(f"{path}: not {name}'s ImageNet weights, its SHA-256 begins with {found[:8]}: {bring}")
    network = untrained_network(name)
    network.load_state_dict(_state_dict(path))
    return network


def untrained_network(name: str) -> Any:
    """A network of torchvision's, by its name there."""
    # Importing torchvision takes as long as importing torch, and the shipped network has nothing of it.
    from torchvision.models import get_model

    return get_model(name)


def vgg_face_network(path: Path) -> nn.Module:
    """VGG-16 of torchvision with VGG-Face's weights, all but those of its last layer.

    Raises:
        UserError: no such file, or not in the layout of `load_vgg_face`.
    """
    if not (path.is_file() or _followed.get()):
        raise UserError(f"{path}: no such file; bring {VGG_FACE_FILE}")
    network = untrained_network("vgg16")
    if not _followed.get():
        load_vgg_face(network, path)
    return network


def load_vgg_face(network: Any, path: Path) -> None:
    """Puts VGG-Face's weights into a network of torchvision's layout, all but those of its last layer.

    The file is a state dict, read without unpickling anything but tensors: `convB_I` for layer I of block B (1_1, 1_2,
    2_1, 2_2, 3_1 to 3_3, 4_1 to 4_3, 5_1 to 5_3), `fc6`, `fc7` and `fc8`, each with `.weight` and `.bias`. It is made
    for RGB pictures of 0..255 less `VGG_FACE_MEAN`.

    Args:
        network: with `features`, whose convolutions are filled in order, and `classifier`.
        path: the file.

    Raises:
        UserError: another layout, or weights of other sizes.
    """
    blocks = [
        f"conv{block}_{layer}" for block, layers in enumerate((2, 2, 3, 3, 3), 1) for layer in range(1, layers + 1)
    ]
    convolutions = [part for part in network.features if isinstance(part, nn.Conv2d)]
    linear = [part for part in network.classifier if isinstance(part, nn.Linear)][:2]
    held = _state_dict(path)
    for name, part in zip([*blocks, "fc6", "fc7"], [*convolutions, *linear], strict=True):
        for kind in ("weight", "bias"):
            own, given = getattr(part, kind), held.get(f"{name}.{kind}")
            if given is None or given.shape != own.shape:
                shown = "absent" if given is None else f"of shape {tuple(given.shape)}"
                raise UserError(
                    f"{path}: not VGG-Face's weights: {name}.{kind} is {shown}, expected {tuple(own.shape)}; "
                    f"bring {VGG_FACE_FILE}"
                )
            own.data.copy_(given)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file by name."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # Whatever torch's reader stumbles over in a file that is not its own.
        raise UserError(f"{path}: damaged, or not a file of weights ({type(error).__name__})") from error
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path}: not a state dict: it holds something else than tensors by name")
    return held
