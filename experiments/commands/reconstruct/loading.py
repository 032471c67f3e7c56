"""The pipeline from what a user names: a checkpoint or none, a face model, a detector."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments.commands.reconstruct.detail import DEFAULT_SIZE
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.training.shipped_model import load_default_model
from experiments.training.stored_module import Trust
from renderers.face_models.load import load_face_model
from renderers.io.errors import UserError


def load_pipeline(
    checkpoint: Path | None = None,
    face_model: str | None = None,
    detector: str = "auto",
    refine: bool = True,
    detail_size: int | None = None,
    trust: Trust | None = None,
    device: torch.device | str = "cpu",
) -> ReconstructionPipeline:
    """Load everything that is needed to reconstruct photographs.

    Args:
        checkpoint: a trained network, where the fit starts; without one that is the shipped network.
        face_model: `default` or a file's path; the checkpoint's, or the embedded one, where absent.
        detector: see `datamodules.preparation.landmarks.best_detector`.
        refine: False takes the network's answer as it is.
        detail_size: texels along a side of the detail's maps.
        trust: what a checkpoint may name; the little that any may, where absent.
        device: where faces are fitted.

    Raises:
        UserError: a checkpoint that cannot be read, one of another face model or of no faces, or one that finds no
            detail where `detail_size` asks for it.
    """
    if checkpoint is None:
        model = load_face_model(face_model or "default")
        shipped = load_default_model(model)
        return ReconstructionPipeline(model, None, detector, refine, shipped=shipped, device=device)
    # A checkpoint's module needs Lightning, which takes longer to import than all else that a photograph needs.
    from experiments.training.checkpoint import load_module
    from lightning_modules.base import FaceModule

    module = load_module(checkpoint, trust or Trust())
    if not isinstance(module, FaceModule):
        raise UserError(
            f"checkpoint {checkpoint}: holds a {type(module).__name__}, which reconstructs no faces: "
            "give one of a paper's run"
        )
    if face_model is not None:
        asked = load_face_model(face_model)
        if asked.fingerprint() != module.face_model.fingerprint():
            raise UserError(
                f"checkpoint {checkpoint}: made for face model {module.face_model.name} "
                f"({module.face_model.fingerprint()}), not for {face_model} ({asked.fingerprint()})"
            )
    if detail_size is not None and not module.finds_detail:
        raise UserError(
            f"--detail-size: checkpoint {checkpoint} holds a {type(module).__name__}, which finds no detail; "
            "give one of finegrained, self_augmentation or specular"
        )
    size, stated = detail_size or DEFAULT_SIZE, str(checkpoint)
    return ReconstructionPipeline(module.face_model, module, detector, refine, stated, detail_size=size, device=device)
