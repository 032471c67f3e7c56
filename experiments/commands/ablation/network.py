"""The small network that every row of the ablation trains, and its training on drawn faces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from lightning import Trainer, seed_everything
from torch import Tensor
from torch.optim import Adam, Optimizer

from datamodules.batch import FaceBatch
from datamodules.head_crops import HeadCrops
from experiments.training.callbacks import TimeLeft
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.dense_face.network import EXPRESSION_DEVIATION
from lightning_modules.dense_face.targets import DensePoints, ExplainedVariance, seen_by_default_camera
from lightning_modules.dense_face.weights import DenseFaceWeights
from losses.rotation import geodesic_distance
from renderers.camera import default_intrinsics, euler_to_rotation
from renderers.face_models.linear import LinearModel

RATE = 1e-3
TOLD = 300  # steps between two lines that say how long the training will take


def _adam(parameters: Iterable[Tensor]) -> Optimizer:
    return Adam(parameters, lr=RATE)


class SupervisedFace(FaceModule):
    """Coefficients and pose by a ResNet-18, learned from faces whose truth is known.

    The terms are those of `DenseFace` of which every synthetic face has the truth, with its weights.

    Args:
        face_model: of the faces.
        image_size: side of the crops, pixels.
    """

    def __init__(self, face_model: LinearModel, image_size: int) -> None:
        super().__init__(face_model, ResNet(18, stages=3), None, image_size, _adam, "cosine")
        self.decode = DensePoints(face_model, face_model.landmark_indices)
        self.identity_error = ExplainedVariance(face_model.identity_basis, 1.0)
        self.expression_error = ExplainedVariance(face_model.expression_basis, EXPRESSION_DEVIATION)
        self.weights = asdict(DenseFaceWeights())

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        return weighted_sum(self.terms(batch), self.weights)

    def terms(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Every term as a mean over a batch that has its truth; see `DenseFaceWeights`."""
        assert batch.truth is not None
        size = batch.size[1]
        given = self.regressor.layout.split(batch.truth.coefficients)
        true, found = seen_by_default_camera(given, batch.intrinsics, size), self(batch.image)
        camera = default_intrinsics(size, batch.image.device).expand(len(batch), -1, -1)
        rotations = euler_to_rotation(found.angles), euler_to_rotation(true.angles)
        return {
            "reprojection": 100 / size * (self.decode(found, camera) - batch.landmarks).norm(dim=-1).mean(),
            "identity": self.identity_error(found.identity, true.identity).mean(),
            "expression": self.expression_error(found.expression, true.expression).mean(),
            "rotation": geodesic_distance(*rotations).mean(),
            "translation": (found.translation - true.translation).norm(dim=-1).mean(),
        }


def trained(face_model: LinearModel, data: HeadCrops, image_size: int, steps: int, seed: int) -> SupervisedFace:
    """The network after so many steps on drawn faces, from weights that the seed gives; on the CPU."""
    seed_everything(seed, verbose=False)
    module = SupervisedFace(face_model, image_size)
    trainer = Trainer(
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=5.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TimeLeft(TOLD)],
    )
    trainer.fit(module, data)
    return module.cpu().eval()
