"""Reading a checkpoint file without running anything that is in it."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lightning_modules.components.backbones import CoefficientRegressor
from lightning_modules.components.checkpoint_archive import check_checkpoint
from lightning_modules.components.deep3d import NETWORK, regressor_weights
from renderers.io.errors import UserError

if TYPE_CHECKING:
    from lightning import LightningModule

SHIPPED = ".safetensors"  # how the name of the shipped network's file ends
OTHER = "It is of another network or of another version of the code: give one of this module's own"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint that this program wrote, tensors on the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that another program wrote.
    """
    return _checked(_read(path), path)


def read_initial_weights(module: LightningModule, path: Path) -> dict[str, Any]:
    """The contents of a checkpoint to start from: of this program, the shipped network, or a Deep3D-style one.

    The last two become the module's own `regressor`; everything else of the module is returned as it is.

    Args:
        module: with a `CoefficientRegressor` named `regressor`.
        path: the file.

    Raises:
        UserError: as `read_checkpoint`, or a shipped or Deep3D-style network that is another than the module's.
    """
    if path.suffix == SHIPPED:
        return _shipped_contents(module, path)
    contents = _read(path)
    if not isinstance(contents, dict) or NETWORK not in contents:
        return _checked(contents, path)
    regressor = module.regressor
    assert isinstance(regressor, CoefficientRegressor)
    weights = regressor_weights(contents[NETWORK], regressor, path)
    state = {**module.state_dict(), **{f"regressor.{name}": value for name, value in weights.items()}}
    started: dict[str, Any] = {"state_dict": state}
    module.on_save_checkpoint(started)  # Such a file names no face model: what fits in size is taken to be this one's.
    return started


def read_shipped(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a `.safetensors` file, and the JSON of the file beside it, which names their face model.

    Raises:
        UserError: one of the two is missing or damaged.
    """
    about = path.with_suffix(".json")
    try:
        weights = safetensors.torch.load_file(path)
        description = json.loads(about.read_text())
        return weights, {**description, "face_model": str(description["face_model"])}
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())[:100]
        raise UserError(f"checkpoint {path}: it or {about.name} beside it is missing or damaged: {told}") from error


def _shipped_contents(module: LightningModule, path: Path) -> dict[str, Any]:
    """A checkpoint of the module with the shipped network as its `regressor`.

    What a paper regresses beside the face model's coefficients comes last in the head, and stays as the module has it.
    """
    weights, about = read_shipped(path)
    own = module.state_dict()
    named = {f"regressor.{name}": value for name, value in weights.items()}
    known = {name: value.to(own[name].dtype) for name, value in named.items() if name in own}
    missing = next((name for name in own if name.startswith("regressor.") and name not in known), None)
    if missing is not None:
        raise UserError(
            f"checkpoint {path}: it holds no {missing}: give the module the backbone that it was trained with, "
            "lightning_modules.dense_face.ThinResNet"
        )
    for name in ("regressor.head.weight", "regressor.head.bias"):
        known[name] = torch.cat([known[name], own[name][len(known[name]) :]])
    face_model = {"name": "default", "fingerprint": about["face_model"]}
    return {"state_dict": {**own, **known}, "face_model": face_model}


def load_weights(module: LightningModule, contents: dict[str, Any], path: Path) -> None:
    """Puts a checkpoint's weights into a module, which first looks whether they were made for its face model.

    Raises:
        UserError: made for another face model, another network, or another version of the module; or not numbers.
    """
    try:
        module.on_load_checkpoint(contents)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {path}: damaged: what it says of its face model is unreadable") from error
    unfit = next((name for name, value in contents["state_dict"].items() if _is_nan(value)), None)
    if unfit is not None:
        raise UserError(f"checkpoint {path}: {unfit} holds values that are not numbers; its training diverged")
    try:
        module.load_state_dict(contents["state_dict"])
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"checkpoint {path}: {mismatch(error)}. {OTHER}") from error


def mismatch(error: Exception) -> str:
    """The first difference that load_state_dict names, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()[1:]]
    first = lines[0] if lines else str(error)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"its weights do not fit this module: {first[:200]}{more}"


def _read(path: Path) -> Any:
    check_checkpoint(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(contents, path)
    except (PermissionError, UserError):
        raise
    except Exception as error:  # Whatever torch's reader stumbles over in a file that is not its own.
        raise UserError(f"checkpoint {path}: damaged, or not a checkpoint ({type(error).__name__})") from error
    return contents


def _check_tensors(contents: Any, path: Path) -> None:
    """Whether every tensor is made of numbers that stand in the file."""
    size, waiting, seen, storages = path.stat().st_size, [contents], set(), {}
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            plain = item.layout == torch.strided and item.device.type == "cpu" and not item.is_quantized
            if not plain or item.is_nested or item.numel() * item.element_size() > item.untyped_storage().nbytes():
                raise UserError(f"checkpoint {path}: damaged: it holds a tensor whose numbers are not in the file")
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            # An OrderedDict takes attributes from the file, which may be called as its methods are.
            own = vars(item) if isinstance(item, OrderedDict) else {}
            if own.keys() - {"_metadata"} or not _is_metadata(own.get("_metadata", {})):
                raise UserError(f"checkpoint {path}: damaged: its state_dict has attributes that torch gives to none")
            waiting += item.values() if isinstance(item, dict) else item
    if sum(storages.values()) > size:
        raise UserError(f"checkpoint {path}: damaged: it claims to hold more numbers than the file's size")


def _is_metadata(value: Any) -> bool:
    """Whether it is what torch keeps beside weights: of every module by name, its version."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(of, dict) and all(type(version) is int for version in of.values())
        for name, of in dict.items(value)
    )


def _checked(contents: Any, path: Path) -> dict[str, Any]:
    if not isinstance(contents, dict) or not isinstance(contents.get("state_dict"), dict):
        raise UserError(f"checkpoint {path}: it holds no state_dict; it was not written by `python -m experiments fit`")
    if not all(isinstance(name, str) for name in contents["state_dict"]):
        raise UserError(f"checkpoint {path}: damaged: its state_dict names weights by something else than text")
    return contents


def _is_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any())
