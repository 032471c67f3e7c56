# %% [markdown]
# # Add a paper
#
# This page builds a working paper. Its idea is simple: a face and its mirror image must have the same shape.
# In the repository its class would stand in `lightning_modules/mirrored/module.py`.
# [Contributing](contributing.md#add-a-paper) lists the three lines that change elsewhere.
#
# ## The weights
#
# Each term of the loss has a named weight. A weight of 0 switches its term off, so a row of an ablation table is a
# command line.

# %%
import functools
from dataclasses import dataclass

import torch
from lightning import Trainer
from torch import Tensor, nn

from datamodules import MultiViewBatch, SyntheticMultiView
from datamodules.synthesis.scenes import SceneSettings
from lightning_modules import FaceModule
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.weighting import Weights, weighted_sum
from losses import coefficient_regularization, landmark_loss
from losses.landmark import landmark_weights
from renderers import MorphableModel, load_face_model


@dataclass(frozen=True)
class MirroredWeights(Weights):
    """Weights of the loss terms."""

    landmark: float = 1e-2
    mirror: float = 1.0
    regularization: float = 1e-2


# %% [markdown]
# ## The module
#
# `FaceModule` brings network, renderer, metrics, validation, schedule and checkpoints. A paper adds its training step.


# %%
class Mirrored(FaceModule):
    """A face and its mirror image have one shape.

    Args:
        face_model: the decoder.
        backbone: image encoder.
        image_size: side of the square images, pixels.
        weights: of the loss terms.
    """

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        image_size: int = 48,
        weights: MirroredWeights = MirroredWeights(),
    ) -> None:
        super().__init__(face_model, backbone, None, image_size, functools.partial(torch.optim.Adam, lr=3e-3))
        self.weights = weights
        self.start_from(None)

    def training_step(self, batch: MultiViewBatch, batch_idx: int) -> Tensor:
        """The weighted sum of the terms that have a weight."""
        coefficients = self(batch.image)
        terms: dict[str, Tensor] = {}
        if self.weights.landmark:
            found = self.renderer(coefficients, batch.intrinsics).landmarks
            points = landmark_weights().to(self.device)
            terms["landmark"] = landmark_loss(found, batch.landmarks, points, self.image_size).mean()
        if self.weights.mirror:
            mirrored = self(batch.image.flip(-1))
            terms["mirror"] = (coefficients.identity - mirrored.identity).square().mean()
        if self.weights.regularization:
            terms["regularization"] = coefficient_regularization(coefficients).mean()
        loss = weighted_sum(terms, self.weights.terms())
        self.log_terms("train", terms, loss, len(batch))
        return loss


# %% [markdown]
# ## A backbone
#
# Any `ImageEncoder` will do; `ResNet` and `VGG` are there. This one is small enough for seconds of training.


# %%
class SmallEncoder(ImageEncoder):
    """(B, 3, H, W) sRGB in [0, 1] -> (B, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = 64
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 5, 4), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU(), nn.AvgPool2d(5), nn.Flatten()
        )


# %% [markdown]
# ## Train it
#
# Lightning trains it on synthetic faces. `validation_step` is inherited, and reports the same metrics for every paper.
# A network learns so few faces by heart, so here it is validated on them; default runs have thousands of faces.

# %%
torch.manual_seed(0)
face_model = load_face_model("default")
data = SyntheticMultiView(
    face_model, size=48, batch_size=8, train_faces=32, val_faces=8, settings=SceneSettings(views=1)
)
module = Mirrored(face_model, SmallEncoder())
trainer = Trainer(
    max_steps=100, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, inference_mode=False, check_val_every_n_epoch=100,
)  # fmt: skip
data.prepare_data()
before = trainer.validate(module, data.train_dataloader(), verbose=False)[0]["val/nme"]
trainer.fit(module, data)
after = trainer.validate(module, data.train_dataloader(), verbose=False)[0]["val/nme"]
print(f"landmark error: {before:.1f} % at first, {after:.1f} % after {trainer.global_step} steps")

# %% [markdown]
# ## Make it a member of the house
#
# With `experiments/mirrored/default.yaml`, `make train-mirrored` and the other targets exist. Add a `table.yaml` with
# a row for each weight that is 0, and `make table-mirrored` makes the ablation table. Then test each term against a
# closed form: a picture that is its own mirror image has a mirror term of 0.
