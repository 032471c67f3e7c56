"""FaceModule: the base of every paper's LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as distributed
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from datamodules.batch import FaceBatch
from lightning_modules.components.backbones import CoefficientRegressor, ImageEncoder, finite, resized
from lightning_modules.components.checkpoint_file import load_weights, read_initial_weights
from lightning_modules.components.evaluation import NamedMetrics, ReconstructionMetrics
from lightning_modules.components.marked_landmarks import MarkedLandmarks
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.components.schedule import Schedule, learning_rate_factor
from losses.encoders import FaceEncoder
from losses.identity import identity_loss
from losses.landmark import landmark_loss
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer, Rendering
from renderers.io.errors import UserError, within
from renderers.landmarks68 import LANDMARKS

Stage = Literal["train", "val", "test"]


class FaceModule(LightningModule):
    """A backbone that regresses coefficients, a renderer that draws them, and the metrics every paper reports.

    Attributes:
        decay_steps: of the schedule `decay`.
        own_metrics: what the paper measures beside `metrics`; None where that is nothing.

    Args:
        face_model: the decoder.
        backbone: image encoder, or a whole regressor.
        identity_encoder: frozen face-recognition network, for the identity terms and the identity metric; a module
            without identity terms may go without, and without that metric.
        image_size: side of the square images, pixels.
        optimizer: from parameters to an optimizer.
        schedule: of the learning rate in each of `stage_starts`, see `learning_rate_factor`: `cosine` warms up and then
            falls to 0 at the stage's last step.
        renderer: what draws its coefficients; a `FaceRenderer` by default.
        extra: lengths of the coefficients that the paper adds, by name.
        init_weights: (of every paper) a checkpoint of the module, or a Deep3D-style one for its regressor, to start
            from with a new optimizer and schedule.
    """

    decay_steps = 1
    identity_encoder: FaceEncoder

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder | CoefficientRegressor,
        identity_encoder: FaceEncoder | None,
        image_size: int,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Schedule = "constant",
        renderer: FaceRenderer | None = None,
        extra: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.face_model = face_model
        self.image_size = within("image_size", image_size, 8, 2048)
        self.renderer = renderer or FaceRenderer(face_model, image_size)
        if isinstance(backbone, ImageEncoder):
            backbone = CoefficientRegressor(backbone, face_model.layout(extra))
        self.regressor = backbone
        if identity_encoder is not None:
            self.identity_encoder = identity_encoder
        self.metrics = ReconstructionMetrics(face_model, identity_encoder)
        self.own_metrics: NamedMetrics | None = None
        self.as_marked = MarkedLandmarks(face_model)
        self.make_optimizer, self.schedule = optimizer, schedule

    def start_from(self, init_weights: str | None) -> None:
        """Takes over a checkpoint's weights: what every paper's constructor does last, with its `init_weights`.

        Raises:
            UserError: `init_weights` is no checkpoint, or one of another network or face model.
        """
        if init_weights is not None:
            path = Path(init_weights)
            load_weights(self, read_initial_weights(self, path), path)

    def forward(self, image: Tensor) -> Coefficients:
        """(B, 3, H, W) sRGB in [0, 1] -> Coefficients."""
        return self.regressor(image)

    @property
    def finds_detail(self) -> bool:
        """Whether the paper finds more than the face model's coefficients, see `refined`."""
        return type(self).refined is not FaceModule.refined

    @torch.no_grad()
    def answer(self, image: Tensor) -> Coefficients:
        """Coefficients of aligned crops of any size, resized to the one this module was trained at.

        Raises:
            UserError: they are not finite.
        """
        return finite(self.eval()(self._resized(image)))

    @torch.no_grad()
    def reconstruct(
        self,
        image: Tensor,
        skin: Tensor | None = None,
        intrinsics: Tensor | None = None,
        coefficients: Coefficients | None = None,
    ) -> Reconstruction:
        """The faces of aligned crops as this paper makes them, drawn into the crops by its own renderer and camera.

        Args:
            image: (B, 3, H, W) sRGB in [0, 1], square; the module looks at it in the size that it was trained at.
            skin: (B, 1, h, w) weights in [0, 1] of the same view; all of it where absent.
            intrinsics: (B, 3, 3) pixels of `image`; the default camera where absent.
            coefficients: the faces, in this module's camera, where they are known better than by `answer`.

        Raises:
            UserError: the network answers with values that are not finite.
        """
        height, width = image.shape[-2:]
        scale = image.new_tensor([self.image_size / width, self.image_size / height, 1.0])
        coefficients = self.answer(image) if coefficients is None else coefficients
        if intrinsics is not None:
            intrinsics = intrinsics * scale[:, None]
        skin = torch.ones_like(image[:, :1]) if skin is None else skin
        rendering = self.eval().renderer(coefficients, intrinsics)
        found = self.refined(Reconstruction(coefficients, rendering), self._resized(image), self._resized(skin))
        if (height, width) == rendering.mask.shape[-2:]:
            return found
        enlarge = torch.nn.functional.pad(torch.diag(1 / scale[:2]), (0, 1)), (height, width)
        coarse = None if found.coarse is None else found.coarse.warped(*enlarge)
        return replace(found, rendering=found.rendering.warped(*enlarge), coarse=coarse)

    def refined(self, coarse: Reconstruction, image: Tensor, skin: Tensor) -> Reconstruction:
        """What the paper finds beyond the faces of its coefficients: here nothing.

        Args:
            coarse: of B pictures, drawn at S x S, the size that this module was trained at.
            image: (B, 3, S, S) in [0, 1].
            skin: (B, 1, S, S) weights in [0, 1].
        """
        return coarse

    def _resized(self, picture: Tensor) -> Tensor:
        return resized(picture, self.image_size)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("test", batch, batch_idx)

    def evaluate(self, stage: Stage, batch: Any, batch_idx: int) -> None:
        """Count a batch in the metrics; papers log their terms too, and count it in metrics of their own."""
        self.metrics.update(batch, *self.faces(batch))

    def faces(self, batch: FaceBatch) -> tuple[Coefficients, Rendering]:
        """What the network makes of a batch's photographs, and what that draws, see `draw`."""
        coefficients = self(batch.image)
        return coefficients, self.draw(coefficients, batch)

    def draw(self, coefficients: Coefficients, batch: FaceBatch) -> Rendering:
        """The faces drawn into a batch's photographs, with landmarks in the convention of its annotation."""
        return self.as_marked(self.renderer(coefficients, batch.intrinsics), coefficients, batch)

    def identity_term(
        self,
        batch: FaceBatch,
        image: Tensor,
        landmarks: Tensor,
        rows: Tensor | slice = slice(None),
        distance: Callable[[Tensor, Tensor], Tensor] = identity_loss,
    ) -> Tensor:
        """The mean distance between the identity features of rendered faces and of their photographs.

        Args:
            batch: of B photographs.
            image: (B, 3, H, W) the rendered faces.
            landmarks: (B, 68, 2) theirs, pixels.
            rows: the images that count.
            distance: of two (B, D) features, (B,).
        """
        with torch.no_grad():
            target_features = self.identity_encoder(batch.image[rows], batch.landmarks[rows])
        rendered_features = self.identity_encoder(image[rows], landmarks[rows])
        return distance(rendered_features, target_features).mean()

    def landmark_term(self, batch: FaceBatch, landmarks: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean over the images of `landmark_loss` between rendered landmarks and those of the photographs.

        Args:
            batch: of B photographs.
            landmarks: (B, 68, 2) of the rendered faces, pixels.
            weights: (68,) confidences; 1 for every landmark where absent.
        """
        weights = landmarks.new_ones(LANDMARKS) if weights is None else weights
        return landmark_loss(landmarks, batch.landmarks, weights, self.image_size).mean()

    def predict_step(self, batch: FaceBatch, batch_idx: int) -> Coefficients:
        return self(batch.image)

    def log_terms(self, stage: Stage, terms: Mapping[str, Tensor], loss: Tensor, batch_size: int) -> None:
        """Log every unweighted term and the weighted sum as `stage/...`."""
        named = {f"{stage}/{name}": value.detach() for name, value in terms.items()}
        per_epoch = stage != "train"
        # Lightning rounds the mean of the processes' batch sizes. A multiple of the number of processes is exact.
        batch_size *= distributed.get_world_size() if distributed.is_initialized() else 1
        self.log_dict(named, batch_size=batch_size, on_step=not per_epoch, on_epoch=per_epoch, sync_dist=per_epoch)
        self.log(f"{stage}/loss", loss.detach(), batch_size=batch_size, prog_bar=True, sync_dist=per_epoch)

    def log_metrics(self, stage: Stage) -> None:
        """Log and reset what the metrics gathered over the epoch; metrics that saw nothing are left out."""
        for metrics in (self.metrics, self.own_metrics):
            if metrics is not None:
                for name, value in metrics.compute().items():
                    self.log(f"{stage}/{name}", value, prog_bar=name == "nme")
                metrics.reset()

    def on_validation_epoch_end(self) -> None:
        self.log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self.log_metrics("test")

    def configure_optimizers(self) -> Any:
        return self.scheduled(self.make_optimizer([p for p in self.parameters() if p.requires_grad]))

    def stage_starts(self) -> tuple[int, ...]:
        """The first steps of the stages, in each of which the learning rate's schedule starts anew."""
        return (0,)

    def rate_factor(self, step: int, total: int) -> float:
        """What the learning rate is multiplied by at a step of so many, on any number of processes."""
        return learning_rate_factor(self.schedule, step, self.stage_starts(), total, self.decay_steps)

    def scheduled(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer with this module's schedule, as Lightning takes it."""
        if self.schedule == "constant":
            return {"optimizer": optimizer}
        total = int(self.trainer.estimated_stepping_batches)
        # A plain function, because a checkpoint would store the attributes of an object.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["face_model"] = {"name": self.face_model.name, "fingerprint": self.face_model.fingerprint()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        made_for, mine = checkpoint.get("face_model"), self.face_model
        if not isinstance(made_for, Mapping) or not {"name", "fingerprint"} <= made_for.keys():
            raise UserError("damaged: the checkpoint does not say for which face model it was made")
        if made_for["fingerprint"] != mine.fingerprint():
            raise UserError(
                f"the checkpoint was made for face model {made_for['name']} ({made_for['fingerprint']}), "
                f"this run uses {mine.name} ({mine.fingerprint()}): give the face model it was trained with"
            )
