"""Specular: a face's diffuse and specular albedo, and the lamp that makes it shine (Deng et al., MM 2022)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from datamodules.batch import FaceBatch
from lightning_modules.base import FaceModule, Stage
from lightning_modules.components.backbones import ImageEncoder
from lightning_modules.components.panels import face_panels
from lightning_modules.components.reconstruction import Reconstruction
from lightning_modules.components.weighting import weighted_sum
from lightning_modules.specular.metrics import SpecularMetrics
from lightning_modules.specular.weights import SpecularWeights
from losses.aspect_ratio import lid_distance_loss
from losses.encoders import FaceEncoder
from losses.inner_mouth import inner_mouth_loss
from losses.landmark import mouth_and_brow_weights
from losses.regularization import coefficient_regularization
from losses.specular import specular_landmark_loss, specular_photometric_loss, uniform_loss
from renderers.coefficients import Coefficients
from renderers.color import encode
from renderers.face_models.base import MorphableModel
from renderers.io.errors import UserError
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer, SpecularRendering


class Specular(FaceModule):
    """One network for shape, pose, diffuse and specular albedo, soft light and one lamp; equation (6) as its loss.

    Args:
        face_model: one with a specular albedo.
        backbone, identity_encoder, image_size, optimizer, schedule, init_weights: see `FaceModule`.
        weights: of the loss terms; a row of the paper's tables 1 and 2 is a choice of them.
        identity_start: the training step from which the identity term counts. The first faces are shapeless, and their
            identity features say nothing.
        mouth_start: the training step from which the inner mouth term counts (the paper's: 50,000).
        known_focal_length: whether the pictures' intrinsics are those they were taken with. Then the factor f of
            equation (3) is 1: with it the size of a face could be put down to three causes, to identity, distance or f.
    """

    landmark_weights: Tensor
    renderer: SpecularRenderer
    own_metrics: SpecularMetrics

    def __init__(
        self,
        face_model: MorphableModel,
        backbone: ImageEncoder,
        identity_encoder: FaceEncoder,
        image_size: int = 224,
        weights: SpecularWeights = SpecularWeights(),
        identity_start: int = 0,
        mouth_start: int = 0,
        known_focal_length: bool = False,
        optimizer: Callable[[Iterable], Optimizer] = Adam,
        schedule: Literal["constant", "cosine"] = "constant",
        init_weights: str | None = None,
    ) -> None:
        renderer = SpecularRenderer(face_model, image_size)
        super().__init__(
            face_model, backbone, identity_encoder, image_size, optimizer, schedule, renderer, SPECULAR_COEFFICIENTS
        )
        self.weights = weights
        self.starts = {"identity": identity_start, "mouth": mouth_start}
        self.known_focal_length = known_focal_length
        self.register_buffer("landmark_weights", mouth_and_brow_weights(weights.eyes), persistent=False)
        self.own_metrics = SpecularMetrics(face_model)
        self.start_from(init_weights)

    def forward(self, image: Tensor) -> Coefficients:
        coefficients = super().forward(image)
        if not self.known_focal_length:
            return coefficients
        scale = torch.zeros_like(coefficients.extra["scale"])
        return replace(coefficients, extra={**coefficients.extra, "scale": scale})

    def training_step(self, batch: FaceBatch, batch_idx: int) -> Tensor:
        step = self.global_step
        coefficients = self(batch.image)
        rendering = self.draw(coefficients, batch)
        weights = self.weights.at(step, self.starts)
        terms = self.terms(batch, coefficients, rendering, weights)
        loss = weighted_sum(terms, weights.terms())
        self.log_terms("train", terms, loss, len(batch))
        return loss

    def draw(self, coefficients: Coefficients, batch: FaceBatch) -> SpecularRendering:
        return cast(SpecularRendering, super().draw(coefficients, batch))

    def evaluate(self, stage: Stage, batch: FaceBatch, batch_idx: int) -> None:
        coefficients = self(batch.image)
        rendering = self.draw(coefficients, batch)
        terms = self.terms(batch, coefficients, rendering)
        self.log_terms(stage, terms, weighted_sum(terms, self.weights.terms()), len(batch))
        self.metrics.update(batch, coefficients, rendering)
        self.own_metrics.update(batch, rendering)

    def refined(self, coarse: Reconstruction, image: Tensor, skin: Tensor) -> Reconstruction:
        shiny = cast(SpecularRendering, coarse.rendering)
        lamp = shiny.lamp
        return replace(
            coarse,
            maps={
                "specular_albedo": encode(shiny.vertex_specular_albedo),
                "light_position": lamp.position,
                "shininess": lamp.shininess,
                "intensity": lamp.intensity,
            },
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        answers = checkpoint["state_dict"].get("regressor.head.bias")
        if isinstance(answers, Tensor) and len(answers) == self.regressor.layout.length - 1:
            raise UserError(
                "the checkpoint is of a specular network whose lamp had no intensity and whose light was not linear; "
                "its answers mean something else now: train it anew, `make train-specular`"
            )

    def terms(
        self,
        batch: FaceBatch,
        coefficients: Coefficients,
        rendering: SpecularRendering,
        weights: SpecularWeights | None = None,
    ) -> dict[str, Tensor]:
        """The terms of equation (6) and `lids`, each a mean over the images; only those with a weight.

        Args:
            batch: of images; without skin probabilities of its own its skin weights stand for them too.
            coefficients: what the network made of them.
            rendering: what these draw.
            weights: in force at this step; by default all.
        """
        weights = weights or self.weights
        terms: dict[str, Tensor] = {}
        if weights.identity:
            terms["identity"] = self.identity_term(batch, rendering.image, rendering.landmarks)
        if weights.photometric:
            skin = batch.skin if batch.skin_probability is None else batch.skin_probability
            terms["photometric"] = specular_photometric_loss(
                rendering.diffuse, rendering.image, batch.image, rendering.mask, batch.skin, skin, weights.both
            ).mean()
        if weights.landmark:
            terms["landmark"] = specular_landmark_loss(
                rendering.landmarks, batch.landmarks, self.landmark_weights, self.image_size
            ).mean()
        if weights.mouth:
            terms["mouth"] = inner_mouth_loss(rendering.landmarks, batch.landmarks, self.image_size).mean()
        if weights.lids:
            terms["lids"] = lid_distance_loss(rendering.landmarks, batch.landmarks, self.image_size).mean()
        if weights.regularization:
            terms["regularization"] = coefficient_regularization(coefficients, **weights.priors()).mean()
        if weights.uniform:
            terms["uniform"] = uniform_loss(rendering.diffuse_colors, coefficients.illumination).mean()
        return terms

    @torch.no_grad()
    def panels(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Pictures of a batch by name, each (B, 3, H, W) in [0, 1]."""
        rendering = self.renderer(self(batch.image), batch.intrinsics)
        pictures = face_panels(batch.image, rendering) | {
            "diffuse": rendering.diffuse.clamp(0, 1),
            "specular": rendering.specular.clamp(0, 1),
        }
        if batch.truth is not None and batch.truth.specular is not None:
            pictures["true specular"] = batch.truth.specular
        return pictures
