"""Self-augmentation: makes a fine texture from features, and learns it on re-rendered faces (Mohaghegh et al.)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from datamodules.batch import FaceBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.checkpoint_file import OTHER, SHIPPED, mismatch, read_initial_weights
from lightning_modules.components.panels import face_panels
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.components.schedule import Schedule
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.self_augmentation.likeness import Features, likeness_terms
from lightning_modules.self_augmentation.metrics import RefinementMetrics
from lightning_modules.self_augmentation.mirroring import mirrored
from lightning_modules.self_augmentation.network import FineModel
from lightning_modules.self_augmentation.rerender import (
    TexturedFaces,
    View,
    difference,
    hidden_view,
    recolored,
    turned_view,
)
from lightning_modules.self_augmentation.weights import CoarseWeights, SelfAugmentationWeights
from losses.encoders import FaceEncoder
from losses.photometric import render_loss, saturate_skin
from losses.regularization import coefficient_regularization
from losses.robust import robustified_loss
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.symmetry import mirror_vertices
from renderers.face_renderer import Rendering
from renderers.io.errors import UserError, within

TURN_EVERY = 4  # there are more ways to hide a part of a face than to turn it


class SelfAugmentation(FaceModule):
    """A coarse face with a fine texture. Turned and occluded re-renders of the face must give the same texture again.

    The first `coarse_steps` train the coarse model alone, on landmarks, colours and identity. Equations (5) to (9)
    follow, which use no landmarks. A row of the paper's table 2 is a choice of weights and of `attribute_features`.

    Args:
        face_model, backbone, identity_encoder, image_size, optimizer: see `FaceModule`.
        attribute_encoder: frozen network of attributes such as age and gender.
        corruption: hides parts of a re-render: (image, landmarks, generator) -> image and mask, as the modules of
            `datamodules.corruption` do. It also makes the occluded pictures of validation, with a fixed generator.
        code_encoder: gives the identity features that the decoder gets, for example those of several layers of a
            recognition network; `identity_encoder` by default.
        segmentation: (B, 3, H, W) -> (B, 1, H, W) the mask M of equation (6), weights in [0, 1]. Without it M is the
            exact face if the data knows it, else the batch's skin. M is always cut to the projected face.
        judges: further recognition networks, by name, for validation alone.
        weights: of the loss terms.
        coarse_weights: of the coarse model's own stage.
        coarse_steps: the first fine step. It is 0 if `init_weights` brings a coarse model.
        coarse_identity_start: the step from which the coarse stage's identity term counts.
        freeze_coarse: keep the coarse model as it is in the fine stage; else equation (5) trains it too, together with
            its own stage's loss. Without that it would follow its own errors.
        augmentation_start: the fine step from which faces are turned, hidden and fed back, and the perceptual terms
            count. Before it the texture is too rough for re-renders.
        alternate: turn the faces in one step of `TURN_EVERY` and hide parts of them in the others, which halves the
            cost; else do both in every step.
        perceptual_every: features of renderings are compared in one of so many steps, with `alternate` in one of so
            many rounds of `TURN_EVERY` steps, and then count so many times. Their networks take most of a step's time.
        max_yaw: degrees that a re-rendered face looks to either side at most; 90 is the profile.
        attribute_features: whether the decoder gets attribute features beside identity features.
        channels, order, hidden, coarsening: see `FineModel`.
        schedule: see `FaceModule`; `decay` is the paper's.
        decay_steps: steps between two decays of the learning rate by 0.9 (section 4.1). The default is an epoch of
            CelebA's 162,770 training pictures.
        init_weights: a checkpoint of any paper with the same coefficients, which gives the coarse model, and the fine
            model if it has one.
    """

    own_metrics: RefinementMetrics
    partner: Tensor

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        identity_encoder: FaceEncoder,
        attribute_encoder: FaceEncoder,
        corruption: nn.Module,
        code_encoder: FaceEncoder | None = None,
        segmentation: nn.Module | None = None,
        judges: dict[str, FaceEncoder] | None = None,
        image_size: int = 224,
        weights: SelfAugmentationWeights = SelfAugmentationWeights(),
        coarse_weights: CoarseWeights = CoarseWeights(),
        coarse_steps: int = 0,
        coarse_identity_start: int = 0,
        freeze_coarse: bool = True,
        augmentation_start: int = 0,
        alternate: bool = False,
        perceptual_every: int = 1,
        max_yaw: float = 90.0,
        attribute_features: bool = True,
        channels: int = 16,
        order: int = 3,
        hidden: int = 128,
        coarsening: int = 4,
        optimizer: Callable[[Iterable], Optimizer] = Adam,
        schedule: Schedule = "constant",
        decay_steps: int = 10_173,
        init_weights: str | None = None,
    ) -> None:
        super().__init__(face_model, backbone, identity_encoder, image_size, optimizer, schedule)
        if decay_steps < 1:
            raise UserError(f"SelfAugmentation: decay_steps is {decay_steps}, at least 1 is needed")
        self.decay_steps = decay_steps
        self.attribute_encoder, self.corruption, self.segmentation = attribute_encoder, corruption, segmentation
        self.weights, self.coarse_weights = weights, coarse_weights
        self.coarse_steps = coarse_steps
        self.coarse_starts = {"identity": coarse_identity_start}
        self.freeze_coarse, self.coarse_given = freeze_coarse, False
        later = ("identity", "attribute", "robustified", "rotation", "occlusion")
        self.fine_starts, self.alternate = dict.fromkeys(later, augmentation_start), alternate
        self.perceptual_every = within("perceptual_every", perceptual_every, 1, 1000)
        self.max_yaw, self.attribute_features = max_yaw, attribute_features
        self.code_encoder = code_encoder or identity_encoder
        features = self.code_encoder.features + (attribute_encoder.features if attribute_features else 0)
        self.fine_model = FineModel(face_model, features, channels, order, hidden, coarsening)
        encoders = {"identity_similarity": identity_encoder}
        encoders |= {f"similarity_{name}": judge for name, judge in (judges or {}).items()}
        self.own_metrics = RefinementMetrics(face_model, encoders)
        self.register_buffer("partner", mirror_vertices(face_model), persistent=False)
        self.start_from(init_weights)

    def start_from(self, init_weights: str | None) -> None:
        """Take over a checkpoint's coarse model, and its fine model if it has one, and skip the coarse stage.

        After the shipped network the coarse stage is not skipped.

        Raises:
            UserError: `init_weights` is no checkpoint, or one of another network or face model.
        """
        if init_weights is None:
            return
        path = Path(init_weights)
        contents = read_initial_weights(self, path)
        super().on_load_checkpoint(contents)
        for name, part in (("regressor", self.regressor), ("fine_model", self.fine_model)):
            start = f"{name}."
            held = {k.removeprefix(start): v for k, v in contents["state_dict"].items() if k.startswith(start)}
            if name == "fine_model" and not contents.get("fine_trained"):
                continue
            try:
                part.load_state_dict(held)
            except RuntimeError as error:
                raise UserError(f"checkpoint {path}: {mismatch(error)}. {OTHER}") from error
        if path.suffix != SHIPPED:  # The shipped network knows faces, but not the light and colours of these pictures.
            self.coarse_given, self.coarse_steps = True, 0

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        step = self.global_step - self.coarse_steps
        if step < 0:
            coefficients, rendering = self.faces(batch)
            weights = self.coarse_weights.at(self.global_step, self.coarse_starts)
            terms = self.coarse_terms(batch, coefficients, rendering, weights)
            loss = weighted_sum(terms, weights.terms())
        else:
            self.regressor.eval()  # Its running statistics are those of photographs; views have others.
            terms = self.fine_terms(batch, step)
            loss = weighted_sum(terms, self.fine_weights(step).terms())
        self.log_terms("train", terms, loss, len(batch))
        return loss

    def evaluate(self, stage: Stage, batch: FaceBatch, batch_idx: int) -> None:
        faces = self.reconstruction(batch.image, batch.intrinsics)
        face_mask = self.face_mask(batch)
        rendered_features = self.features(faces.fine.image, faces.fine.landmarks) if self.weights.perceptual else None
        target_features = self.target_features(batch, faces) if self.weights.perceptual else None
        mask = faces.fine.mask * face_mask
        terms = likeness_terms(faces.fine.image, rendered_features, batch.image, target_features, mask, self.weights)
        self.log_terms(stage, terms, weighted_sum(terms, self.weights.terms()), len(batch))
        self.metrics.update(batch, faces.coefficients, self.as_marked(faces.fine, faces.coefficients, batch))
        self.own_metrics.update(batch, "clean", {"coarse": faces.coarse, "fine": faces.fine}, face_mask > 0.5)
        occluded, hidden = self.occluded(batch, batch_idx)
        faces = self.reconstruction(occluded, batch.intrinsics)
        copied = mirrored(faces, occluded, hidden, self.partner)
        renderings = {"coarse": faces.coarse, "fine": faces.fine, "mirrored": copied}
        self.own_metrics.update(batch, "occluded", renderings, face_mask > 0.5, hidden)

    def occluded(self, batch: FaceBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """The batch's pictures with a part hidden, and a mask of that part; always the same for the same batch."""
        image, mask = self.corruption(batch.image, batch.landmarks, torch.Generator().manual_seed(batch_idx))
        return image, mask

    def features(self, image: Tensor, landmarks: Tensor) -> Features:
        """Features of rendered or photographed faces (B, 3, H, W). No gradient flows to the landmarks (B, 68, 2)."""
        return Features(self.identity_encoder(image, landmarks), self.attribute_encoder(image, landmarks))

    def reconstruction(self, image: Tensor, intrinsics: Tensor) -> TexturedFaces:
        """Coarse and fine faces of pictures.

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            intrinsics: (B, 3, 3) pixels.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_coarse):
            coefficients = self(image)
            coarse = self.renderer(coefficients, intrinsics)
        return self.textured(image, coefficients, coarse)

    def refined(self, coarse: Reconstruction, image: Tensor, skin: Tensor) -> Reconstruction:
        fine = self.textured(image, coarse.coefficients, coarse.rendering).fine
        return replace(coarse, rendering=fine, texture=fine.vertex_albedo, coarse=coarse.rendering)

    def textured(self, image: Tensor, coefficients: Coefficients, coarse: Rendering) -> TexturedFaces:
        """The fine faces of coarse ones. The coarse landmarks place the encoders' chips, so no detector is needed.

        Args:
            image: (B, 3, H, W) sRGB in [0, 1].
            coefficients: of the coarse faces.
            coarse: the coarse faces, drawn at H x W.
        """
        code, attributes = self.codes(image, coarse.landmarks)
        texture = self.fine_model(coarse.vertex_albedo, code)
        return TexturedFaces(coefficients, coarse, recolored(coarse, texture, coefficients), attributes)

    @torch.no_grad()
    def codes(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """The fine model's features of pictures (B, 3, H, W), and attribute features alone, by landmarks (B, 68, 2)."""
        code, attributes = self.code_encoder(image, landmarks), self.attribute_encoder(image, landmarks)
        return torch.cat([code, attributes], dim=1) if self.attribute_features else code, attributes

    def face_mask(self, batch: FaceBatch) -> Tensor:
        """(B, 1, H, W) weights in [0, 1]: M of equation (6), before it is cut to the projected face."""
        if self.segmentation is not None:
            with torch.no_grad():
                mask: Tensor = self.segmentation(batch.image)
            return mask
        return saturate_skin(batch.skin) if batch.truth is None else (batch.truth.depth > 0).float()

    def coarse_terms(
        self, batch: FaceBatch, coefficients: Coefficients, rendering: Rendering, weights: CoarseWeights
    ) -> dict[str, Tensor]:
        """The terms of the coarse stage (section 3.1), each a mean over the images. Terms of weight 0 are left out.

        Args:
            batch: of images.
            coefficients: the network's answer.
            rendering: the faces of these coefficients.
            weights: in force at this step.
        """
        terms: dict[str, Tensor] = {}
        if weights.photometric:
            mask = self.face_mask(batch)
            terms["photometric"] = render_loss(rendering.image, batch.image, rendering.mask, mask).mean()
        if weights.landmark:
            terms["landmark"] = self.landmark_term(batch, rendering.landmarks)
        if weights.identity:
            terms["identity"] = self.identity_term(batch, rendering.image, rendering.landmarks)
        if weights.regularization:
            terms["regularization"] = coefficient_regularization(coefficients, **weights.priors()).mean()
        return terms

    def fine_terms(self, batch: FaceBatch, step: int) -> dict[str, Tensor]:
        """The terms of equation (5) and those of the fed-back faces, each a mean. Terms of weight 0 are left out.

        Args:
            batch: of images.
            step: of the fine stage. With `alternate`, it says whether faces are turned or partly hidden.
        """
        weights = self.fine_weights(step)
        faces = self.reconstruction(batch.image, batch.intrinsics)
        mask = faces.fine.mask * self.face_mask(batch)
        target_features = self.target_features(batch, faces) if weights.compares_features else None
        rendered_features = self.features(faces.fine.image, faces.fine.landmarks) if weights.perceptual else None
        terms = {"change": faces.change()} if weights.change else {}
        if weights.coarse and not self.freeze_coarse:
            terms["coarse"] = self.coarse_loss(batch, faces)
        terms |= likeness_terms(faces.fine.image, rendered_features, batch.image, target_features, mask, weights)
        robustified: list[Tensor] = []
        for name, weight in (("rotation", weights.rotation), ("occlusion", weights.occlusion)):
            its_turn = not self.alternate or (step % TURN_EVERY == 0) == (name == "rotation")
            if not its_turn or not (weight or weights.robustified):
                continue
            view = self.turned(batch, faces) if name == "rotation" else self.hidden(batch, faces)
            view_features = self.features(view.image, view.landmarks) if target_features else None
            if weights.robustified and view_features and target_features:
                robustified.append(
                    robustified_loss(
                        view_features.identity, target_features.identity,
                        view_features.attributes, target_features.attributes,
                    ).mean()
                )  # fmt: skip
            if weight:
                seen_features = view_features.detach() if view_features else None
                terms[name] = self.fed_back(batch, faces, target_features, mask, view, seen_features, weights)
        if robustified:
            terms["robustified"] = torch.stack(robustified).sum()
        return terms

    def coarse_loss(self, batch: FaceBatch, faces: TexturedFaces) -> Tensor:
        """The coarse stage's loss of coarse faces; without L_id, which the fine faces have."""
        weights = replace(self.coarse_weights, identity=0.0)
        drawn = self.as_marked(faces.coarse, faces.coefficients, batch)
        return weighted_sum(self.coarse_terms(batch, faces.coefficients, drawn, weights), weights.terms())

    def fine_weights(self, step: int) -> SelfAugmentationWeights:
        """The weights in force at a fine step, see `perceptual_every`."""
        weights = self.weights.at(step, self.fine_starts)
        every, turn = self.perceptual_every, step // TURN_EVERY if self.alternate else step
        share = every if turn % every == 0 else 0
        perceptual = {name: share * getattr(weights, name) for name in ("identity", "attribute", "robustified")}
        return replace(weights, **perceptual)

    def target_features(self, batch: FaceBatch, faces: TexturedFaces) -> Features:
        """The features of the photographs. The coarse landmarks place the chips, as they do for the renderings."""
        with torch.no_grad():
            return Features(self.identity_encoder(batch.image, faces.coarse.landmarks), faces.attributes)

    def turned(self, batch: FaceBatch, faces: TexturedFaces) -> View:
        """I_rot of the fine faces."""
        texture = faces.fine.vertex_albedo
        return turned_view(self.renderer, faces.coefficients, texture, batch.intrinsics, self.max_yaw)

    def hidden(self, batch: FaceBatch, faces: TexturedFaces) -> View:
        """I_occ of the fine faces."""
        return hidden_view(faces.fine, batch.image, self.corruption)

    def fed_back(
        self,
        batch: FaceBatch,
        faces: TexturedFaces,
        target_features: Features | None,
        mask: Tensor,
        view: View,
        view_features: Features | None,
        weights: SelfAugmentationWeights,
    ) -> Tensor:
        """Feed a view back: equation (5) without L_rob, on both pairs of section 3.2.3.

        The model reconstructs the view, and the result is compared with the view. The same colours are also drawn in
        I's shape, pose and light, and compared with I, which shows the parts that are hidden in the view. No gradient
        flows into the view.

        Args:
            batch: of images I.
            faces: the model's faces of I.
            target_features: of the images I; None where features are not compared.
            mask: (B, 1, H, W) M of I, within the projected face.
            view: I_rot or I_occ.
            view_features: of the view, without gradient; None likewise.
            weights: in force.
        """
        image = view.image.detach()
        again = self.reconstruction(image, batch.intrinsics)
        rendered_features = self.features(again.fine.image, again.fine.landmarks) if weights.perceptual else None
        shown = (again.fine.mask & view.face).float()
        own = likeness_terms(again.fine.image, rendered_features, image, view_features, shown, weights)
        if weights.change:
            own["change"] = again.change()
        if weights.consistency:
            own["consistency"] = difference(again.fine, view.rendering)
        in_place = recolored(faces.coarse, again.fine.vertex_albedo, faces.coefficients)
        first = likeness_terms(in_place.image, rendered_features, batch.image, target_features, mask, weights)
        return torch.stack([weighted_sum(terms, weights.terms()) for terms in (own, first)]).sum()

    def stage_starts(self) -> tuple[int, ...]:
        return (0, self.coarse_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {"coarse_given": self.coarse_given, "fine_trained": self.global_step > self.coarse_steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("coarse_given"):  # A resumed run skips the coarse stage too.
            self.coarse_given, self.coarse_steps = True, 0

    @torch.no_grad()
    def panels(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1]."""
        faces = self.reconstruction(batch.image, batch.intrinsics)
        occluded, _ = self.occluded(batch, 0)
        again = self.reconstruction(occluded, batch.intrinsics)
        return face_panels(batch.image, faces.fine) | {
            "coarse": faces.coarse.image.clamp(0, 1),
            "turned": self.turned(batch, faces).image,
            "occluded": occluded,
            "occluded coarse": again.coarse.image.clamp(0, 1),
            "occluded fine": again.fine.image.clamp(0, 1),
        }
