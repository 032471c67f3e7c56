"""The network that ships with the project: weights in half precision, and a small file that says what they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from datamodules.synthesis.parsing import PARSING
from experiments.papers import EXPERIMENTS
from lightning_modules.components.checkpoint_file import mismatch, read_shipped
from lightning_modules.dense_face.network import DenseNetwork, ThinResNet
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError, within

logger = logging.getLogger(__name__)

FOLDER = EXPERIMENTS / "default_model"
WEIGHTS, ABOUT = "weights.safetensors", "weights.json"
SIZES = {"width": (8, 256), "image_size": (32, 1024), "parsing_classes": (2, 256)}
"""What `ABOUT` says of the network, and between which numbers that lies."""
REMEDY = "restore it, or train it anew: make train-default-model"


def load_default_model(face_model: MorphableModel, folder: Path = FOLDER) -> DenseNetwork | None:
    """The shipped network, in eval mode on the CPU.

    Args:
        face_model: what its coefficients are of.
        folder: where its two files lie.

    Returns:
        None where the files are absent, or were made for another face model.

    Raises:
        UserError: a file that is damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file() or not (folder / ABOUT).is_file():
        return None
    try:
        weights, about = read_shipped(path)
        if about["face_model"] != face_model.fingerprint():
            if face_model.name == "default":
                logger.warning(
                    "the shipped network is not used: it is for the default face model %s, and this one is %s; %s",
                    about["face_model"], face_model.fingerprint(), REMEDY,
                )  # fmt: skip
            return None
        width, image_size, classes = (within(name, about.get(name, 0), *SIZES[name]) for name in SIZES)
        unfit = next((name for name, value in weights.items() if not value.isfinite().all()), None)
        if unfit is not None:
            raise UserError(f"{unfit} holds values that are not numbers")
        assert isinstance(face_model, LinearModel)
        network = DenseNetwork(face_model, ThinResNet(width), image_size, classes)
        # In half precision the file is half as large; `load_state_dict` copies into single precision.
        network.load_state_dict(weights)
    except (UserError, TypeError) as error:
        raise UserError(f"{folder}: {error}; {REMEDY}") from error
    except RuntimeError as error:
        raise UserError(f"{folder}: {mismatch(error)}; {REMEDY}") from error
    return network.eval()


def write_default_model(
    network: DenseNetwork, face_model: MorphableModel, training: Mapping[str, Any], folder: Path = FOLDER
) -> None:
    """Writes `WEIGHTS` in half precision, and `ABOUT`.

    Args:
        network: as it was trained.
        face_model: that it was trained for.
        training: plain values to record: steps, versions.
        folder: where to.
    """
    half = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    about = {
        "face_model": face_model.fingerprint(),
        "width": network.backbone.width,
        "image_size": network.image_size,
        "parsing_classes": len(PARSING),
        "parsing": list(PARSING),
        "training": dict(training),
    }
    with written_atomically(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(half, temporary)
    with written_atomically(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
